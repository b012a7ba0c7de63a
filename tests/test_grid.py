"""Heads that are trained at once have the results that they have alone; the best on val is the run."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import Images, make_learner, make_trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn

from vidclf.build import grid
from vidclf.build.training import Describe
from vidclf.contracts import Views
from vidclf.errors import VidclfError
from vidclf.models.backbones.wrap import FrozenBackbone
from vidclf.models.grid import Grid, Heads, can_be_stacked
from vidclf.models.heads.attention_pool import AttentionPool
from vidclf.models.heads.linear import Linear
from vidclf.models.heads.mean_pool import MeanPool
from vidclf.models.heads.mlp import MLP
from vidclf.models.heads.recurrent import GRU
from vidclf.models.heads.transformer import Transformer
from vidclf.models.learner import Learner
from vidclf.models.loss import CrossEntropy
from vidclf.models.mixing import Mixing
from vidclf.models.scaling import Scaling
from vidclf.models.schedules import cosine

SGD = partial(torch.optim.SGD, momentum=0.9, weight_decay=1e-3)
ADAMW = partial(torch.optim.AdamW, weight_decay=0.1)
RATES = (0.003, 0.01, 0.1)
SMOOTH = CrossEntropy(3, label_smoothing=0.1)


class Batches(list):
    """What Lightning takes for one loader, not for several."""


def batches(seed: int, num: int = 5) -> Batches:
    """Of three classes that can be told apart, but not easily."""
    random = torch.Generator().manual_seed(seed)
    made = Batches()
    for number in range(num):
        labels = torch.randint(3, (16,), generator=random)
        inputs = torch.randn(16, 4, 6, generator=random) + labels[:, None, None] * 0.5
        made.append(Views(inputs, labels, torch.arange(16) + 16 * number, torch.zeros(16, dtype=torch.int64)))
    return made


def alone(head: nn.Module, rate: float, scaling: str = "standard", **settings: Any) -> Learner:
    made = make_learner(
        FrozenBackbone(Images()),
        3,
        deepcopy(head),
        scaling=Scaling(6, scaling),
        **{"scheduler": cosine, **settings, "optimizer": partial(settings.get("optimizer", SGD), lr=rate)},
    )
    made.scaling.fit(torch.cat([batch.inputs for batch in batches(0)]))
    return made


def together(stacks: list[list[Learner]], rates: list[tuple[float, ...]]) -> Grid:
    like = [max(zip(own, of, strict=True), key=lambda pair: pair[1])[0] for own, of in zip(stacks, rates, strict=True)]
    return Grid(
        like[0],
        [
            Heads([deepcopy(one.head) for one in own], of, first.scaling, first.optimizer)
            for own, of, first in zip(stacks, rates, like, strict=True)
        ],
    )


def fitted(module: Learner, **settings: Any) -> Tensor:
    """The logits of the validation views after five epochs."""
    trainer = make_trainer(**{"max_epochs": 5, **settings})
    trainer.fit(module, batches(0), batches(1))
    module.eval()
    with torch.no_grad():
        return torch.cat([module(batch.inputs) for batch in batches(1)])


@pytest.mark.parametrize(
    ("make_head", "settings", "training"),
    [
        (partial(Linear, 6, 3), {}, {}),
        (partial(Linear, 6, 3), {"optimizer": ADAMW}, {"accumulate_grad_batches": 2}),
        (partial(MLP, 6, 3, widths=(8, 5)), {}, {}),
        (partial(MLP, 6, 3, widths=(8,)), {"optimizer": ADAMW, "loss": SMOOTH}, {"gradient_clip_val": 0.1}),
        (partial(MeanPool, 6, 3, width=8), {"mixing": Mixing(mixup=1.0)}, {}),
        (partial(Linear, 6, 3), {"loss": nn.MultiMarginLoss()}, {"gradient_clip_val": 0.05}),
    ],
)
def test_a_head_in_a_stack_has_the_logits_that_it_has_alone(
    make_head: Callable, settings: dict[str, Any], training: dict[str, Any]
):
    torch.manual_seed(1)
    head = make_head()
    assert can_be_stacked(head, 6)
    classifiers = [alone(head, rate, **settings) for rate in RATES]
    at_once = fitted(together([classifiers], [RATES]), **training)
    for number, classifier in enumerate(classifiers):
        torch.testing.assert_close(at_once[..., number], fitted(classifier, **training), atol=1e-5, rtol=1e-5)


def test_stacks_side_by_side_draw_as_if_each_were_alone():
    """Of another share of dropout, none, another scaling, and heads that cannot be stacked."""
    torch.manual_seed(1)
    heads = [MLP(6, 3, (8,), 0.5), MLP(6, 3, (8,), 0.0), MLP(6, 3, (8,), 0.5), GRU(6, 3, 4)]
    stacks = [
        [alone(head, rate, scaling, mixing=Mixing(mixup=1.0)) for rate in rates]
        for head, scaling, rates in zip(heads, ("standard", "none", "max", "standard"), PAIRS, strict=True)
    ]
    at_once = fitted(together(stacks, PAIRS))
    for number, classifier in enumerate(one for stack in stacks for one in stack):
        torch.testing.assert_close(at_once[..., number], fitted(classifier), atol=1e-5, rtol=1e-5)


PAIRS = [(0.01, 0.1), (0.01, 0.1), (0.1,), (0.1,)]


class Counting(nn.Linear):
    """A head with a buffer, as batch normalisation has."""

    def __init__(self) -> None:
        super().__init__(6, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.mean(1))


class Remembering(nn.Linear):
    """A head that holds its weights by another name."""

    def __init__(self) -> None:
        super().__init__(6, 3)
        self.held = [self.weight]

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(1) @ self.held[0].T


class Deciding(nn.Linear):
    """A head that looks at a number."""

    def forward(self, features: Tensor) -> Tensor:
        logits = super().forward(features.mean(1))
        return logits if logits.sum() > 0 else -logits


class Own(nn.Linear):
    """A head of one's own."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.amax(1))


class Tied(nn.Module):
    """A head that uses a layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.Linear(6, 6)

    def forward(self, features: Tensor) -> Tensor:
        return self.second(self.first(features.mean(1)))


@pytest.mark.parametrize("head", [GRU(6, 3), Transformer(6, 3), AttentionPool(6, 3), Counting(), Remembering(), Tied()])
def test_heads_that_would_compute_otherwise_in_a_stack_are_not_stacked(head: nn.Module):
    deciding = Deciding(6, 3)
    before, random = deepcopy(head.state_dict()), torch.get_rng_state()
    assert not can_be_stacked(head, 6)
    assert not can_be_stacked(deciding, 6)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_one_that_diverges_ends_none_of_the_others():
    head = Linear(6, 3)
    classifiers = [alone(head, rate, "none") for rate in (0.01, 1e38)]
    many = together([classifiers], [(0.01, 1e38)])
    at_once = fitted(many)
    assert many.scores["val/loss"].isfinite().tolist() == [True, False]
    torch.testing.assert_close(at_once[..., 0], fitted(classifiers[0]), atol=1e-3, rtol=1e-3)
    with pytest.raises(VidclfError, match=r"not finite.*Try a lower optimizer\.lr"):
        fitted(together([[alone(head, 1e38, "none")]], [(1e38,)]))


class Whose(Describe):
    """Says of whose configuration it was told."""

    def on_save_checkpoint(self, trainer: object, pl_module: object, checkpoint: dict[str, Any]) -> None:
        checkpoint["whose"] = self.config["optimizer"]["lr"]


def chooser(folder: Path, rates: tuple[float, ...], *stops: EarlyStopping, **best: Any) -> grid.ChooseHead:
    candidates = [grid.Candidate({"lr": rate}, {"optimizer": {"lr": rate}}) for rate in rates]
    choose = grid.ChooseHead(candidates, Whose({}, ""))
    kept = ModelCheckpoint(folder, "best", **{"monitor": "val/loss", **best})
    assert choose.take_over([kept, *stops]) == [choose]
    return choose


@pytest.mark.parametrize("averaged", [False, True])
def test_what_is_kept_is_the_checkpoint_of_the_best_head_alone(averaged: bool, tmp_path: Path):
    torch.manual_seed(1)
    head = MLP(6, 3, (8,))
    rates = (0.0001, 0.1, 0.001)
    classifiers = [alone(head, rate) for rate in rates]

    def ema() -> list[Callback]:
        return [EMAWeightAveraging(decay=0.9)] if averaged else []

    choose = chooser(tmp_path / "all", rates)
    many = together([classifiers], [rates])
    fitted(many, callbacks=[*ema(), choose, choose.describe], enable_checkpointing=True)
    kept = ModelCheckpoint(tmp_path / "one", "best", monitor="val/loss")
    fitted(classifiers[1], callbacks=[*ema(), kept], enable_checkpointing=True)
    one, best = (torch.load(tmp_path / name / "best.ckpt", weights_only=True) for name in ("one", "all"))
    assert (choose.winner, best["whose"], best["epoch"]) == (1, 0.1, one["epoch"])
    assert best["state_dict"].keys() == one["state_dict"].keys()
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(best["state_dict"][name], value, atol=1e-5, rtol=1e-5)
        assert best["state_dict"][name].untyped_storage().nbytes() == value.untyped_storage().nbytes()
    rows = choose.rows(many)
    assert [row["chosen"] for row in rows] == ["", "the best of 3 heads x 5 epochs", ""]
    assert rows[1]["val/loss"] == pytest.approx(kept.best_model_score.item(), rel=1e-5)


def look_at(choose: grid.ChooseHead, *epochs: list[float], score: str = "val/loss", first: int = 1) -> list[int]:
    """Let validation score each head as told; return the epochs whose best head is the best so far."""
    many = Grid(make_learner(FrozenBackbone(Images())), [])
    saved = []
    for epoch, scores in enumerate(epochs, first):
        many.logits = torch.zeros(1, 2, len(scores))
        many.scores = {"val/loss": torch.zeros(len(scores)), score: torch.tensor(scores)}
        saved += [epoch] if choose.look(many, epoch) else []
    return saved


def test_equal_scores_go_to_the_smaller_rate_in_whichever_epoch(tmp_path: Path):
    choose = chooser(tmp_path, (0.1, 0.01, 0.03))
    assert look_at(choose, [0.5, 0.9, 0.9], [0.5, 0.9, 0.5], [0.6, 0.5, 0.5], [0.5, 0.5, 0.5]) == [1, 2, 3]
    assert (choose.winner, choose.best[1]["epoch"]) == (1, 3)
    assert [best["epoch"] for best in choose.best] == [1, 3, 2]  # each head keeps its first


def test_a_run_that_is_chosen_by_accuracy_is_chosen_by_the_highest(tmp_path: Path):
    choose = chooser(tmp_path, (0.1, 0.01), monitor="val/view_top1", mode="max")
    look_at(choose, [0.5, 0.2], [0.4, 0.6], score="val/view_top1")
    assert (choose.winner, choose.best[1]["epoch"]) == (1, 2)
    with pytest.raises(VidclfError, match=r"ModelCheckpoint watches monitor=train/loss.*use one of val/loss"):
        chooser(tmp_path, (0.1,), monitor="train/loss")


def test_training_ends_when_the_last_head_has_to_stop_and_each_counts_as_if_alone(tmp_path: Path):
    choose = chooser(tmp_path, (0.1, 0.01, 0.001), EarlyStopping("val/loss", patience=2))
    nan = float("nan")
    losses = [[0.5, 0.9, 0.1], [0.6, 0.8, nan], [0.7, 0.7, 0.0], [0.1, 0.6, 0.0], [0.1, 0.7, 0.0], [0.1, 0.8, 0.0]]
    assert look_at(choose, *losses[:-1]) == [1]
    assert choose.running == [False, True, False]
    assert look_at(choose, losses[-1], first=6) == []
    assert choose.running == [False, False, False]
    assert choose.num_epochs == [3, 6, 2]
    assert [best["val/loss"] for best in choose.best] == pytest.approx([0.5, 0.6, 0.1])
    choose = chooser(tmp_path, (0.1, 0.01), EarlyStopping("val/loss", patience=2, min_delta=9))
    many = together([[alone(Linear(6, 3), rate) for rate in (0.1, 0.01)]], [(0.1, 0.01)])
    fitted(many, max_epochs=9, callbacks=[choose, choose.describe], enable_checkpointing=True)
    assert choose.num_epochs == [3, 3]  # the first is better than none

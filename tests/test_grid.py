"""Heads that are trained at once have the results that they have alone; the best on val becomes the run."""

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
from vidclf.models.grid import Grid
from vidclf.models.heads.linear import Linear
from vidclf.models.heads.mean_pool import MeanPool
from vidclf.models.heads.mlp import MLP
from vidclf.models.heads.recurrent import GRU
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
    """A list that Lightning takes for one loader, not for several."""


def batches(seed: int, num: int = 5) -> Batches:
    """Return batches of three classes that overlap."""
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


def fitted(module: Learner, **settings: Any) -> Tensor:
    """Return the logits of the validation views after five epochs."""
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
def test_a_head_in_a_grid_has_the_logits_that_it_has_alone(
    make_head: Callable, settings: dict[str, Any], training: dict[str, Any]
):
    torch.manual_seed(1)
    head = make_head()
    logits = fitted(Grid([alone(head, rate, **settings) for rate in RATES]), **training)
    for number, rate in enumerate(RATES):
        expected = fitted(alone(head, rate, **settings), **training)
        torch.testing.assert_close(logits[..., number], expected, atol=1e-5, rtol=1e-5)


def test_different_heads_draw_random_numbers_as_if_each_were_alone():
    def learners() -> list[Learner]:
        torch.manual_seed(1)
        heads = [MLP(6, 3, (8,), 0.5), MLP(6, 3, (8,), 0.0), Linear(6, 3), Linear(6, 3), GRU(6, 3, 4)]
        scalings = ("standard", "none", "max", "max", "standard")
        return [
            alone(head, rate, scaling, mixing=Mixing(mixup=1.0))
            for head, scaling, rate in zip(heads, scalings, (0.01, 0.1, 0.1, 0.01, 0.1), strict=True)
        ]

    grid_of_all = Grid(learners())
    assert grid_of_all.blocks == [[0], [1], [2, 3], [4]]
    logits = fitted(grid_of_all)
    for number, learner in enumerate(learners()):
        torch.testing.assert_close(logits[..., number], fitted(learner), atol=1e-5, rtol=1e-5)


class AnyHead(nn.Linear):
    """A head that a user has written."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.amax(1))


class BatchNorm(nn.Sequential):
    """A head with buffers, which change in training."""

    def __init__(self) -> None:
        super().__init__(nn.BatchNorm1d(6), nn.Linear(6, 3))

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.mean(1))


class LinearWithGate(Linear):
    """A head that inherits from the linear head and computes more."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).tanh()


@pytest.mark.parametrize("make_head", [AnyHead, BatchNorm, LinearWithGate])
def test_a_users_head_has_the_logits_that_it_has_alone(make_head: Callable):
    torch.manual_seed(1)
    head = make_head() if make_head is BatchNorm else make_head(6, 3)
    learners = [alone(head, rate) for rate in RATES]
    logits = fitted(Grid([alone(head, rate) for rate in RATES]))
    for number, learner in enumerate(learners):
        torch.testing.assert_close(logits[..., number], fitted(learner), atol=1e-5, rtol=1e-5)


def test_a_head_that_diverges_does_not_end_the_others():
    head = Linear(6, 3)
    many = Grid([alone(head, rate, "none") for rate in (0.01, 1e38)])
    logits = fitted(many)
    assert many.scores["val/loss"].isfinite().tolist() == [True, False]
    torch.testing.assert_close(logits[..., 0], fitted(alone(head, 0.01, "none")), atol=1e-5, rtol=1e-5)
    with pytest.raises(VidclfError, match=r"not finite.*Try a lower optimizer\.lr"):
        fitted(Grid([alone(head, 1e38, "none")]))


class WriteRate(Describe):
    """Writes the learning rate of the checkpoint's head."""

    def on_save_checkpoint(self, trainer: object, pl_module: object, checkpoint: dict[str, Any]) -> None:
        checkpoint["rate"] = self.changes()["optimizer"]["lr"]


def chooser(folder: Path, rates: tuple[float, ...], *stops: EarlyStopping, **best: Any) -> grid.ChooseHead:
    candidates = [grid.Candidate({"lr": rate}, {"optimizer": {"lr": rate}}) for rate in rates]
    choose = grid.ChooseHead(candidates)
    checkpoint = ModelCheckpoint(folder, "best", **{"monitor": "val/loss", **best})
    assert choose.replace_callbacks([checkpoint, *stops]) == [choose]
    return choose


@pytest.mark.parametrize("averaged", [False, True])
def test_the_checkpoint_is_that_of_the_best_head_alone(averaged: bool, tmp_path: Path):
    torch.manual_seed(1)
    head = MLP(6, 3, (8,))
    rates = (0.0001, 0.1, 0.001)

    def ema() -> list[Callback]:
        return [EMAWeightAveraging(decay=0.9)] if averaged else []

    choose = chooser(tmp_path / "all", rates)
    many = Grid([alone(head, rate) for rate in rates])
    describe = WriteRate({}, "", "", changes=choose.changes)
    fitted(many, callbacks=[*ema(), choose, describe], enable_checkpointing=True)
    kept = ModelCheckpoint(tmp_path / "single", "best", monitor="val/loss")
    fitted(alone(head, 0.1), callbacks=[*ema(), kept], enable_checkpointing=True)
    single, best = (torch.load(tmp_path / name / "best.ckpt", weights_only=True) for name in ("single", "all"))
    assert (choose.winner, best["rate"], best["epoch"]) == (1, 0.1, single["epoch"])
    assert best["state_dict"].keys() == single["state_dict"].keys()
    for name, value in single["state_dict"].items():
        torch.testing.assert_close(best["state_dict"][name], value, atol=1e-5, rtol=1e-5)
        assert best["state_dict"][name].untyped_storage().nbytes() == value.untyped_storage().nbytes()
    rows = choose.rows(many)
    assert [row["chosen"] for row in rows] == ["", "the best of 3 heads x 5 epochs", ""]
    assert rows[1]["val/loss"] == pytest.approx(kept.best_model_score.item(), rel=1e-5)


def update(choose: grid.ChooseHead, *epochs: list[float], score: str = "val/loss", first: int = 1) -> list[int]:
    """Give each head its scores, epoch by epoch; return the epochs in which a checkpoint is saved."""
    many = Grid([make_learner(FrozenBackbone(Images()))])
    saved = []
    for epoch, scores in enumerate(epochs, first):
        many.logits = torch.zeros(1, 2, len(scores))
        many.scores = {"val/loss": torch.zeros(len(scores)), score: torch.tensor(scores)}
        saved += [epoch] if choose.update(many, epoch) else []
    return saved


def test_of_equal_scores_in_any_epoch_the_smaller_rate_wins(tmp_path: Path):
    choose = chooser(tmp_path, (0.1, 0.01, 0.03))
    assert update(choose, [0.5, 0.9, 0.9], [0.5, 0.9, 0.5], [0.6, 0.5, 0.5], [0.5, 0.5, 0.5]) == [1, 2, 3]
    assert (choose.winner, choose.best[1]["epoch"]) == (1, 3)
    assert [best["epoch"] for best in choose.best] == [1, 3, 2]  # each head keeps its first best epoch


def test_a_head_that_is_chosen_by_accuracy_has_the_highest(tmp_path: Path):
    choose = chooser(tmp_path, (0.1, 0.01), monitor="val/view_top1", mode="max")
    update(choose, [0.5, 0.2], [0.4, 0.6], score="val/view_top1")
    assert (choose.winner, choose.best[1]["epoch"]) == (1, 2)
    with pytest.raises(VidclfError, match=r"ModelCheckpoint has monitor=train/loss.*Use one of val/loss"):
        chooser(tmp_path, (0.1,), monitor="train/loss")


def test_training_ends_when_the_last_head_has_to_stop_and_each_stops_as_if_alone(tmp_path: Path):
    choose = chooser(tmp_path, (0.1, 0.01, 0.001), EarlyStopping("val/loss", patience=2))
    nan = float("nan")
    losses = [[0.5, 0.9, 0.1], [0.6, 0.8, nan], [0.7, 0.7, 0.0], [0.1, 0.6, 0.0], [0.1, 0.7, 0.0], [0.1, 0.8, 0.0]]
    assert update(choose, *losses[:-1]) == [1]
    assert choose.running == [False, True, False]
    assert update(choose, losses[-1], first=6) == []
    assert choose.running == [False, False, False]
    assert choose.num_epochs == [3, 6, 2]
    assert [best["val/loss"] for best in choose.best] == pytest.approx([0.5, 0.6, 0.1])
    choose = chooser(tmp_path, (0.1, 0.01), EarlyStopping("val/loss", patience=2, min_delta=9))
    many = Grid([alone(Linear(6, 3), rate) for rate in (0.1, 0.01)])
    fitted(many, max_epochs=9, callbacks=[choose], enable_checkpointing=True)
    assert choose.num_epochs == [3, 3]  # the first epoch counts as an improvement

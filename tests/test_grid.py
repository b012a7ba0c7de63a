"""Heads that are trained at once have the results that they have alone; the best on val is the run."""

import csv
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import Pictures, make_datamodule, make_learner, make_trainer
from hydra import compose, initialize_config_dir
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from omegaconf import OmegaConf
from torch import Tensor, nn
from verbs import SMALL, Outcome

import vidclf.train  # noqa: F401 (registers the resolvers that conf/ uses)
from vidclf.contracts import Views
from vidclf.errors import VidclfError
from vidclf.models.backbones.wrapped import FrozenBackbone, wrap
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
from vidclf.run import grid
from vidclf.run.config import CONF, HYDRA, OPTIONAL
from vidclf.run.folder import checkpoint_to_resume
from vidclf.run.training import Describe, build_learner

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
        FrozenBackbone(Pictures()),
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
    many = Grid(make_learner(FrozenBackbone(Pictures())), [])
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


@pytest.fixture
def config() -> Iterator[Callable[..., dict[str, Any]]]:
    """`config("head.over.lr=[1,2]")` is what `train head=grid` is configured by."""

    def composed(*overrides: str) -> dict[str, Any]:
        cfg = compose("train", ["head=grid", "~callbacks", "~logger", *overrides])
        return {**dict.fromkeys(OPTIONAL), **OmegaConf.to_container(cfg, resolve=True)}

    with initialize_config_dir(CONF, **HYDRA):
        yield composed


def test_every_combination_is_an_ordinary_configuration(config: Callable[..., dict[str, Any]]):
    over = ("head.head=mlp", "+head.with.widths=[4]", "head.over.lr=[0.1,0.01]", "head.over.dropout=[0,0.5]")
    candidates = grid.spread(config(*over, "head.over.scaling=[none,max]"))
    assert [tuple(one.settings.values()) for one in candidates[:3]] == [
        (0, "none", 0.1),
        (0, "none", 0.01),
        (0, "max", 0.1),
    ]
    assert len(candidates) == 8
    expected = config("head=mlp", "head.widths=[4]", "head.dropout=0.5", "optimizer.lr=0.01", "scaling=max")
    assert candidates[-1].config == expected
    assert grid.spread(expected) == []


def test_a_grid_of_which_nothing_is_said_is_one_of_rates(config: Callable[..., dict[str, Any]]):
    rates = [one.rate for one in grid.spread(config())]
    assert rates == [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["head.over.lr=[]"], r"head\.over\.lr=\[\]: a list of one value or more is varied.*the grid is empty"),
        (["head.over.lr=0.1"], r"head\.over\.lr=0\.1: a list"),
        (["head.over.lr=[0.1,-1]"], r"head\.over\.lr=-1: allowed are numbers, 0 or above"),
        (["head.over.weight_decay=[much]"], r"head\.over\.weight_decay=much: allowed are numbers"),
        (["head.over.scaling=[min]"], r"head\.over\.scaling=min: allowed are auto, standard, max, none"),
        (["head.over.dropout=[0.5]"], r"head\.over\.dropout: the head linear has no such argument; it has none\. What"),
        (["head.head=mlp", "+head.over.width=[8]"], r"head\.over\.width: the head mlp .* it has widths, dropout\."),
        (["head.head=grid"], r"head\.head=grid: the heads of a grid are of one kind, one of attention_pool"),
        (["head.head=custom"], r"head\.head=custom: name your class, by \+head\.with\._target_=my_heads\.MyHead"),
        (["head.head=knn"], r"head\.head=knn: it is fitted, not trained, and no part of a grid\. Use head=knn"),
        (["+head.hidden=8"], r"head\.hidden: a grid's heads are told their arguments by \+head\.with\.hidden"),
        (["trainer.precision=16-mixed"], r"trainer\.precision=16-mixed: where one head's gradient overflows"),
        (["optimizer={_target_: my.Own}", "~optimizer.lr"], r"head=grid: the grid is empty"),
    ],
)
def test_a_grid_that_cannot_be_is_a_sentence(
    overrides: list[str], sentence: str, config: Callable[..., dict[str, Any]]
):
    with pytest.raises(VidclfError, match=sentence):
        grid.spread(config(*overrides))


def test_a_grid_too_large_for_memory_is_told_before_it_is_made(
    config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    candidates = grid.spread(config("head.head=mlp", "head.over.lr=[0.1,0.2]", "head.over.dropout=[0,0.5]"))
    monkeypatch.setattr(grid, "free_memory", lambda: 30_000_000)
    monkeypatch.setattr(grid, "Heads", None)  # none is stacked
    with pytest.raises(VidclfError, match=r"4 heads need about 0\.07 GB of memory .* 0\.03 GB are free\. Vary less"):
        grid.build_grid(candidates, wrap(Pictures()), 1000, torch.device("cpu"))


def test_many_heads_need_a_frozen_backbone(config: Callable[..., dict[str, Any]]):
    backbone = Pictures().requires_grad_(True)
    with pytest.raises(VidclfError, match=r"head=grid: the backbone is trained.*Set backbone\.trainable=none"):
        grid.build_grid(grid.spread(config()), wrap(backbone), 2, torch.device("cpu"))


@pytest.mark.parametrize(
    ("overrides", "stacks"),
    [
        ([], [3]),
        (["head.over.weight_decay=[0,0.1]"], [3, 3]),
        (["scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR"], [1, 1, 1]),  # its end may be any rate
        (["optimizer._target_=torch.optim.Adafactor", "~optimizer.eps", "~optimizer.fused"], [1, 1, 1]),
        (["head.head=gru"], [1, 1, 1]),
        (["head.head=custom", "+head.with._target_=test_grid.Own", "+head.over.bias=[true,false]"], [3, 3]),
    ],
)
def test_what_can_be_computed_at_once_is(
    overrides: list[str], stacks: list[int], config: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
):
    settings = config("head.over.lr=[0.1,0.2,0.3]", *overrides)
    many = grid.build_grid(grid.spread(settings), wrap(Pictures()), 2, torch.device("cpu"))
    assert [stack.num_heads for stack in many.stacks] == stacks
    told = "3 of 3 heads are computed one after the other" in capsys.readouterr().err
    assert told == (stacks == [1, 1, 1])


def test_a_grid_learns_from_frames_too(ucf101_tree: Callable[..., Path], config: Callable[..., dict[str, Any]]):
    root = ucf101_tree(groups=(1, 2, 8, 9, 10), clips_per_group=1)
    candidates = grid.spread(config("scaling=none", "head.over.lr=[0.1,0.01]"))
    many = grid.build_grid(candidates, wrap(Pictures()), 2, torch.device("cpu"))
    one = build_learner(candidates[1].config, wrap(Pictures()), 2)
    losses = []
    for classifier in (many, one):
        trainer = make_trainer(max_epochs=2)
        trainer.fit(classifier, datamodule=make_datamodule(root, "frames"))
        losses.append(trainer.callback_metrics["val/loss"])
    torch.testing.assert_close(many.scores["val/loss"][1], losses[1], atol=1e-5, rtol=1e-5)
    assert losses[0] == many.scores["val/loss"].min()


def test_a_grids_run_is_an_ordinary_run_of_its_best_head(vidclf: Callable[..., Outcome], clips: Path):
    small = (f"dataset.root={clips}", *(one for one in SMALL if "head" not in one), "~callbacks.view_sheets")
    own = ("optimizer=sgd", "trainer.precision=32-true")
    outcome = vidclf("train", *small, *own, "head=grid", "head.over.lr=[0.03,0.003,0.01]")
    assert outcome.status == 0, outcome.err
    with (outcome.run / "heads.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["lr"] for row in rows] == ["0.03", "0.003", "0.01"]
    best = min(rows, key=lambda row: float(row["val/loss"]))
    assert [row["chosen"] for row in rows if row["chosen"]] == [best["chosen"]] == ["the best of 3 heads x 2 epochs"]
    assert outcome.out.startswith(f"Validation, epoch {best['epoch']} (the best of 3 heads x 2 epochs)\n")
    run = torch.load(outcome.run / "checkpoints" / "best.ckpt", weights_only=True)
    assert run["vidclf"]["config"]["head"] == {"_target_": "vidclf.models.heads.linear.Linear", "_partial_": True}
    assert run["vidclf"]["config"]["optimizer"]["lr"] == float(best["lr"])
    single = vidclf("train", *small, *own, "head=linear", f"optimizer.lr={best['lr']}")
    assert single.out.splitlines()[1:-1] == outcome.out.splitlines()[1:-1]
    assert vidclf("evaluate", f"run={outcome.run}").status == 0
    with pytest.raises(VidclfError, match=r"it has no last\.ckpt to go on from; runs of head=grid"):
        checkpoint_to_resume(outcome.run)


def test_only_train_takes_many_heads(config: Callable[..., dict[str, Any]]):
    with pytest.raises(VidclfError, match=r"head=grid: many heads, which only train can take"):
        build_learner(config(), wrap(Pictures()), 2)

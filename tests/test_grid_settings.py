"""What `head=grid` is told, what it refuses, and that its run is an ordinary one."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import Images, make_datamodule, make_trainer
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from verbs import SMALL, Outcome

from vidclf.build import grid
from vidclf.build.training import build_learner
from vidclf.errors import VidclfError
from vidclf.models.backbones.wrap import wrap
from vidclf.run.config import CONF, HYDRA, OPTIONAL_GROUPS
from vidclf.run.folder import checkpoint_to_resume


@pytest.fixture
def config() -> Iterator[Callable[..., dict[str, Any]]]:
    """`config("head.over.lr=[1,2]")` is what `train head=grid` is configured by."""

    def composed(*overrides: str) -> dict[str, Any]:
        cfg = compose("train", ["head=grid", "~callbacks", "~logger", *overrides])
        return {**dict.fromkeys(OPTIONAL_GROUPS), **OmegaConf.to_container(cfg, resolve=True)}

    with initialize_config_dir(CONF, **HYDRA):
        yield composed


def test_every_combination_is_an_ordinary_configuration(config: Callable[..., dict[str, Any]]):
    over = ("head.head=mlp", "+head.with.widths=[4]", "head.over.lr=[0.1,0.01]", "head.over.dropout=[0,0.5]")
    candidates = grid.expand_grid(config(*over, "head.over.scaling=[none,max]"))
    assert [tuple(one.settings.values()) for one in candidates[:3]] == [
        (0, "none", 0.1),
        (0, "none", 0.01),
        (0, "max", 0.1),
    ]
    assert len(candidates) == 8
    expected = config("head=mlp", "head.widths=[4]", "head.dropout=0.5", "optimizer.lr=0.01", "scaling=max")
    assert candidates[-1].config == expected
    assert grid.expand_grid(expected) == []


def test_a_grid_of_which_nothing_is_said_is_one_of_rates(config: Callable[..., dict[str, Any]]):
    rates = [one.rate for one in grid.expand_grid(config())]
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
        grid.expand_grid(config(*overrides))


def test_a_grid_too_large_for_memory_is_told_before_it_is_made(
    config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    candidates = grid.expand_grid(config("head.head=mlp", "head.over.lr=[0.1,0.2]", "head.over.dropout=[0,0.5]"))
    monkeypatch.setattr(grid, "free_memory", lambda: 30_000_000)
    monkeypatch.setattr(grid, "Heads", None)  # none is stacked
    with pytest.raises(VidclfError, match=r"4 heads need about 0\.07 GB of memory .* 0\.03 GB are free\. Vary less"):
        grid.build_grid(candidates, wrap(Images()), 1000, torch.device("cpu"))


def test_many_heads_need_a_frozen_backbone(config: Callable[..., dict[str, Any]]):
    backbone = Images().requires_grad_(True)
    with pytest.raises(VidclfError, match=r"head=grid: the backbone is trained.*Set backbone\.trainable=none"):
        grid.build_grid(grid.expand_grid(config()), wrap(backbone), 2, torch.device("cpu"))


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
    many = grid.build_grid(grid.expand_grid(settings), wrap(Images()), 2, torch.device("cpu"))
    assert [stack.num_heads for stack in many.stacks] == stacks
    told = "3 of 3 heads are computed one after the other" in capsys.readouterr().err
    assert told == (stacks == [1, 1, 1])


def test_a_grid_learns_from_frames_too(ucf101_tree: Callable[..., Path], config: Callable[..., dict[str, Any]]):
    root = ucf101_tree(groups=(1, 2, 8, 9, 10), clips_per_group=1)
    candidates = grid.expand_grid(config("scaling=none", "head.over.lr=[0.1,0.01]"))
    many = grid.build_grid(candidates, wrap(Images()), 2, torch.device("cpu"))
    one = build_learner(candidates[1].config, wrap(Images()), 2)
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
    with pytest.raises(VidclfError, match=r"head=grid: only train can use many heads"):
        build_learner(config(), wrap(Images()), 2)

"""The settings of `head=grid`, its errors, and its run, which is an ordinary one."""

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
from vidclf.build.parts import is_grid
from vidclf.build.training import build_learner
from vidclf.errors import VidclfError
from vidclf.models.backbones.wrap import wrap
from vidclf.run.config import CONF, HYDRA, OPTIONAL_GROUPS
from vidclf.run.folder import checkpoint_to_resume


@pytest.fixture
def config() -> Iterator[Callable[..., dict[str, Any]]]:
    """`config("head.over.lr=[1,2]")` returns the configuration of `train head=grid`."""

    def composed(*overrides: str) -> dict[str, Any]:
        cfg = compose("train", ["head=grid", "~callbacks", "~logger", *overrides])
        return {**dict.fromkeys(OPTIONAL_GROUPS), **OmegaConf.to_container(cfg, resolve=True)}

    with initialize_config_dir(CONF, **HYDRA):
        yield composed


def test_every_combination_is_an_ordinary_configuration(config: Callable[..., dict[str, Any]]):
    over = ("head.head=mlp", "+head.with.widths=[4]", "head.over.lr=[0.1,0.01]", "head.over.dropout=[0,0.5]")
    candidates = grid.expand_grid(config(*over, "head.over.scaling=[none,max]"))
    assert [tuple(candidate.settings.values()) for candidate in candidates[:3]] == [
        (0, "none", 0.1),
        (0, "none", 0.01),
        (0, "max", 0.1),
    ]
    assert len(candidates) == 8
    alone = config("head=mlp", "head.widths=[4]", "head.dropout=0.5", "optimizer.lr=0.01", "scaling=max")
    assert config(*over, "head.over.scaling=[none,max]") | candidates[-1].changes == alone
    assert not is_grid(alone)


def test_a_grid_without_settings_varies_the_learning_rate(config: Callable[..., dict[str, Any]]):
    rates = [candidate.rate for candidate in grid.expand_grid(config())]
    assert rates == [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["head.over.lr=[]"], r"head\.over\.lr=\[\]: must be a list of one or more values"),
        (["head.over.lr=0.1"], r"head\.over\.lr=0\.1: must be a list"),
        (["head.over.lr=[0.1,-1]"], r"head\.over\.lr=-1: must be a number, 0 or above"),
        (["head.over.weight_decay=[much]"], r"head\.over\.weight_decay=much: must be a number"),
        (["head.over.scaling=[min]"], r"head\.over\.scaling=min: allowed are auto, standard, max, none"),
        (["head.over.dropout=[0.5]"], r"head\.over\.dropout: head=linear has no such argument.* none\."),
        (["head.head=mlp", "+head.over.width=[8]"], r"head\.over\.width: head=mlp has no .*: widths, dropout\."),
        (["head.head=grid"], r"head\.head=grid: .*Use one of attention_pool"),
        (["head.head=custom"], r"head\.head=custom: .*\+head\.with\._target_=my_heads\.MyHead"),
        (["head.head=knn"], r"head\.head=knn: it is fitted, not trained.* Use head=knn"),
        (["+head.hidden=8"], r"head\.hidden: .*\+head\.with\.hidden"),
        (["trainer.precision=16-mixed"], r"trainer\.precision=16-mixed: .*use bf16-mixed"),
        (["optimizer={_target_: my.Own}", "~optimizer.lr"], r"head=grid: the grid is empty"),
    ],
)
def test_an_invalid_grid_is_an_error(overrides: list[str], message: str, config: Callable[..., dict[str, Any]]):
    with pytest.raises(VidclfError, match=message):
        grid.expand_grid(config(*overrides))


def test_a_grid_that_does_not_fit_into_memory_is_refused_before_it_is_built(
    config: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    settings = config("head.head=mlp", "head.over.lr=[0.1,0.2]", "head.over.dropout=[0,0.5]")
    monkeypatch.setattr(grid, "free_memory", lambda: 30_000_000)
    monkeypatch.setattr(grid, "Grid", None)  # not reached
    with pytest.raises(VidclfError, match=r"4 heads need about 0\.07 GB of memory .* 0\.03 GB are free\. Vary less"):
        grid.build_grid(settings, grid.expand_grid(settings), wrap(Images()), 1000, torch.device("cpu"))


def test_a_grid_needs_a_frozen_backbone(config: Callable[..., dict[str, Any]]):
    backbone = Images().requires_grad_(True)
    with pytest.raises(VidclfError, match=r"head=grid: the backbone is trained.*Set backbone\.trainable=none"):
        grid.build_grid(config(), grid.expand_grid(config()), wrap(backbone), 2, torch.device("cpu"))


@pytest.mark.parametrize(
    ("overrides", "sizes"),
    [
        ([], [3]),
        (["head.over.weight_decay=[0,0.1]"], [6]),
        (["head.over.scaling=[none,max]"], [3, 3]),
        (["optimizer._target_=torch.optim.Adafactor", "~optimizer.eps", "~optimizer.fused"], [3]),
        (["head.head=gru"], [1, 1, 1]),
        (["head.head=custom", "+head.with._target_=test_grid.AnyHead"], [1, 1, 1]),
    ],
)
def test_linear_heads_of_one_scaling_are_computed_together(
    overrides: list[str], sizes: list[int], config: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
):
    settings = config("head.over.lr=[0.1,0.2,0.3]", *overrides)
    many = grid.build_grid(settings, grid.expand_grid(settings), wrap(Images()), 2, torch.device("cpu"))
    assert [len(block) for block in many.blocks] == sizes
    notice = "3 of 3 heads are computed one after the other" in capsys.readouterr().err
    assert notice == (sizes == [1, 1, 1])
    rates = [group["lr"] for group in many.build_optimizer().param_groups]
    assert sorted({*rates}) == [0.1, 0.2, 0.3]


def test_a_grid_learns_from_frames_too(ucf101_tree: Callable[..., Path], config: Callable[..., dict[str, Any]]):
    root = ucf101_tree(groups=(1, 2, 8, 9, 10), clips_per_group=1)
    settings = config("scaling=none", "head.over.lr=[0.1,0.01]")
    candidates = grid.expand_grid(settings)
    many = grid.build_grid(settings, candidates, wrap(Images()), 2, torch.device("cpu"))
    single = build_learner(settings | candidates[1].changes, wrap(Images()), 2)
    losses = []
    for learner in (many, single):
        trainer = make_trainer(max_epochs=2)
        trainer.fit(learner, datamodule=make_datamodule(root, "frames"))
        losses.append(trainer.callback_metrics["val/loss"])
    torch.testing.assert_close(many.scores["val/loss"][1], losses[1], atol=1e-5, rtol=1e-5)
    assert losses[0] == many.scores["val/loss"].min()


def test_the_run_of_a_grid_is_an_ordinary_run_of_its_best_head(vidclf: Callable[..., Outcome], clips: Path):
    small = (
        f"dataset.root={clips}",
        *(override for override in SMALL if "head" not in override),
        "~callbacks.view_sheets",
    )
    training = ("optimizer=sgd", "trainer.precision=32-true")
    outcome = vidclf("train", *small, *training, "head=grid", "head.over.lr=[0.03,0.003,0.01]")
    assert outcome.status == 0, outcome.err
    with (outcome.run / "heads.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["lr"] for row in rows] == ["0.03", "0.003", "0.01"]
    best = min(rows, key=lambda row: float(row["val/loss"]))
    assert [row["chosen"] for row in rows if row["chosen"]] == [best["chosen"]] == ["the best of 3 heads x 2 epochs"]
    won = f"lr={best['lr']}, the best of 3 heads x 2 epochs"
    assert outcome.out.startswith(f"Validation, epoch {best['epoch']} ({won})\n")
    run = torch.load(outcome.run / "checkpoints" / "best.ckpt", weights_only=True)
    assert run["vidclf"]["config"]["head"] == {"_target_": "vidclf.models.heads.linear.Linear", "_partial_": True}
    assert run["vidclf"]["config"]["optimizer"]["lr"] == float(best["lr"])
    single = vidclf("train", *small, *training, "head=linear", f"optimizer.lr={best['lr']}")
    assert single.out.splitlines()[1:-1] == outcome.out.splitlines()[1:-1]
    assert vidclf("evaluate", f"run={outcome.run}").status == 0
    with pytest.raises(VidclfError, match=r"it has no last\.ckpt to go on from; runs of head=grid"):
        checkpoint_to_resume(outcome.run)


def test_only_train_takes_many_heads(config: Callable[..., dict[str, Any]]):
    with pytest.raises(VidclfError, match=r"head=grid: only train can use many heads"):
        build_learner(config(), wrap(Images()), 2)

"""`head=grid`: train a head for every combination in `head.over` at once and keep the best on val.

Only `train` knows about grids: it leaves an ordinary run of the chosen head.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from inspect import Parameter, signature
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from omegaconf import OmegaConf
from torch import Tensor

from vidclf.build.parts import build_node
from vidclf.build.training import build_learner
from vidclf.contracts import Head, optional
from vidclf.errors import VidclfError
from vidclf.models.backbones.wrap import FrozenBackbone, TunedBackbone
from vidclf.models.grid import Grid
from vidclf.models.scaling import METHODS
from vidclf.system.machine import free_memory
from vidclf.system.terminal import say
from vidclf.system.text import plural

OPTIMIZER_KEYS = ("weight_decay", "lr")
FACTORS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10)  # of optimizer.lr, where nothing is varied
COPIES = 5  # of each weight: value, gradient, two moments, and the joined weights of linear heads
MONITORS = ("val/loss", "val/view_top1", "val/top1")


@dataclass(frozen=True)
class Candidate:
    """One combination of a grid.

    Attributes:
        settings: the varied keys and their values.
        changes: the nodes that turn the grid's configuration into that of this head alone.
    """

    settings: dict[str, Any]
    changes: dict[str, Any]

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.changes["optimizer"].get("lr") or 0.0

    def __str__(self) -> str:
        return "_".join(f"{key}-{value}" for key, value in self.settings.items())


def expand_grid(config: Mapping[str, Any]) -> list[Candidate]:
    """Return every combination of `head=grid`."""
    node = config["head"]
    if unknown := node.keys() - {"head", "with", "over"}:
        key = min(unknown)
        raise VidclfError(f"head.{key}: unknown for head=grid. Pass arguments to its heads with +head.with.{key}=...")
    if str(config["trainer"].get("precision")).startswith("16"):
        raise VidclfError(
            f"trainer.precision={config['trainer']['precision']}: an overflow in one head would skip a step of all. "
            "For head=grid use bf16-mixed or 32-true."
        )
    head = _head_node(node["head"], node["with"] or {})
    over = {key: values for key, values in (node["over"] or {}).items() if values is not None}
    rate = config["optimizer"].get("lr")
    if not over and isinstance(rate, int | float):
        over = {"lr": [float(f"{rate * factor:.3g}") for factor in FACTORS]}
    _check_over(over, head, node["head"])
    # These vary fastest, so that linear heads of one scaling are neighbours and share a matrix product.
    last = [key for key in ("scaling", *OPTIMIZER_KEYS) if key in over]
    keys = [*(key for key in over if key not in last), *last]
    combinations = [dict(zip(keys, values, strict=True)) for values in product(*(over[key] for key in keys))]
    return [Candidate(settings, _changes(config, head, settings)) for settings in combinations]


def _head_node(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    names = GlobalHydra.instance().config_loader().get_group_options("head")
    if name not in names or name == "grid":
        allowed = ", ".join(sorted({*names} - {"grid"}))
        raise VidclfError(f"head.head={name}: a grid needs heads of one kind. Use one of {allowed}.")
    node: Any = OmegaConf.to_container(compose(f"head/{name}").head)
    head = {**node, **arguments}
    if head["_target_"] == "???":
        raise VidclfError(f"head.head={name}: name your class with +head.with._target_=my_heads.MyHead.")
    return head


def _check_over(over: Mapping[str, Any], head: dict[str, Any], name: str) -> None:
    """Raise VidclfError unless every key can be varied over its values."""
    if not over:
        raise VidclfError("head=grid: the grid is empty. Name the values to try with +head.over.KEY=[...].")
    head_class = build_node(head).func
    if optional(head_class, Head, "fit"):
        raise VidclfError(f"head.head={name}: it is fitted, not trained by gradients. Use head={name}.")
    parameters = signature(head_class).parameters
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
    arguments = [key for key in parameters if key not in ("feature_dim", "num_classes")]
    for key, values in over.items():
        if not isinstance(values, list) or not values:
            raise VidclfError(
                f"head.over.{key}={values}: must be a list of one or more values. "
                f'Use "head.over.{key}=[...]", or null to leave the key as it is.'
            )
        if key not in (*OPTIMIZER_KEYS, "scaling", *arguments) and not takes_any:
            raise VidclfError(
                f"head.over.{key}: head={name} has no such argument. Vary lr, weight_decay, scaling or one of its "
                f"arguments: {', '.join(arguments) or 'none'}."
            )
        for value in values:
            if key in OPTIMIZER_KEYS and (type(value) not in (int, float) or value < 0):
                raise VidclfError(f"head.over.{key}={value}: must be a number, 0 or above.")
            if key == "scaling" and value not in ("auto", *METHODS):
                raise VidclfError(f"head.over.scaling={value}: allowed are auto, {', '.join(METHODS)}.")


def _changes(config: Mapping[str, Any], head: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    of_optimizer = {key: value for key, value in settings.items() if key in OPTIMIZER_KEYS}
    of_head = {key: value for key, value in settings.items() if key not in (*OPTIMIZER_KEYS, "scaling")}
    return {
        "head": {**head, **of_head},
        "optimizer": {**config["optimizer"], **of_optimizer},
        "scaling": settings.get("scaling", config["scaling"]),
    }


def build_grid(
    config: Mapping[str, Any],
    candidates: Sequence[Candidate],
    backbone: FrozenBackbone | TunedBackbone,
    num_classes: int,
    device: torch.device,
) -> Grid:
    """Return all heads, in the candidates' order."""
    if isinstance(backbone, TunedBackbone):
        raise VidclfError(
            "head=grid: the backbone is trained, and it cannot learn for many heads at once. Set "
            "backbone.trainable=none, or use one head and sweep with -m."
        )
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    learners, num_bytes = [], 0
    for candidate in candidates:
        learners.append(build_learner({**config, **candidate.changes}, backbone, num_classes))
        num_bytes += COPIES * sum(parameter.nbytes for parameter in learners[-1].head.parameters())
        if num_bytes > free:
            estimate = num_bytes / len(learners) * len(candidates)
            raise VidclfError(
                f"head.over: {len(candidates)} heads need about {estimate / 1e9:.2f} GB of memory for their weights, "
                f"gradients and moments, and {free / 1e9:.2f} GB are free. Vary less at once, or use a smaller head or "
                "narrower features (backbone.layer)."
            )
    grid = Grid(learners, [str(candidate) for candidate in candidates])
    num_single = sum(len(block) == 1 for block in grid.blocks)
    if num_single > 1:
        say(f"head=grid: {num_single} of {len(candidates)} heads are computed one after the other.")
    return grid


class ChooseHead(Checkpoint):
    """Keeps the best head at its best epoch in best.ckpt, and ends the training when every head has to stop.

    It replaces the callbacks that do so for a single head, with their settings.

    Args:
        candidates: in the order of the grid's heads; of equal scores, the smaller learning rate wins.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = candidates
        self.best: list[dict[str, Any]] = [{} for _ in candidates]  # each head's scores at its best epoch
        self.best_logits: dict[int, Tensor] = {}
        self.num_epochs = [0] * len(candidates)
        self.running = [True] * len(candidates)

    def replace_callbacks(self, callbacks: Sequence[Callback]) -> list[Callback]:
        """Return the callbacks with this one in place of those for a single head."""
        checkpoint = next(
            callback for callback in callbacks if isinstance(callback, ModelCheckpoint) and callback.filename == "best"
        )
        stops = [callback for callback in callbacks if isinstance(callback, EarlyStopping)]
        watching: list[ModelCheckpoint | EarlyStopping] = [checkpoint, *stops]
        for callback in watching:
            if callback.monitor not in MONITORS:
                raise VidclfError(
                    f"callbacks: {type(callback).__name__} has monitor={callback.monitor}, and a grid's head is chosen "
                    f"on val. Use one of {', '.join(MONITORS)}."
                )
        self.path, self.monitor = Path(str(checkpoint.dirpath), "best.ckpt"), str(checkpoint.monitor)
        self.sign = -1 if checkpoint.mode == "max" else 1
        self.stops = [deepcopy(stops) for _ in self.candidates]
        replaced = (ModelCheckpoint, EarlyStopping, LearningRateMonitor)
        return [*(callback for callback in callbacks if not isinstance(callback, replaced)), self]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Grid)
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.update(pl_module, trainer.current_epoch + 1):
            assert self.winner is not None
            pl_module.chosen = self.winner
            trainer.save_checkpoint(self.path)
        if not any(self.running):
            trainer.should_stop = True

    def update(self, grid: Grid, epoch: int) -> bool:
        """Read the scores of the heads that still run; return whether the best head is new or has improved."""
        before = self.winner
        for number, is_running in enumerate(self.running):
            if is_running:
                self._update_head(grid, number, epoch)
        winner = self.winner
        return winner is not None and (winner != before or self.best[winner]["epoch"] == epoch)

    def _update_head(self, grid: Grid, number: int, epoch: int) -> None:
        """Note a head's scores if they are its best, and whether it has to stop."""
        self.num_epochs[number] = epoch
        scores = {name: score[number].cpu() for name, score in grid.scores.items()}
        if not scores["val/loss"].isfinite():
            self.running[number] = False  # alone, it would have ended with an error
            return
        if "val/top1" in (self.monitor, *(stop.monitor for stop in self.stops[number])):  # it aggregates every video
            scores["val/top1"] = grid.top1(grid.logits[..., number])
        if self.sign * scores[self.monitor] < self._rank(number)[0]:
            self.best[number] = {"epoch": epoch, **{name: score.item() for name, score in scores.items()}}
            self.best_logits[number] = grid.logits[..., number].clone()
        # A list, because every callback has to count every epoch.
        stopped = [stop._evaluate_stopping_criteria(scores[str(stop.monitor)])[0] for stop in self.stops[number]]
        self.running[number] = not any(stopped)

    def _rank(self, number: int) -> tuple[float, float, int]:
        score = self.best[number].get(self.monitor)
        return inf if score is None else self.sign * score, self.candidates[number].rate, number

    @property
    def winner(self) -> int | None:
        """The number of the best head so far."""
        best = min(range(len(self.candidates)), key=self._rank)
        return best if self.best[best] else None

    def changes(self) -> dict[str, Any]:
        """Return the nodes that turn the grid's configuration into that of the best head."""
        return {} if self.winner is None else self.candidates[self.winner].changes

    def rows(self, grid: Grid) -> list[dict[str, object]]:
        """Return each head's settings and scores at its best epoch, and how many scores the chosen one is best of."""
        for number, logits in self.best_logits.items():
            self.best[number]["val/top1"] = grid.top1(logits).item()
        num_heads, num_epochs = len(self.candidates), max(self.num_epochs)
        chosen = f"the best of {plural(num_heads, 'head')} x {plural(num_epochs, 'epoch')}"
        return [
            {
                **candidate.settings,
                **{name: self.best[number].get(name, "") for name in ("epoch", *MONITORS)},
                "epochs": self.num_epochs[number],
                "chosen": chosen if number == self.winner else "",
            }
            for number, candidate in enumerate(self.candidates)
        ]

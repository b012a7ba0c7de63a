"""`head=grid`: every combination in `head.over` is a configuration of its own; all are trained at once, one is the run.

Nothing behind train knows of it: what it leaves is a run of the head that was chosen.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from inspect import Parameter, signature
from itertools import groupby, product
from math import inf
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from omegaconf import OmegaConf
from torch import Tensor, nn

from vidclf.build import parts as build
from vidclf.build.training import Describe, build_learner
from vidclf.contracts import Head, optional
from vidclf.errors import VidclfError
from vidclf.models.backbones.wrap import FrozenBackbone, TunedBackbone
from vidclf.models.grid import LINEAR_IN_RATE, Grid, Heads, can_be_stacked
from vidclf.models.learner import Learner
from vidclf.models.scaling import METHODS, Scaling
from vidclf.system.machine import free_memory
from vidclf.system.terminal import say

OF_OPTIMIZER = ("weight_decay", "lr")
FACTORS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10)  # of optimizer.lr, where nothing is varied
COPIES = 5  # of each weight: itself, its gradient, two moments, and what it was before a step
WATCHED = ("val/loss", "val/view_top1", "val/top1")


@dataclass(frozen=True)
class Candidate:
    """One combination: what of it is varied, and the configuration of a run with it alone."""

    settings: dict[str, Any]
    config: dict[str, Any]

    @property
    def rate(self) -> float:
        """Its learning rate."""
        return self.config["optimizer"].get("lr") or 0.0

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.settings.items())


def expand_grid(config: Mapping[str, Any]) -> list[Candidate]:
    """Return every combination of `head=grid`, the rates of one kind behind one another; none of another head.

    Raises:
        VidclfError: the grid is empty, or varies what its head does not have.
    """
    node = config["head"]
    if "over" not in node or "_target_" in node:
        return []
    if others := node.keys() - {"head", "with", "over"}:
        raise VidclfError(
            f"head.{min(others)}: a grid's heads are told their arguments by +head.with.{min(others)}=..."
        )
    if str(config["trainer"].get("precision")).startswith("16"):
        raise VidclfError(
            f"trainer.precision={config['trainer']['precision']}: where one head's gradient overflows, all would "
            "leave out a step. For head=grid use bf16-mixed or 32-true."
        )
    head = _head_of(node["head"], node["with"] or {})
    over = {key: values for key, values in (node["over"] or {}).items() if values is not None}
    rate = config["optimizer"].get("lr")
    if not over and isinstance(rate, int | float):
        over = {"lr": [float(f"{rate * factor:.3g}") for factor in FACTORS]}
    _check(over, head, node["head"])
    # The rates last: what differs in them alone is computed together.
    last = [key for key in ("scaling", *OF_OPTIMIZER) if key in over]
    keys = [*(key for key in over if key not in last), *last]
    combinations = [dict(zip(keys, values, strict=True)) for values in product(*(over[key] for key in keys))]
    return [Candidate(settings, _with(config, head, settings)) for settings in combinations]


def _head_of(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    names = GlobalHydra.instance().config_loader().get_group_options("head")
    if name not in names or name == "grid":
        allowed = ", ".join(sorted({*names} - {"grid"}))
        raise VidclfError(f"head.head={name}: the heads of a grid are of one kind, one of {allowed}.")
    node: Any = OmegaConf.to_container(compose(f"head/{name}").head)
    head = {**node, **arguments}
    if head["_target_"] == "???":
        raise VidclfError(f"head.head={name}: name your class, by +head.with._target_=my_heads.MyHead")
    return head


def _check(over: Mapping[str, Any], head: dict[str, Any], name: str) -> None:
    """Raise VidclfError unless all can be varied."""
    if not over:
        raise VidclfError("head=grid: the grid is empty. Say what is varied: +head.over.KEY=[...].")
    made = build.build_node(head).func
    if optional(made, Head, "fit"):
        raise VidclfError(f"head.head={name}: it is fitted, not trained, and no part of a grid. Use head={name}.")
    parameters = signature(made).parameters
    takes_any = any(one.kind is Parameter.VAR_KEYWORD for one in parameters.values())
    own = [key for key in parameters if key not in ("feature_dim", "num_classes")]
    for key, values in over.items():
        if not isinstance(values, list) or not values:
            raise VidclfError(
                f"head.over.{key}={values}: a list of one value or more is varied, and of {values} the grid is empty. "
                f'Give "head.over.{key}=[...]", or null for what is set elsewhere.'
            )
        if key in OF_OPTIMIZER:
            strange = [one for one in values if isinstance(one, bool) or not isinstance(one, int | float) or one < 0]
            allowed = "numbers, 0 or above"
        elif key == "scaling":
            strange, allowed = [one for one in values if one not in ("auto", *METHODS)], f"auto, {', '.join(METHODS)}"
        elif key not in own and not takes_any:
            raise VidclfError(
                f"head.over.{key}: the head {name} has no such argument; it has {', '.join(own) or 'none'}. "
                "Whatever the head, lr, weight_decay and scaling can be varied."
            )
        else:
            continue
        if strange:
            raise VidclfError(f"head.over.{key}={strange[0]}: allowed are {allowed}.")


def _with(config: Mapping[str, Any], head: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    of_optimizer = {key: value for key, value in settings.items() if key in OF_OPTIMIZER}
    of_head = {key: value for key, value in settings.items() if key not in (*OF_OPTIMIZER, "scaling")}
    return {
        **config,
        "head": {**head, **of_head},
        "optimizer": {**config["optimizer"], **of_optimizer},
        "scaling": settings.get("scaling", config["scaling"]),
    }


def build_grid(
    candidates: Sequence[Candidate],
    backbone: FrozenBackbone | TunedBackbone,
    num_classes: int,
    device: torch.device,
) -> Grid:
    """Return all heads, in the candidates' order: stacked where nothing but their rates differs, else one by one.

    Raises:
        VidclfError: the backbone is trained, or memory has no room for all.
    """
    if isinstance(backbone, TunedBackbone):
        raise VidclfError(
            "head=grid: the backbone is trained, and one backbone cannot learn for many heads. Set "
            "backbone.trainable=none, or choose one head and sweep with -m."
        )
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    stacks: list[Heads] = []
    scalings: dict[str, Scaling] = {}
    num_bytes, num_made, num_loops = 0, 0, 0
    for _, group in groupby(candidates, lambda one: {**one.config, "optimizer": {**one.config["optimizer"], "lr": 0}}):
        alike = list(group)
        fastest = max(alike, key=lambda one: one.rate)
        like = build_learner(fastest.config, backbone, num_classes)
        num_bytes += COPIES * len(alike) * sum(parameter.nbytes for parameter in like.head.parameters())
        num_made += len(alike)
        if num_bytes > free:
            all_bytes = num_bytes / num_made * len(candidates)
            raise VidclfError(
                f"head.over: {len(candidates)} heads need about {all_bytes / 1e9:.2f} GB of memory for their "
                f"weights, gradients and moments, and {free / 1e9:.2f} GB are free. Vary less at once, or take a "
                "smaller head or features (backbone.layer)."
            )
        together = len(alike) > 1 and _steps_alike(like) and can_be_stacked(like.head, backbone.feature_dim)
        num_loops += 0 if together else len(alike)
        for part in [alike] if together else [[one] for one in alike]:
            own = like if fastest in part else build_learner(part[0].config, backbone, num_classes)
            scaling = scalings.setdefault(own.scaling.method, own.scaling)
            # From one seed, they start alike.
            stacks.append(Heads([own.head] * len(part), [one.rate for one in part], scaling, own.optimizer))
    if num_loops > 1:
        say(f"head=grid: {num_loops} of {len(candidates)} heads are computed one after the other.")
    grid = Grid(like, stacks)
    grid.names = [str(one).replace("=", "-").replace(" ", "_") for one in candidates]
    return grid


def _steps_alike(like: Learner) -> bool:
    """Whether a step at one learning rate, throughout its schedule, tells those at all others."""
    is_ours = getattr(like.scheduler, "func", like.scheduler).__module__ == "vidclf.models.schedules"  # they multiply
    return is_ours and type(like.optimizer([nn.Parameter(torch.zeros(1))])) in LINEAR_IN_RATE


class ChooseHead(Checkpoint):
    """Keeps, in best.ckpt, the best of all heads at its best epoch; ends the training when the last has to stop.

    It takes the place of the callbacks that do so for one head, as they are set.

    Args:
        candidates: in the order of the grid's heads; of equal scores, the smaller rate wins.
        describe: is told whose the checkpoint is.
    """

    def __init__(self, candidates: Sequence[Candidate], describe: Describe) -> None:
        self.candidates, self.describe = candidates, describe
        self.best: list[dict[str, Any]] = [{} for _ in candidates]  # each head's scores at its best epoch
        self.num_epochs = [0] * len(candidates)  # in which each was validated
        self.judged: dict[int, Tensor] = {}  # its logits then

    def take_over(self, callbacks: Sequence[Callback]) -> list[Callback]:
        """Return those callbacks that go on beside this one.

        Raises:
            VidclfError: what is watched is not of validation.
        """
        kept = next(one for one in callbacks if isinstance(one, ModelCheckpoint) and one.filename == "best")
        stops = [one for one in callbacks if isinstance(one, EarlyStopping)]
        watching: list[ModelCheckpoint | EarlyStopping] = [kept, *stops]
        for callback in watching:
            if callback.monitor not in WATCHED:
                raise VidclfError(
                    f"callbacks: {type(callback).__name__} watches monitor={callback.monitor}. The head of a grid is "
                    f"chosen on val: use one of {', '.join(WATCHED)}."
                )
        self.path, self.monitor = Path(str(kept.dirpath), "best.ckpt"), str(kept.monitor)
        self.sign = -1 if kept.mode == "max" else 1
        self.stops = [deepcopy(stops) for _ in self.candidates]
        self.running = [True] * len(self.candidates)
        ours = (ModelCheckpoint, EarlyStopping, LearningRateMonitor)
        return [*(one for one in callbacks if not isinstance(one, ours)), self]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Grid)
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.look(pl_module, trainer.current_epoch + 1):
            assert self.winner is not None
            pl_module.chosen, self.describe.config = self.winner, self.candidates[self.winner].config
            trainer.save_checkpoint(self.path)
        if not any(self.running):
            trainer.should_stop = True

    def look(self, grid: Grid, epoch: int) -> bool:
        """Note what validation says of the heads that go on; return whether the best of all is one as it is now."""
        before = self.winner
        for number in range(len(self.candidates)):
            if self.running[number]:
                self._look_at(grid, number, epoch)
        winner = self.winner
        return winner is not None and (winner != before or self.best[winner]["epoch"] == epoch)

    def _look_at(self, grid: Grid, number: int, epoch: int) -> None:
        """Note a head's scores where they are its best, and whether it has to stop."""
        self.num_epochs[number] = epoch
        watched = {self.monitor, *(str(one.monitor) for one in self.stops[number])}
        scores = {name: score[number].cpu() for name, score in grid.scores.items()}
        if not scores["val/loss"].isfinite():
            self.running[number] = False  # alone, that would be an error
            return
        if "val/top1" in watched:  # looks at every video
            scores["val/top1"] = grid.top1(grid.logits[..., number])
        if self.sign * scores[self.monitor] < self._rank(number)[0]:
            self.best[number] = {"epoch": epoch, **{name: score.item() for name, score in scores.items()}}
            self.judged[number] = grid.logits[..., number].clone()
        # Each of them all the time, as it would count alone.
        stopped = [one._evaluate_stopping_criteria(scores[str(one.monitor)])[0] for one in self.stops[number]]
        self.running[number] = not any(stopped)

    def _rank(self, number: int) -> tuple[float, float, int]:
        score = self.best[number].get(self.monitor)
        return inf if score is None else self.sign * score, self.candidates[number].rate, number

    @property
    def winner(self) -> int | None:
        """The number of the best head so far."""
        best = min(range(len(self.candidates)), key=self._rank)
        return best if self.best[best] else None

    @property
    def chosen_of(self) -> str:
        """Of how many scores the winner's is the best."""
        num_heads, num_epochs = len(self.candidates), max(self.num_epochs)
        return f"the best of {num_heads} head{'s' * (num_heads > 1)} x {num_epochs} epoch{'s' * (num_epochs > 1)}"

    def rows(self, grid: Grid) -> list[dict[str, object]]:
        """Return of each head its settings, the scores of its best epoch, and of the chosen one of how many it is."""
        for number, logits in self.judged.items():
            self.best[number]["val/top1"] = grid.top1(logits).item()
        return [
            {
                **one.settings,
                **{name: best.get(name, "") for name in ("epoch", *WATCHED)},
                "epochs": num_epochs,
                "chosen": self.chosen_of if one is self.candidates[self.winner or 0] else "",
            }
            for one, best, num_epochs in zip(self.candidates, self.best, self.num_epochs, strict=True)
        ]

"""What must agree between a run and what it is used on, and what its results are called where they do not."""

import csv
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any

import lightning as L
from hydra.utils import get_object
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vidclf.data.splits import Split
from vidclf.errors import VidclfError
from vidclf.run.config import causes_of, key_of
from vidclf.run.folder import Run
from vidclf.system.terminal import say

SCORED_BY = ("dataset", "split", "sampling", "transform", "backbone", "head", "aggregation")  # what changes a score
TRAINED_BY = (
    *SCORED_BY,
    "augmentation",
    "mixing",
    "loss",
    "optimizer",
    "scheduler",
    "layer_decay",
    "seed",
    "batch_size",
)
LIBRARIES = ("vidclf", "torch", "torchvision", "lightning", "torchmetrics")
PARTS_OF_A_CLASSIFIER = (nn.Module, Optimizer, LRScheduler, L.Trainer, Callback, Logger)
MAX_NAME_BYTES = 200  # of a folder; file systems allow 255


def differences(run: Run, config: Mapping[str, Any], explicit: Sequence[str]) -> list[str]:
    """Return the explicit overrides that make scoring differ from the run's own.

    Raises:
        VidclfError: the configuration differs where no override says so: conf/ has changed since.
    """
    found: set[str] = set()
    for key, was, now in _changes(run.config, config, SCORED_BY):
        causes = causes_of(key, explicit)
        if not causes:
            raise VidclfError(
                f"{key} is {now!r}, but the run {run.folder} was trained with {was!r}: conf/ has changed since. "
                f"Say which one you mean: {key}=..."
            )
        found.update(causes)
    return [override for override in explicit if override in found]


def results_name(part: str, changed: Iterable[str]) -> str:
    """Return the folder that results go to: the part, and what differs from the run's own settings."""
    name = "-".join([part, *(re.sub(r"[^\w.]+", "-", override).strip("-") for override in changed)])
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name.encode()[: MAX_NAME_BYTES - 9].decode(errors="ignore") + f"-{digest}"


def check_classes(run: Run, class_names: list[str]) -> None:
    """Raise VidclfError if the data set's classes are not the run's, in order."""
    if class_names == run.class_names:
        return
    if set(class_names) == set(run.class_names):
        raise VidclfError(
            f"The classes of {run.folder} are the data set's in another order: {_some(run.class_names)} in the run and "
            f"{_some(class_names)} in the data set. Use the lists (classInd.txt) that the run was trained with."
        )
    only_run = [name for name in run.class_names if name not in class_names]
    only_data = [name for name in class_names if name not in run.class_names]
    raise VidclfError(
        f"The run {run.folder} knows {len(run.class_names)} classes, the data set has {len(class_names)}: "
        f"only the run has {_some(only_run)}; only the data set has {_some(only_data)}. "
        "Point dataset.root at the run's data, or choose its classes with dataset.classes=[...]."
    )


def check_weights(run: Run, weights_hash: str) -> None:
    """Raise VidclfError if the backbone's weights are not those that the head was trained on."""
    if weights_hash != run.weights_hash:
        raise VidclfError(
            f"The head of {run.folder} was trained on a backbone with weights {run.weights_hash[:8]}, "
            f"these are {weights_hash[:8]}. Use the run's own backbone, its weights file and its backbone.precision "
            "(auto is bfloat16 on one machine and float32 on another: name the one it was trained with)."
        )


def check_split(run: Run, split: Split, part: str) -> None:
    """Raise VidclfError if videos of `part` were on another side when the run was trained; say what else differs."""
    if split.fingerprint == run.split_fingerprint:
        return
    path = run.folder / "split.csv"
    if not path.is_file():
        raise VidclfError(
            f"{path}: missing, and the data's split is not the run's, so what it was trained on is not known. "
            "Copy the run's whole folder, or train it again."
        )
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        was = {row["video"]: row["side"] for row in csv.DictReader(file)}
    now = dict(split.rows())
    moved = [name for name, side in now.items() if part in side.split("+") and was.get(name, side) != side]
    if moved or (now == was and part != "test"):
        raise VidclfError(
            f"part={part}: {len(moved) or 'single'} views or videos of it were on another side when {run.folder} was "
            f"trained: {_some(moved)}. Score them with the split and the sampling of the run."
        )
    gone, new = was.keys() - now.keys(), now.keys() - was.keys()
    if gone or new:
        say(f"The data differ from the run's: {len(gone)} videos are gone, {len(new)} are new.")


def check_resumed(run: Run, config: Mapping[str, Any], split: Split) -> None:
    """Raise VidclfError if training cannot go on from `run` as if it had never stopped."""
    num_epochs = config["trainer"]["max_epochs"]
    if num_epochs is not None and 0 <= num_epochs <= run.num_epochs:
        raise VidclfError(
            f"trainer.max_epochs={num_epochs}: {run.folder} has trained {run.num_epochs} already; ask for more."
        )
    planned = run.config["trainer"]["max_epochs"]
    if num_epochs != planned and not str(config["scheduler"]["_target_"]).endswith(".constant"):
        raise VidclfError(
            f"trainer.max_epochs={num_epochs}: the learning rate of {run.folder} was planned for {planned} epochs. "
            f"Give trainer.max_epochs={planned}, or train anew."
        )
    was, now = ({**one, "trainer": _of_training(one["trainer"]), **_averaging(one)} for one in (run.config, config))
    changed = [
        f"{key}={now} (was {was})"
        for key, was, now in _changes(was, now, (*TRAINED_BY, "trainer", "callbacks"))
        if not key.startswith("dataset.")  # its folder may have moved; its classes and sides are compared
    ]
    if split.fingerprint != run.split_fingerprint:
        changed.append("the videos or their sides")
    if changed:
        raise VidclfError(
            f"resume: {run.folder} was trained otherwise: {_some(changed)}. "
            "Give the settings and the data of that run, or train anew without resume."
        )


def _of_training(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the trainer's settings that change what is learned."""
    return {key: trainer.get(key) for key in ("precision", "accumulate_grad_batches", "gradient_clip_val")}


def _averaging(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the callbacks that average weights, all others left out."""
    callbacks = config.get("callbacks") or {}
    return {"callbacks": {k: v for k, v in callbacks.items() if str(v.get("_target_")).endswith("WeightAveraging")}}


def check_trusted(config: Mapping[str, Any], explicit: Sequence[str], trust: bool) -> None:
    """Raise VidclfError if a run's configuration names anything but parts of the libraries we know.

    What this command line names itself is its user's own choice.
    """
    if trust:
        return
    for key, target in _targets(config):
        if not any(key_of(override) == key for override in explicit) and not _is_part(target):
            raise VidclfError(
                f"The run's configuration wants to run {target} ({key}), which is no part of {', '.join(LIBRARIES)} "
                "that a classifier is made of. If you know where the run comes from, pass trust=true."
            )


def _is_part(target: str) -> bool:
    """Whether `target` is a class or function that does nothing but to be a part of a classifier.

    Calling just any function of these libraries can run a shell (`torch.os.system`) or fetch code (`torch.hub.load`).
    """
    if target.partition(".")[0] not in LIBRARIES:
        return False
    try:
        found = get_object(target)
    except Exception:  # whatever its import has to say
        return False
    home = str(getattr(found, "__module__", ""))
    if isinstance(found, type):
        return home.startswith(("vidclf.data.", "vidclf.models.")) or issubclass(found, PARTS_OF_A_CLASSIFIER)
    return isinstance(found, FunctionType) and home.startswith(("vidclf.models.", "torchvision.models."))


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
    if not isinstance(config, Mapping):
        return {prefix: config}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _changes(was: Mapping[str, Any], now: Mapping[str, Any], top_level: Iterable[str]) -> list[tuple[str, Any, Any]]:
    """Return (dotted key, old, new) of every setting below the `top_level` keys that differs."""
    old, new = (flatten({key: config.get(key) for key in top_level}) for config in (was, now))
    keys = sorted(old.keys() | new.keys())
    return [(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def _targets(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, target) of every `_target_` in mappings and lists."""
    items = config.items() if isinstance(config, Mapping) else enumerate(config)
    for key, value in items:
        dotted = f"{prefix}.{key}" if prefix else str(key)
        if key == "_target_":
            yield dotted, str(value)
        elif isinstance(value, Mapping | list | tuple):
            yield from _targets(value, dotted)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"

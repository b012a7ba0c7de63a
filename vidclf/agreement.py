"""What must agree between a run and what it is used on, and what its results are called where they do not."""

import csv
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import OmegaConf

from vidclf.data.splits import Split
from vidclf.errors import VidclfError
from vidclf.runs import Run
from vidclf.terminal import say

SCORED_BY = (
    "dataset",
    "split",
    "sampling",
    "transform",
    "backbone",
    "head",
    "aggregation",
)  # what changes a score


def differences(run: Run, config: Mapping[str, Any], explicit: Iterable[str]) -> list[str]:
    """Return the explicit overrides that make scoring differ from the run's own.

    Raises:
        VidclfError: the configuration differs where no override says so: conf/ has changed since.
    """
    replaced = {override.partition("=")[0].lstrip("+~"): override for override in explicit}
    found = set()
    for key, was, now in _changes(run.config, config):
        causes = [override for name, override in replaced.items() if key == name or key.startswith(f"{name}.")]
        if not causes:
            raise VidclfError(
                f"{key} is {now!r}, but the run {run.folder} was trained with {was!r}: conf/ has changed since. "
                f"Say which one you mean: {key}=..."
            )
        found.update(causes)
    return sorted(found)


def explicit_overrides(run: Run) -> list[str]:
    """Return what was asked for on this command line, beyond the run's saved overrides."""
    saved = set(map(str, OmegaConf.load(run.folder / ".hydra" / "overrides.yaml")))
    return [override for override in HydraConfig.get().overrides.task if override not in saved]


def results_name(part: str, changed: Iterable[str]) -> str:
    """Return the folder that results go to: the part, and what differs from the run's own settings."""
    return "-".join([part, *(re.sub(r"[^\w.]+", "-", override).strip("-") for override in changed)])


def check_classes(run: Run, class_names: list[str]) -> None:
    """Raise VidclfError if the data set's classes are not the run's, in order."""
    if class_names == run.class_names:
        return
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
            f"these are {weights_hash[:8]}. Use the run's own backbone and its weights file."
        )


def check_split(run: Run, split: Split, part: str) -> None:
    """Raise VidclfError if videos of `part` were on another side when the run was trained; say what else differs."""
    if split.fingerprint == run.split_fingerprint:
        return
    with (run.folder / "split.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        was = {row["video"]: row["side"] for row in csv.DictReader(file)}
    now = dict(split.rows())
    moved = [name for name, side in now.items() if part in side.split("+") and was.get(name, side) != side]
    if moved or (now == was and part != "test"):
        raise VidclfError(
            f"part={part}: {len(moved) or 'single'} views or videos of it were on another side when {run.folder} was "
            f"trained: {_some(moved)}. Score them with the split and the sampling of the run."
        )
    say(
        f"The data differ from the run's: {len(was.keys() - now.keys())} videos are gone, "
        f"{len(now.keys() - was.keys())} are new."
    )


def check_trusted(config: Any, trust: bool) -> None:
    """Raise VidclfError if a `_target_` of a run's configuration comes from outside the libraries we know."""
    if trust:
        return
    known = ("vidclf", "torch", "torchvision", "lightning", "torchmetrics")
    for target in _targets(config):
        if target.split(".")[0] in known and (
            getattr(get_object(target), "__module__", "").split(".")[0] in (*known, "pytorch_lightning")
        ):
            continue
        raise VidclfError(
            f"The run's configuration wants to run {target}, which is not of {', '.join(known)}. "
            "If you know where the run comes from, pass trust=true."
        )


def _changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (dotted key, old, new) of every scoring setting that differs."""
    old, new = (
        flatten({key: was.get(key) for key in SCORED_BY}),
        flatten({key: now.get(key) for key in SCORED_BY}),
    )
    keys = sorted(old.keys() | new.keys())
    return [(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
    if not isinstance(config, Mapping):
        return {prefix: config}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _targets(config: Any) -> Iterable[str]:
    if isinstance(config, Mapping):
        if isinstance(config.get("_target_"), str):
            yield config["_target_"]
        for value in config.values():
            yield from _targets(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _targets(value)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"

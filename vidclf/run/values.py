"""Check that settings are of the types that the program and the constructors state, before anything is made of them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from inspect import formatannotation, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from vidclf.errors import VidclfError
from vidclf.run.trust import targets_of, walk
from vidclf.system.text import sanitize

SETTINGS: dict[str, Any] = {  # that are no stage's
    "seed": int,
    "batch_size": int,
    "scaling": str,
    "layer_decay": float,
    "num_threads": int | None,
    "num_workers": int | None,
    "features": str,
    "compile": bool | str,
    "store": {"root": str, "draws": int},
    "timeline": {"step_s": float, "smooth_s": float | None, "min_bout_s": float | None},
    "resume": str | None,
    "trust": bool,
    "part": str,
    "source": str,
    "window_s": float | None,
    "stride_s": float | None,
    "threshold": float | None,
    "shard": str | int,
}
MAX_INT = 2**63 - 1  # of torch


def check_settings(config: Mapping[str, Any], types: Mapping[str, Any] = SETTINGS, prefix: str = "") -> None:
    """Raise VidclfError if a setting that is no stage's has a value of another type."""
    for key, annotation in types.items():
        if key in config and isinstance(annotation, dict):
            _check(prefix + key, config[key], dict)
            check_settings(config[key], annotation, f"{prefix}{key}.")
        elif key in config:
            _check(prefix + key, config[key], annotation)


def check_types(node: Mapping[str, Any], conf: Path) -> None:
    """Raise VidclfError if a value in a stage's configuration is not of its parameter's annotated type.

    Args:
        node: plain data with a `_target_`, or nodes by name, as callbacks are.
        conf: vidclf's conf/, whose folders name the stages.
    """
    from hydra.utils import get_object

    nodes = [node] if "_target_" in node else node.values()
    if not all(isinstance(below, Mapping) and "_target_" in below for below in nodes):
        shown = ", ".join(f"{key}={value}" for key, value in node.items())
        raise VidclfError(f"{shown[:200]}: no class says what it is for. Choose an option of its group first.")
    for path, value in [((), node), *walk(node)]:
        target = value.get("_target_") if isinstance(value, Mapping) else None
        if not isinstance(target, str):
            continue
        try:
            parameters = signature(get_object(target), eval_str=True).parameters
        except Exception:  # what cannot be imported, or says nothing of its arguments, is reported when it is called
            continue
        stages = [folder.name for folder in sorted(conf.iterdir()) if target in targets_of(conf, folder.name)]
        names = [*stages[:1], *map(str, path)] or [target.rpartition(".")[2]]
        for key in value.keys() & parameters.keys():
            if value[key] != parameters[key].default:
                _check(".".join([*names, key]), value[key], parameters[key].annotation)


def _check(key: str, value: object, annotation: Any) -> None:
    if not fits(value, annotation):
        shown = sanitize(str(value))[:200]
        raise VidclfError(f"{key}={shown}: must be {formatannotation(annotation).replace('typing.', '')}.")


def fits(value: Any, annotation: Any) -> bool:
    """Return whether plain data fits an annotation; one that says nothing of plain data fits everything.

    A number must be finite or infinite, not NaN, and a whole one have at most 64 bits.
    """
    kind, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if kind in (Union, UnionType):
        return any(fits(value, argument) for argument in arguments)
    if kind is Literal:  # the constructor knows which; trainer.precision=auto becomes one of them
        return any(isinstance(value, type(argument)) for argument in arguments)
    if kind in (int, float):
        is_number = isinstance(value, int) or (kind is float and isinstance(value, float) and not math.isnan(value))
        return is_number and not isinstance(value, bool) and abs(value) <= (MAX_INT if kind is int else math.inf)
    if kind in (list, tuple, Sequence, Iterable):
        items = arguments[0] if arguments else Any
        return isinstance(value, list | tuple) and (kind is tuple or all(fits(item, items) for item in value))
    if kind in (str, Path):
        return isinstance(value, str | Path) and "\0" not in str(value)
    if kind in (bool, dict, None, NoneType):
        return isinstance(value, NoneType if kind is None else kind)
    if isinstance(kind, type) and kind.__module__.startswith("torch"):
        return isinstance(value, kind)
    return True

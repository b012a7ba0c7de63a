"""Check that settings are of the types that the program and the constructors state, before anything is made of them."""

import math
import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from inspect import Parameter, formatannotation, signature
from operator import or_
from pathlib import Path
from pkgutil import resolve_name
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from vidclf.command.keys import value_at
from vidclf.command.mistakes import did_you_mean
from vidclf.command.verbs import read_verb, settings_of
from vidclf.errors import VidclfError
from vidclf.run.trust import targets_of, walk
from vidclf.system.text import sanitize

KINDS: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "list": list,
    "None": NoneType,
}  # in a verb's `types`
PLAIN_NAMES: dict[Any, str] = {
    **{int: "a whole number", float: "a number", bool: "true or false"},
    **{str: "text", Path: "text", dict: "settings of its own"},
}
LIMITS = {  # the least and the most
    **{"batch_size": (1, math.inf), "num_threads": (1, math.inf), "num_workers": (0, math.inf)},
    **{"train_groups": (1, math.inf), "store.draws": (1, math.inf), "timeline.step_s": (0.001, 10)},
    **{"timeline.smooth_s": (0, math.inf), "timeline.min_bout_s": (0, math.inf)},
}
MAX_INT = 2**63 - 1  # of torch


def check_settings(config: Mapping[str, Any], verb: str) -> None:
    """Raise VidclfError if a setting of the verb, or of train, that is no stage's has a value of another type."""
    for name in dict.fromkeys(("train", verb)):
        _check_like(config, settings_of(name), read_verb(name).types)
    for key, (least, most) in LIMITS.items():
        if (value := value_at(config, key)) is not None and not least <= value <= most:
            allowed = f"{least} or more" if most == math.inf else f"from {least} to {most}"
            raise VidclfError(f"{key}={value}: must be {allowed}.")


def _check_like(
    config: Mapping[str, Any], defaults: Mapping[str, Any], types: Mapping[str, str], prefix: str = ""
) -> None:
    """Raise VidclfError if a setting is neither of its default's type nor of those that its verb's YAML names."""
    for name, default in defaults.items():
        key = prefix + name
        if name not in config:
            continue
        kinds = [KINDS[kind] for kind in types[key].split(" | ")] if key in types else [type(default)]
        _check(key, config[name], reduce(or_, kinds))
        if default and config[name] == "":
            raise VidclfError(f"{key}=: must not be empty.")
        if isinstance(default, dict):
            _check_like(config[name], default, types, f"{key}.")


def check_types(node: Mapping[str, Any], conf: Path, stage: str = "") -> None:
    """Raise VidclfError if a value in a stage's configuration is not of its parameter's annotated type.

    Args:
        node: plain data with a `_target_`, or nodes by name, as callbacks are.
        conf: vidclf's conf/, whose folders name the stages.
        stage: the name of the node's; empty: it follows from its class, if that is one of vidclf's.
    """
    nodes = [node] if "_target_" in node else node.values()
    if not all(isinstance(below, Mapping) and "_target_" in below for below in nodes):
        shown = ", ".join(f"{key}={value}" for key, value in node.items())
        raise VidclfError(f"{shown[:200]}: no class says what it is for. Choose an option of its group first.")
    for path, value in [((), node), *walk(node)]:
        target = value.get("_target_") if isinstance(value, Mapping) else None
        if not isinstance(target, str):
            continue
        stages = (
            [stage]
            if stage
            else [folder.name for folder in sorted(conf.iterdir()) if target in targets_of(conf, folder.name)]
        )
        name = ".".join([*stages[:1], *map(str, path)]) or target.rpartition(".")[2]
        try:
            parameters = signature(_locate(f"{name}._target_", target), eval_str=True).parameters
        except (TypeError, ValueError, NameError):  # it says nothing of its arguments
            continue
        _check_names(name, target, value, parameters)
        for key in value.keys() & parameters.keys():
            if value[key] != parameters[key].default:
                _check(f"{name}.{key}", value[key], parameters[key].annotation)


def _locate(key: str, target: str) -> Any:
    """Return the class or function that a `_target_` names; an error while its module is imported is the module's."""
    try:
        part = resolve_name(target)
    except ModuleNotFoundError as error:
        if not error.name or not f"{target}.".startswith(f"{error.name}."):
            raise
        packages = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
        folders = dict.fromkeys(os.path.abspath(path) for path in sys.path if os.path.isdir(path or "."))
        searched = [path for path in folders if not path.startswith(tuple(packages))]
        raise VidclfError(
            f"{key}={target}: there is no module {error.name}, neither installed nor in {', '.join(searched)}. "
            "Start vidclf in the folder of that file, or name the folder in PYTHONPATH."
        ) from None
    except (AttributeError, ValueError) as error:
        module, _, name = target.rpartition(".")
        meant = did_you_mean(name, vars(sys.modules.get(module, sys)))
        raise VidclfError(f"{key}={target}: {error}.{meant} Choose another class or function.") from None
    if not callable(part):
        raise VidclfError(f"{key}={target}: a {type(part).__name__}, not a class or function. Write {target}.NAME.")
    return part


def _check_names(name: str, target: str, node: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> None:
    """Raise VidclfError if a key is no parameter of its target."""
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    takes = [key for key, parameter in parameters.items() if parameter.default is not Parameter.empty or key in node]
    for key in node.keys() - parameters.keys():
        if key.startswith("_"):
            continue
        meant = did_you_mean(key, takes)
        if not meant and key in settings_of("train"):
            meant = f" Did you mean {key}={node[key]}?"
        taker, names = target.rpartition(".")[2], ", ".join(takes) or "nothing"
        raise VidclfError(f"{name}.{key}: {taker} takes no {key}.{meant} It takes {names}.")


def _check(key: str, value: object, annotation: Any) -> None:
    if not fits(value, annotation):
        shown = sanitize(str(value))[:200]
        example = f" Write {key}=[{shown}]." if fits([value], annotation) and not fits([[]], annotation) else ""
        raise VidclfError(f"{key}={shown}: must be {name_of(annotation)}.{example}")


def name_of(annotation: Any) -> str:
    """Return what an annotation says of plain data, in words: `a whole number or null`."""
    kind, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if kind in (Union, UnionType):
        names = dict.fromkeys(name_of(argument) for argument in arguments if not _is_of_torch(argument))
        return " or ".join(name for name in names if not (name == PLAIN_NAMES[int] and PLAIN_NAMES[float] in names))
    if kind is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if kind in (list, tuple, Sequence, Iterable):
        return f"a list (each item {name_of(arguments[0])})" if arguments else "a list"
    return PLAIN_NAMES.get(kind, "null" if kind in (None, NoneType) else formatannotation(annotation))


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
    return isinstance(value, kind) if _is_of_torch(kind) else True


def _is_of_torch(kind: Any) -> bool:
    return isinstance(kind, type) and kind.__module__.startswith("torch")

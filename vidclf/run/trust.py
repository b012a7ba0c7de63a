"""Check what a run's configuration names before any of it is used: the run may come from a stranger."""

import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

from vidclf.errors import VidclfError

PLAIN = (NoneType, bool, int, float, str, dict, list)
MAX_DEPTH, MAX_SETTINGS = 20, 100_000
REMEDY = "If you trust the source of the run, pass trust=true."


def check_plain(config: Mapping[str, Any]) -> None:
    """Raise VidclfError if a run's configuration is anything but nested plain data."""
    for path, value in walk(config):
        if type(value) not in PLAIN or type(path[-1]) not in (str, int):
            raise VidclfError(
                f"The run's configuration is not plain data: {_dotted(path)} is a {type(value).__name__}."
            )


def check_trusted(config: Mapping[str, Any], conf: Path, trust: bool) -> None:
    """Raise VidclfError if a run's configuration could do anything but describe a classifier.

    Args:
        config: plain data, without the settings that this command line replaces.
        conf: vidclf's conf/: each stage may name the classes that its YAMLs there name.
        trust: whether other classes are allowed.
    """
    for path, value in walk(config):
        key, name = _dotted(path), str(path[-1])
        if isinstance(value, str) and re.search(r"\$\{[^}]*:", value):
            raise VidclfError(
                f"The run's configuration contains a resolver, which is never resolved: {key} is {value!r}. "
                f"Set {key}=... on the command line."
            )
        if path[0] == "callbacks" and name == "filename" and not re.fullmatch(r"[\w ={}:.+-]*", str(value)):
            raise VidclfError(f"The run's configuration wants to write to {key}={value!r}; it must be a plain name.")
        # _args_ too is refused: a file name is recognised by its key.
        if not trust and name not in ("_target_", "_partial_") and re.fullmatch("_.*_", name):
            raise VidclfError(f"The run's configuration uses {key}, which vidclf never needs. {REMEDY}")
        if not trust and name == "fetch" and value:
            raise VidclfError(f"The run's configuration wants to fetch files ({key}). {REMEDY}")
        if not trust and name == "_target_" and not _is_trusted(path, value, conf):
            raise VidclfError(
                f"The run's configuration wants to run {value} ({key}), which is not a class that vidclf has for that "
                f"stage. {REMEDY}"
            )


def walk(config: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield (path, value) of everything in nested mappings and lists."""
    todo: list[tuple[tuple[Any, ...], Any]] = [((), config)]
    for _ in range(MAX_SETTINGS):
        if not todo:
            return
        path, value = todo.pop()
        if path:
            yield path, value
        if isinstance(value, Mapping | list):
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            todo.extend(((*path, key), item) for key, item in items)
        if len(path) > MAX_DEPTH or len(todo) > MAX_SETTINGS:
            break
    raise VidclfError(
        f"The run's configuration is nested deeper than {MAX_DEPTH} levels, or has more than {MAX_SETTINGS} settings: "
        "vidclf train did not write it. Use another run."
    )


def _is_trusted(path: tuple[Any, ...], target: object, conf: Path) -> bool:
    """Return whether `target` is a class or function of the stage at `path`, such as `head` or `callbacks.best`.

    Those are the ones that the YAMLs of the stage name, and optimisers and schedulers of torch. A class that can fetch
    does so only if `fetch` is set.
    """
    stage = path[0]
    if len(path) != (3 if stage == "callbacks" else 2) or not isinstance(target, str):
        return False
    if target in targets_of(conf, str(stage)):
        return True
    match = re.fullmatch(r"(torch\.optim(?:\.[a-z]\w*)?)\.([A-Z]\w*)", target)
    if stage not in ("optimizer", "scheduler") or match is None:
        return False
    from torch.optim import Optimizer, lr_scheduler

    part = getattr(sys.modules.get(match[1]), match[2], None)
    kind = Optimizer if stage == "optimizer" else lr_scheduler.LRScheduler
    return isinstance(part, type) and issubclass(part, kind)


@cache
def targets_of(conf: Path, stage: str) -> frozenset[str]:
    """Return the classes and functions that the YAMLs of a stage name."""
    texts = [path.read_text(encoding="utf-8") for path in (conf / stage).glob("*.yaml")]
    return frozenset(name for text in texts for name in re.findall(r"^ *_target_: *([\w.]+)", text, re.MULTILINE))


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))

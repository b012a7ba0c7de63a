"""Check what a run's configuration names before any of it is used: the run may come from a stranger."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FunctionType, NoneType
from typing import Any

from vidclf.errors import VidclfError

PACKAGE = Path(__file__).parents[1]
PLAIN = (NoneType, bool, int, float, str, dict, list)
MAX_DEPTH, MAX_SETTINGS = 20, 100_000
HAVE_FUNCTIONS = ("vidclf.models.aggregation", "vidclf.models.schedules")  # elsewhere, only classes are trusted
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
        conf: vidclf's conf/: classes that its files name are trusted in the same group.
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
        if not trust and name == "_target_" and not _is_trusted(str(path[0]), value, conf):
            raise VidclfError(
                f"The run's configuration wants to run {value} ({key}), which is not a class of vidclf, "
                f"torch.optim or Lightning that a classifier consists of. {REMEDY}"
            )


def walk(config: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield (path, value) of everything in nested mappings and lists.

    Raises:
        VidclfError: it is too deep or too large for the configuration of a run.
    """
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


def _is_trusted(group: str, target: object, conf: Path) -> bool:
    """Return whether `target` is a class or function that can only be a part of a classifier.

    Its name is checked before anything is imported, and then the object itself: functions of the libraries can run a
    shell (`torch.os.system`) or fetch code (`torch.hub.load`), and some of vidclf write files.
    """
    # Classes named in conf/ that can fetch do so only if `fetch` is set, or fetch torchvision's fixed names.
    if str(target) in _named_in(conf, group) | _named_in(conf, "experiment"):
        return True
    word = r"\.[a-z]\w*"
    match = re.fullmatch(rf"(torch\.optim(?:{word})?|vidclf\.(?:data|models)(?:{word})*)\.([a-zA-Z]\w*)", str(target))
    if match is None:
        return False
    module, name = match.groups()
    file = PACKAGE.joinpath(*module.split(".")[1:])
    if module.startswith("vidclf.") and not (file.with_suffix(".py").is_file() or (file / "__init__.py").is_file()):
        return False
    try:
        part = getattr(import_module(module), name)
    except Exception:  # an import can raise anything
        return False
    if module.startswith("torch."):
        from torch.optim import Optimizer, lr_scheduler

        return isinstance(part, type) and issubclass(part, Optimizer | lr_scheduler.LRScheduler)
    is_allowed = isinstance(part, type) or (module in HAVE_FUNCTIONS and isinstance(part, FunctionType))
    return is_allowed and part.__module__ == module


@cache
def _named_in(conf: Path, group: str) -> frozenset[str]:
    """Return the targets that the YAMLs of a group name."""
    texts = [path.read_text(encoding="utf-8") for path in (conf / group).glob("*.yaml")]
    return frozenset(name for text in texts for name in re.findall(r"^ *_target_: *([\w.]+)", text, re.MULTILINE))


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))

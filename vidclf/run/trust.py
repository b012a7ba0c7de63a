"""Which parts a run's configuration may name: it may come from a stranger, and is data until this has looked at it."""

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
REMEDY = "If you know where the run comes from, pass trust=true."


def check_plain(config: Mapping[str, Any]) -> None:
    """Raise VidclfError if a run's configuration is anything but nested plain data."""
    for path, value in walk(config):
        if type(value) not in PLAIN or type(path[-1]) not in (str, int):
            raise VidclfError(f"The run's configuration is no plain data: {_dotted(path)} is a {type(value).__name__}.")


def check_trusted(config: Mapping[str, Any], conf: Path, trust: bool) -> None:
    """Raise VidclfError if what is left of a run's configuration could do anything but be a classifier.

    What this command line sets itself is its user's own choice, and no longer in it.

    Args:
        config: plain data.
        conf: the folder of our own configuration: what its files name is trusted in the same group.
        trust: whether other people's classes are allowed.
    """
    for path, value in walk(config):
        key, name = _dotted(path), str(path[-1])
        if isinstance(value, str) and re.search(r"\$\{[^}]*:", value):
            raise VidclfError(
                f"The run's configuration holds a resolver, and strings of a run are never resolved: {key} is "
                f"{value!r}. Give {key}=... on the command line."
            )
        if path[0] == "callbacks" and name == "filename" and not re.fullmatch(r"[\w ={}:.+-]*", str(value)):
            raise VidclfError(f"The run's configuration wants to write to {key}={value!r}; it must be a plain name.")
        # Not _args_ either: what is written to is known by its name.
        if not trust and name not in ("_target_", "_partial_") and re.fullmatch("_.*_", name):
            raise VidclfError(f"The run's configuration uses {key}, which no part of ours needs. {REMEDY}")
        if not trust and name == "fetch" and value:
            raise VidclfError(f"The run's configuration wants to fetch files ({key}). {REMEDY}")
        if not trust and name == "_target_" and not _is_part(str(path[0]), value, conf):
            raise VidclfError(
                f"The run's configuration wants to run {value} ({key}), which is no part of vidclf, torch.optim or "
                f"Lightning that a classifier is made of. {REMEDY}"
            )


def walk(config: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield (path, value) of everything in nested mappings and lists.

    Raises:
        VidclfError: it is too deep or too much to be the configuration of a run.
    """
    todo: list[tuple[tuple[Any, ...], Any]] = [((), config)]
    for _ in range(MAX_SETTINGS):
        if not todo:
            return
        path, value = todo.pop()
        if path:
            yield path, value
        if isinstance(value, Mapping | list):
            below = value.items() if isinstance(value, Mapping) else enumerate(value)
            todo.extend(((*path, key), one) for key, one in below)
        if len(path) > MAX_DEPTH or len(todo) > MAX_SETTINGS:
            break
    raise VidclfError(
        f"The run's configuration is nested deeper than {MAX_DEPTH} levels, or has more than {MAX_SETTINGS} settings: "
        "it is none that vidclf train wrote."
    )


def _is_part(group: str, target: object, conf: Path) -> bool:
    """Whether `target` is a class or function that does nothing but to be a part of a classifier.

    Its name is looked at before anything is imported, and then what stands there. Calling just any function of the
    libraries can run a shell (`torch.os.system`) or fetch code (`torch.hub.load`), and some of ours write files.
    """
    # Those that fetch by name do so only where `fetch` says so; torchvision's names, which ours know, are fixed.
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
        found = getattr(import_module(module), name)
    except Exception:  # whatever its import has to say
        return False
    if module.startswith("torch."):
        from torch.optim import Optimizer, lr_scheduler

        return isinstance(found, type) and issubclass(found, Optimizer | lr_scheduler.LRScheduler)
    has_functions = module in ("vidclf.models.aggregation", "vidclf.models.schedules")
    is_kind = isinstance(found, type) or (has_functions and isinstance(found, FunctionType))
    return is_kind and found.__module__ == module


@cache
def _named_in(conf: Path, group: str) -> frozenset[str]:
    """Return what the YAMLs of a group name."""
    texts = [path.read_text(encoding="utf-8") for path in (conf / group).glob("*.yaml")]
    return frozenset(name for text in texts for name in re.findall(r"^ *_target_: *([\w.]+)", text, re.MULTILINE))


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))

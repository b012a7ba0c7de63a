"""What stands on a verb's command line: quoted for Hydra, and behind `run=DIR` what the run was trained with."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from vidclf.errors import VidclfError

LITERAL = ("run", "source", "resume")  # paths, taken as they are: Hydra's grammar has uses for = , ( ~ and spaces
PATHS = ("dataset.", "store.", "backbone.weights")  # so too where one exists, or the grammar cannot read it
OF_A_MACHINE = ("trainer.devices", "trainer.num_nodes", "trainer.accelerator", "sweep")  # where a run was trained
OF_A_RUN = ("evaluate", "predict")


def prepare(verb: str, arguments: Sequence[str], conf: Path) -> list[str]:
    """Return the arguments that Hydra is given: paths quoted; the run's own overrides, then `run=`, then the rest.

    Flags come first, wherever they stood: Hydra's parser takes no overrides behind a second one.

    Raises:
        VidclfError: `run` is no run, or its overrides are not those of one.
    """
    quoted = [_quote(argument) for argument in sorted(arguments, key=_is_override)]
    runs = [argument for argument in arguments if argument.startswith("run=")]
    if verb not in OF_A_RUN or not runs:
        return quoted
    run = runs[-1]
    flags = [argument for argument in quoted if not _is_override(argument)]
    rest = [argument for argument in quoted if _is_override(argument) and not argument.startswith("run=")]
    saved = saved_overrides(Path(run.removeprefix("run=")), known_keys(conf, "train"))
    replaced = {key_of(argument) for argument in rest}
    kept = [override for override in saved if not any(_lies_in(key_of(override), key) for key in replaced)]
    kept = [override for override in kept if key_of(override) not in OF_A_MACHINE]
    return [*flags, *kept, _quote(run), *rest]


def task_overrides() -> list[str]:
    """Return the overrides that Hydra composed this job from."""
    # Iterated over, a list of OmegaConf resolves what an override says by ${...}.
    return OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)  # type: ignore[return-value]


def explicit_overrides() -> list[str]:
    """Return those that this command line gave, which `prepare` has put behind the run's own."""
    overrides = task_overrides()
    return overrides[[key_of(override) for override in overrides].index("run") :]


def saved_overrides(folder: Path, known: Iterable[str]) -> list[str]:
    """Return the overrides that the run in `folder` was trained with.

    They are composed before anything can be checked, so none may reach into Hydra itself or say `trust=true`.

    Raises:
        VidclfError: there are none, or one of them sets another key than those which are `known`.
    """
    from vidclf.run.folder import checkpoint_of

    checkpoint_of(folder)
    path = folder / ".hydra" / "overrides.yaml"
    try:
        saved = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:  # whatever YAML and the disk have to say of it
        raise VidclfError(
            f"{path}: missing or damaged ({type(error).__name__}); evaluate and predict need what the run was "
            "trained with. Copy the run's whole folder, or train it again."
        ) from error
    keys = "|".join(map(re.escape, sorted(known)))
    for override in saved if isinstance(saved, list) else [saved]:
        if not re.match(rf"(\+{{0,2}}|~)({keys})(\.[\w.]+)?(=|$)", str(override)):
            raise VidclfError(f"{path}: {override} is nothing that vidclf train takes. Remove the line, or the run.")
    return [str(override) for override in saved]  # type: ignore[union-attr]


def known_keys(conf: Path, verb: str) -> set[str]:
    """Return the top-level keys that the verb's YAML, and train's, which all verbs read, know."""
    keys: set[str] = set()
    for name in {"train", verb}:
        primary = OmegaConf.load(conf / f"{name}.yaml")
        groups = [str(key) for entry in primary.defaults if isinstance(entry, DictConfig) for key in entry]
        keys |= {*map(str, primary), *(group for group in groups if not group.startswith("override "))}
    return keys - {"defaults", "hydra"}


def key_of(override: str) -> str:
    """Return the key or group that an override sets: `head.dropout` of `+head.dropout=0.3`."""
    return override.partition("=")[0].lstrip("+~")


def causes_of(key: str, overrides: Iterable[str]) -> list[str]:
    """Return the overrides that set the dotted `key`, or a group or mapping that it lies in."""
    return [override for override in overrides if _lies_in(key, key_of(override))]


def _is_override(argument: str) -> bool:
    return argument.startswith("~") or ("=" in argument and not argument.startswith("-"))


def _lies_in(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.")


def escape(text: str) -> str:
    """Return what OmegaConf reads as `text`, where it would take ${...} for another key."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def _quote(argument: str) -> str:
    key, _, value = argument.partition("=")
    if not value or not _is_literal(key.lstrip("+"), value):
        return argument
    if key.lstrip("+").startswith(PATHS) and value.startswith("~") and os.path.exists(value):
        value = os.path.abspath(value)  # else its class looks for a user's home
    return f"{key}={QuotedString(text=escape(value), quote=Quote.single).with_quotes()}"


def _is_literal(key: str, value: str) -> bool:
    if key in LITERAL:
        return value != "null" or os.path.exists(value)
    return key.startswith(PATHS) and (os.path.exists(value) or not _parses(f"{key}={value}"))


def _parses(argument: str) -> bool:
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True

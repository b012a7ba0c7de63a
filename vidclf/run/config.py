"""The configuration of a job as plain data: conf/ as Hydra composes it, or a run's, changed by the command line.

A run's configuration comes from elsewhere. `trust` checks it before anything in it is used, nothing in it is resolved,
and the command line that made it is never replayed.
"""

import re
import sys
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vidclf import CONF
from vidclf.command.keys import as_yaml, escaped, is_deletion, key_of, value_at
from vidclf.command.mistakes import check_options, did_you_mean, unknown_setting, usage
from vidclf.command.verbs import GLOBAL_GROUPS, OPTIONAL_GROUPS, groups_of, known_keys, options_of, read_verb
from vidclf.errors import VidclfError
from vidclf.run.change import CALL_KEYS, FETCH, apply_to_run
from vidclf.run.values import check_settings

if TYPE_CHECKING:
    from vidclf.run.folder import Run  # imports torch, which takes seconds: a mistyped key is reported before that

__all__ = ["CALL_KEYS", "CONF", "FETCH", "OPTIONAL_GROUPS", "as_yaml", "escaped", "key_of", "known_keys", "value_at"]

Config = dict[str, Any]

HYDRA: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {}  # 1.4 warns about the argument
MEASURED_KEYS = ("backbone.calibration",)  # values that training measures and writes into a run's configuration
SEVERAL = "{0}: several values. For a run of each, add -m; for one list, write KEY=[A,B]; for a text, quote it."
# What Hydra and OmegaConf say, and what is said instead; {0} is what the parentheses match.
SENTENCES = (
    (r"hydra/launcher/(joblib|submitit)", "sweep: its launcher, {0}, is an extra: pip install 'vidclf[sweep]'"),
    (r"Ambiguous value for argument '(.+)'", SEVERAL),
    (r"Sweep parameters '(.+)' requires", SEVERAL),
    (r"An item is already at '(.+?)'", "+{0}: this setting exists. Leave out the +."),
    (r"Could not delete (?:from config. )?'(.+?)'", "~{0}: there is no such setting to delete."),
    (r"Could not find '(.+?)'", "{0}: there is no such option."),
    (
        r"Cannot find primary config '(.+?)'",
        "{0}.yaml: --config-name and --config-path name no such file. Leave them out.",
    ),
    (r"Multiple values for ([\w/@]+)", "{0}: set more than once. Set it once."),
    (
        r"Interpolation key '(.+?)' not found",
        "${{{0}}}: there is no such setting. For the text itself, write \\${{{0}}}.",
    ),
    (
        r"Unsupported interpolation type (\S+)",
        "${{{0}:...}}: there is no such resolver. For the text itself, write \\${{...",
    ),
)


def _register_resolvers() -> None:
    """Register the resolvers that conf/ uses."""
    register: Any = OmegaConf.register_resolver  # OmegaConf before 2.4 has another function of this name
    register = register if "replace" in signature(register).parameters else OmegaConf.register_new_resolver
    register("or_else", lambda value, default: value or default, replace=True)
    register("numbers_to", lambda last: ",".join(map(str, range(1, last + 1))), replace=True)
    register("plain", lambda text: re.sub(r"[^\w.-]+", "-", text)[:200], replace=True)


def configure(cfg: DictConfig, verb: str, typed: Sequence[str]) -> "tuple[Config, Run | None]":
    """Return a job's configuration as plain data, and the run that it starts from, if any.

    Args:
        cfg: as Hydra composed it.
        verb: that it is for.
        typed: the command line.

    Raises:
        VidclfError: a key is unknown, or a required one is missing; the run cannot be read, or is not trusted.
    """
    check_keys(cfg, verb)
    starts_from = read_verb(verb).starts_from
    named = cfg.run if starts_from in ("run", "each_run") else cfg.resume
    if named is None:
        return resolved(cfg, verb), None
    from vidclf.run.folder import checkpoint_of, checkpoint_to_resume, load_checkpoint

    if starts_from not in ("run", "each_run", "resume"):
        raise VidclfError(f"resume={named}: vidclf {verb} cannot resume a run. Leave it out; vidclf train can.")
    find = checkpoint_to_resume if starts_from == "resume" else checkpoint_of
    run = load_checkpoint(find(Path(named)))
    composed: Any = OmegaConf.to_container(cfg, resolve=False)
    applied = OmegaConf.create(apply_to_run(run.config, composed, task_overrides(), typed))
    check_keys(applied, verb)
    return resolved(applied, verb), run


def resolved(cfg: DictConfig, verb: str) -> Config:
    """Return a configuration as plain data, without the facts about the verb; optional groups left out are None."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    kept = {key: value for key, value in plain.items() if key != "verb"}
    check_settings(kept, verb)
    return {**kept, **{group: None for group in OPTIONAL_GROUPS if group not in kept}}


def check_keys(cfg: DictConfig, verb: str) -> None:
    """Raise VidclfError if a top-level key is unknown, or a required key has no value.

    Hydra finds unknown keys on the command line, but accepts a top-level one in an experiment file silently.
    """
    known = (known_keys("train") | known_keys(verb)) - {*GLOBAL_GROUPS}  # global groups set keys at the top level
    if unknown := sorted({*map(str, cfg)} - known - {"verb"}):
        hint = "Begin the file with `# @package _global_`. " if "experiment" in unknown else ""
        meant = did_you_mean(unknown[0], known)
        raise VidclfError(
            f"{', '.join(unknown)}: unknown top-level key(s), from an experiment file, a run or a +override.{meant} "
            f"{hint}Allowed: {', '.join(sorted(known))}."
        )
    groups = {*groups_of("train"), "store"}
    for key in groups & {*map(str, cfg)} - {*OPTIONAL_GROUPS}:
        if not OmegaConf.is_dict(cfg[key]):
            raise VidclfError(
                f"{key}={str(cfg[key])[:200]}: {key} has settings of its own; set one of them: {key}.KEY=VALUE."
            )
    if missing := sorted(known - {*OPTIONAL_GROUPS, *map(str, cfg)} | OmegaConf.missing_keys(cfg)):
        needed = " ".join(f"{key}=..." for key in missing)
        raise VidclfError(f"{', '.join(missing)} must be given: vidclf {verb} {needed}. {usage(verb)}")


def explain(error: Exception, verb: str, words: Sequence[str]) -> Exception:
    """Return an error of Hydra or OmegaConf about a command line as a sentence, and any other as it is."""
    if not isinstance(error, HydraException | OmegaConfBaseException) or isinstance(error, InstantiationException):
        return error
    text = str(error)
    if match := re.search(r"Could not override '([^'@]+)'", text):
        word = next((word for word in words if key_of(word) == match[1]), f"{match[1]}=VALUE")
        chosen = {key_of(word): word.partition("=")[2].split(",")[0] for word in words}
        groups = [f"{key}={name}" for key, name in chosen.items() if name in options_of(key)]
        with hydra.initialize_config_dir(CONF, **HYDRA):  # for the names of its settings
            config: Any = OmegaConf.to_container(hydra.compose(verb, groups, return_hydra_config=True), resolve=False)
        return VidclfError(unknown_setting(word, config))
    if match := re.search(r"Could not find '([\w-]+)/([\w.-]+)'", text):
        group, option = match.groups()
        try:
            check_options(group, [option])
        except VidclfError as unknown_option:
            return unknown_option
    for pattern, sentence in SENTENCES:
        if match := re.search(pattern, text):
            return VidclfError(sentence.format(match[1]))
    first = re.split(r"\n\s*\n|\nSee |\nAvailable|\nConfig search|\n\s*full_key|\n\s*object_type", text)[0]
    return VidclfError(f"{' '.join(first.split())} (vidclf {verb} {' '.join(words)})")


# What Hydra knows about this job


def task_overrides() -> list[str]:
    """Return the overrides that Hydra composed this job from."""
    # Iterating over OmegaConf's own list would resolve ${...} inside an override.
    return OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)  # type: ignore[return-value]


def is_sweep() -> bool:
    """Return whether this job is one of a sweep."""
    return HydraConfig.get().mode is RunMode.MULTIRUN


def output_folder() -> Path:
    """Return the folder that Hydra has chosen for this job."""
    return Path(HydraConfig.get().runtime.output_dir)


def explicit_overrides() -> list[str]:
    """Return what the command line changes in this job: Hydra's overrides, and `~key`."""
    return [*task_overrides(), *filter(is_deletion, sys.argv[1:])]


_register_resolvers()

"""What a verb was asked, as plain data: conf/ as Hydra composes it, or a run's configuration, and this command line.

A run's configuration is data from elsewhere: it is looked through (see `trust`) before anything in it is used, and
nothing in it is resolved. Its command line is never replayed.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from vidclf.errors import VidclfError
from vidclf.run.trust import check_plain, check_trusted, walk
from vidclf.system.terminal import say

if TYPE_CHECKING:
    from vidclf.run.folder import Run

PACKAGE = Path(__file__).parents[1]
CONF = str(PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf")
HYDRA: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {}  # of which 1.4 warns
# Paths, taken as they are: Hydra's grammar has uses for = , ( ~ and spaces.
LITERAL = ("run", "source", "resume", "out", "to", "check.page")
PATHS = (
    "dataset.",
    "store.",
    "backbone.weights",
    "backbone.name",
    "hydra.sweep.dir",
    "hydra.run.dir",
)  # so too where one exists, or the grammar cannot read it
OF_SEVERAL = ("compare", "evaluate")  # verbs that take several runs, and folders of sweeps
WITH_A_VALUE = ("--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
OF_HYDRA = ("experiment", "study", "sweep")  # groups that are spread over the others
OPTIONAL = ("augmentation", "mixing", "callbacks", "logger")  # groups of which none need be chosen
OF_A_MACHINE = ("accelerator", "devices", "num_nodes", "strategy")
WRITING = ("default_root_dir", "model_registry")
OF_THIS_CALL = (  # what is written to, what describes a machine, what a table may open: never a run's
    *("store.root", "logger", "num_threads", "num_workers", "compile", "trust", "resume", "dataset.anywhere"),
    *(f"trainer.{key}" for key in (*OF_A_MACHINE, *WRITING)),
)
FETCH = "backbone.fetch"  # never a run's own wish
CALIBRATION = "backbone.calibration"  # found by training, for an int8 backbone: nobody chooses it
CHECKPOINTS = "${hydra:runtime.output_dir}/checkpoints"  # where a run's callbacks write
DEMO = "vidclf.data.datasets.demo.Demo"  # writes itself to its root


def name_folders(verb: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `run=` before each folder that stands alone, where a verb takes runs."""
    if verb not in OF_SEVERAL:
        return [*arguments]
    before = ["", *arguments]
    alone = [last not in WITH_A_VALUE and _is_folder(one) for last, one in zip(before, arguments, strict=False)]
    return [f"run={one}" if stands else one for one, stands in zip(arguments, alone, strict=True)]


def prepare(verb: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments that Hydra is given: paths quoted, and a run's keys so that it takes them.

    Hydra composes conf/, and does not know the run. What is deleted of that is kept from it; see `finish`. Flags come
    first, wherever they stood: Hydra's parser takes no overrides behind a second one.
    """
    runs = [argument.partition("=")[2] for argument in arguments if verb in OF_SEVERAL and key_of(argument) == "run"]
    several = _as_list(runs) if verb == "compare" else _as_sweep(runs)
    if several:
        arguments = [argument for argument in arguments if key_of(argument) != "run"]
    quoted = [*map(_quote, sorted(arguments, key=_is_override)), *several]
    if verb == "evaluate" and several:
        quoted = ["--multirun", *(argument for argument in quoted if argument not in ("-m", "--multirun"))]
    resumed = any(key_of(argument) == "resume" and not argument.endswith("=null") for argument in quoted)
    if verb not in ("evaluate", "predict") and not resumed:
        return quoted
    chosen = {key_of(argument) for argument in quoted}
    kept = [argument for argument in quoted if argument.lstrip("~") in OPTIONAL or not _is_deletion(argument)]
    if kept[:2] == ["--cfg", "job"]:  # Hydra would show conf/; the job shows what it was asked
        kept[:2] = ["hydra.run.dir=.", "hydra.output_subdir=null"]
    return [f"++{arg.lstrip('+')}" if _is_override(arg) and _is_of_run(key_of(arg), chosen) else arg for arg in kept]


def asked(cfg: DictConfig, verb: str) -> "tuple[dict[str, Any], Run | None]":
    """Return what the verb was asked, and the run that it begins with, by `run=` or `resume=`.

    Raises:
        VidclfError: a key is unknown, or one that must be given is not; the run cannot be read, or is not trusted.
    """
    from vidclf.run.folder import checkpoint_to_resume, load_checkpoint, load_run  # torch takes seconds

    check_keys(cfg, verb)
    run, asked = load_run(Path(cfg.run)) if "run" in cfg and verb != "compare" else None, cfg
    if verb == "train" and cfg.resume is not None:
        run = load_checkpoint(checkpoint_to_resume(Path(cfg.resume)))
    if run is not None:
        composed: Any = OmegaConf.to_container(cfg, resolve=False)
        asked = OmegaConf.create(finish(run.config, composed, task_overrides(), sys.argv[1:]))
        check_keys(asked, verb)
    return {**dict.fromkeys(OPTIONAL), **OmegaConf.to_container(asked, resolve=True)}, run  # type: ignore[dict-item]


def finish(
    run: Mapping[str, Any], composed: Mapping[str, Any], overrides: Sequence[str], typed: Sequence[str]
) -> dict[str, Any]:
    """Return a run's configuration changed by a command line: a key is set, a group composed afresh, `~key` deleted.

    Args:
        run: plain data, of a checkpoint; its strings are taken as they are.
        composed: what Hydra made of conf/ and of `overrides`, not resolved.
        overrides: of this job, as Hydra tells them.
        typed: the command line; it tells `key=` from `+key=`, and what is deleted.

    Raises:
        VidclfError: the run is not plain or not trusted; a key is set or deleted that it does not have.
    """
    check_plain(run)
    given = [key for key in map(key_of, overrides) if key not in OF_HYDRA]
    deleted = [key_of(argument) for argument in typed if _is_deletion(argument)]
    fresh = [key for key in (*({*composed} - known_keys("train")), *OF_THIS_CALL) if _has(composed, key)]
    for argument in filter(_is_override, typed):
        key, value = key_of(argument), argument.partition("=")[2]
        if key == "experiment" and value != "null":
            raise VidclfError(f"{argument}: the settings are the run's. Name those of them that shall differ.")
        known = argument[0] in "+~" or key in OF_THIS_CALL or not _is_of_run(key, {*given}) or _has(run, key)
        if not known:
            raise VidclfError(f"Could not override '{key}': the run has no such setting. To add it use +{argument}")
        if key in deleted and not (_has(run, key) or _has(composed, key)):
            raise VidclfError(f"{argument}: there is no such setting to delete.")
    left, trust = deepcopy(dict(run)), composed["trust"] is True
    # Whoever names the model, or trusts the run, lets it be fetched as the run was.
    fetches = (trust or "backbone.name" in given) and "backbone" not in given and value_at(run, FETCH) is True
    for key in (*fresh, *OF_THIS_CALL, FETCH, *given, *deleted):
        above, last = _above(left, key)
        above.pop(last, None)
    _set_folders(left, "")
    check_trusted(left, Path(CONF), trust)
    finished = escaped(left)
    if fetches:
        finished["backbone"]["fetch"] = True
    _set_folders(finished, CHECKPOINTS)
    for key in (*fresh, *given):
        above, last = _above(finished, key, make=True)
        above[last] = value_at(composed, key)
    for key in deleted:
        above, last = _above(finished, key)
        above.pop(last, None)
    return finished


def check_keys(cfg: DictConfig, verb: str) -> None:
    """Raise VidclfError if a key is unknown, or one that must be given is not.

    Hydra finds unknown keys on the command line, but a top-level one in an experiment passes in silence.
    """
    known = (known_keys("train") | known_keys(verb)) - {*OF_HYDRA}  # what those hold belongs to the top level
    if unknown := sorted({*map(str, cfg)} - known):
        hint = "Begin the file with `# @package _global_`. " if "experiment" in unknown else ""
        raise VidclfError(
            f"{', '.join(unknown)}: unknown top-level key(s), from an experiment file, a run or a +override. "
            f"{hint}Allowed: {', '.join(sorted(known))}."
        )
    groups = {*_groups("train"), "store"}
    empty = {
        key for key in known - {*OPTIONAL} if key not in cfg or (key in groups and not OmegaConf.is_dict(cfg[key]))
    }
    if missing := sorted(empty | OmegaConf.missing_keys(cfg)):
        example = " ".join(f"{key}=..." for key in missing)
        raise VidclfError(f"{', '.join(missing)} must be given: vidclf {verb} {example}")


@cache
def known_keys(verb: str) -> frozenset[str]:
    """Return the top-level keys, and the groups, of the verb's own YAML."""
    return frozenset({*map(str, OmegaConf.load(Path(CONF, f"{verb}.yaml"))), *_groups(verb)} - {"defaults", "hydra"})


@cache
def _groups(verb: str) -> frozenset[str]:
    defaults = OmegaConf.load(Path(CONF, f"{verb}.yaml")).defaults
    groups = {str(key) for entry in defaults if isinstance(entry, DictConfig) for key in entry}
    return frozenset(group for group in groups if not group.startswith("override "))


def task_overrides() -> list[str]:
    """Return the overrides that Hydra composed this job from."""
    # Iterated over, a list of OmegaConf resolves what an override says by ${...}.
    return OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)  # type: ignore[return-value]


def output_folder() -> Path:
    """Return the folder that Hydra has chosen for this job."""
    return Path(HydraConfig.get().runtime.output_dir)


def explicit_overrides() -> list[str]:
    """Return what the command line changes in this job: Hydra's overrides, and `~key`."""
    return [*task_overrides(), *filter(_is_deletion, sys.argv[1:])]


def key_of(override: str) -> str:
    """Return the key or group that an override sets: `head.dropout` of `+head.dropout=0.3`."""
    return override.partition("=")[0].lstrip("+~")


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """Return what stands at a dotted key of nested mappings; None where there is nothing."""
    above, last = _above(config, key)
    return above.get(last)


def escape(text: str) -> str:
    """Return what OmegaConf reads as `text`, where it would take ${...} for another key."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def escaped(value: Any) -> Any:
    """Return plain data as OmegaConf must be told it: strings are what they are."""
    if isinstance(value, dict):
        return {key: escaped(one) for key, one in value.items()}
    if isinstance(value, list):
        return [escaped(one) for one in value]
    return escape(value) if isinstance(value, str) else value


def as_yaml(config: Mapping[str, Any]) -> str:
    """Return a configuration as text."""
    return OmegaConf.to_yaml(OmegaConf.create(escaped(config)), resolve=True)


def _above(config: Any, key: str, make: bool = False) -> tuple[dict[str, Any], str]:
    """Return the mapping that a dotted key lies in, an empty one where there is none, and the key's own name."""
    *above, last = key.split(".")
    for name in above:
        below = config.get(name)
        if make and below is None:
            below = config[name] = {}
        if make and not isinstance(below, dict):
            raise VidclfError(f"{key}: {name} is {below!r}, and has no settings of its own.")
        config = below if isinstance(below, dict) else {}
    return config, last


def _has(config: Mapping[str, Any], key: str) -> bool:
    above, last = _above(config, key)
    return last in above


def _set_folders(run: Mapping[str, Any], checkpoints: str) -> None:
    """Let whatever a run writes with write where it would without the run."""
    for path, node in walk(run):
        if path[0] == "callbacks" and isinstance(node, dict) and "dirpath" in node:
            node["dirpath"] = checkpoints
        if isinstance(node, dict) and node.get("_target_") == DEMO:
            node["root"] = OmegaConf.load(Path(CONF, "dataset", "demo.yaml")).root


def _as_list(runs: Sequence[str]) -> list[str]:
    """Return what sets `run` to a list of folders."""
    return [f"run=[{','.join(map(_in_quotes, runs))}]"] if runs else []


def _as_sweep(runs: Sequence[str]) -> list[str]:
    """Return what lets a job go over each of several runs, and over those of a sweep; nothing for a single run."""
    paths = [Path(run) for run in runs]
    if not paths or (len(paths) == 1 and (not paths[0].is_dir() or (paths[0] / "checkpoints").is_dir())):
        return []
    from vidclf.comparison.scored import find_runs, jobs_of, why_missing

    if len(paths) == 1 and not jobs_of(paths[0]):
        return []
    found, failed = find_runs(paths)
    for job in failed:
        say(f"left out: {job}: {why_missing(job)}")
    if not found:
        raise VidclfError(f"run={', '.join(runs)}: none of {len(failed)} jobs has left a run. See what they said.")
    names = ",".join(_in_quotes(str(run)) for run in found)
    return [f"run={names}", f"hydra.sweep.dir={_in_quotes(str(found[0].absolute().parent))}"]


def _in_quotes(path: str) -> str:
    return QuotedString(text=escape(path), quote=Quote.single).with_quotes()


def _is_folder(argument: str) -> bool:
    return not argument.startswith(("-", "~", "+")) and ("=" not in argument or os.path.isdir(argument))


def _is_override(argument: str) -> bool:
    return argument.startswith("~") or ("=" in argument and not argument.startswith("-"))


def _is_deletion(argument: str) -> bool:
    return argument.startswith("~") and not key_of(argument).startswith("hydra")


def _is_of_run(key: str, chosen: set[str]) -> bool:
    """Whether a key sets one of a run's settings, which Hydra does not know; a group that is chosen it knows."""
    group, dot, _ = key.partition(".")
    return bool(dot) and group not in {"hydra", "logger", *chosen}


def _quote(argument: str) -> str:
    key, _, value = argument.partition("=")
    if key in OPTIONAL and value == "null":
        return f"~{key}"  # Hydra has no other word for it
    if not value or not _is_literal(key.lstrip("+"), value):
        return argument
    if key.lstrip("+").startswith(PATHS) and value.startswith("~") and os.path.exists(value):
        value = os.path.abspath(value)  # else its class looks for a user's home
    return f"{key}={_in_quotes(value)}"


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

"""The configuration of a job as plain data: conf/ as Hydra composes it, or a run's, changed by the command line.

A run's configuration comes from elsewhere. `trust` checks it before anything in it is used, nothing in it is resolved,
and the command line that made it is never replayed.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from vidclf import CONF
from vidclf.errors import VidclfError
from vidclf.run.sweep import find_runs, jobs_of, why_missing
from vidclf.run.trust import check_plain, check_trusted, walk
from vidclf.run.values import check_settings
from vidclf.system.disk import check_links
from vidclf.system.terminal import say

if TYPE_CHECKING:
    from vidclf.run.folder import Run  # imports torch, which takes seconds: a mistyped key is reported before that

Config = dict[str, Any]

HYDRA: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {}  # 1.4 warns about the argument
# Values of these keys are paths, like those a verb lists in its YAML. Hydra's grammar has its own uses for = , ( ~ and
# spaces, so where such a value exists on disk, or the grammar cannot parse it, it is quoted.
PATH_PREFIXES = ("dataset.", "store.", "backbone.weights", "backbone.name", "hydra.sweep.dir", "hydra.run.dir")
FLAGS_WITHOUT_VALUE = ("-m", "--multirun", "-r", "--run", "--resolve")
GLOBAL_GROUPS = ("experiment", "study", "sweep")  # their options set keys of other groups
OPTIONAL_GROUPS = ("augmentation", "mixing", "callbacks", "logger")  # may be none
# Where to write, which machine to use, what a table may open: always from this command line, never from a run.
CALL_KEYS = (
    *("store.root", "logger", "num_threads", "num_workers", "compile", "trust", "resume", "dataset.anywhere"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    *("trainer.default_root_dir", "trainer.model_registry"),
)
MEASURED_KEYS = ("backbone.calibration",)  # values that training measures and writes into a run's configuration
FETCH = "backbone.fetch"  # a run cannot ask for a download
TORCHVISION = "vidclf.models.backbones.torchvision_models."  # whose older runs do not say whether to fetch
CHECKPOINTS = "${hydra:runtime.output_dir}/checkpoints"  # where a run's callbacks write
DEMO = "vidclf.data.datasets.demo.Demo"  # writes itself to its root


def _register_resolvers() -> None:
    """Register the resolvers that conf/ uses."""
    register: Any = OmegaConf.register_resolver  # OmegaConf before 2.4 has another function of this name
    register = register if "replace" in signature(register).parameters else OmegaConf.register_new_resolver
    register("or_else", lambda value, default: value or default, replace=True)
    register("numbers_to", lambda last: ",".join(map(str, range(1, last + 1))), replace=True)
    register("plain", lambda text: re.sub(r"[^\w.-]+", "-", text)[:200], replace=True)
    register("vidclf_example", lambda name: read_verb(name).example, replace=True)


@dataclass(frozen=True)
class Verb:
    """The facts about a verb that its YAML states under `verb`.

    Attributes:
        starts_from: `nothing`; `resume` (a run, where resume= names one); `run` (run=DIR); `each_run` (several runs or
            sweeps, one job for each run); `all_runs` (several runs or sweeps, all in one job).
        paths: keys of the verb whose values are paths, taken literally.
        example: arguments for the help.
    """

    starts_from: str = "nothing"
    paths: tuple[str, ...] = ()
    example: str = ""

    @property
    def takes_several_runs(self) -> bool:
        """Return whether folders may stand alone on the command line, several of them, sweeps included."""
        return self.starts_from in ("each_run", "all_runs")


@cache
def read_verb(name: str) -> Verb:
    """Return the facts in a verb's YAML."""
    facts: Any = OmegaConf.to_container(OmegaConf.load(Path(CONF, f"{name}.yaml"))).get("verb", {})  # type: ignore[union-attr]
    return Verb(**{**facts, "paths": tuple(facts.get("paths", ()))})


@cache
def known_keys(verb: str) -> frozenset[str]:
    """Return the top-level keys and the groups of a verb's YAML."""
    keys = {*map(str, OmegaConf.load(Path(CONF, f"{verb}.yaml"))), *_groups(verb)}
    return frozenset(keys - {"defaults", "hydra", "verb"})


@cache
def _groups(verb: str) -> frozenset[str]:
    defaults = OmegaConf.load(Path(CONF, f"{verb}.yaml")).defaults
    groups = {str(key) for entry in defaults if isinstance(entry, DictConfig) for key in entry}
    return frozenset(group for group in groups if not group.startswith("override "))


# The command line, before Hydra sees it


def name_folders(verb: str, arguments: Sequence[str]) -> list[str]:
    """Put `run=` before each folder that stands alone, where the verb takes several runs."""
    if not read_verb(verb).takes_several_runs:
        return [*arguments]

    def is_alone(argument: str, before: str) -> bool:
        return _is_folder(argument) and (not before.startswith("-") or before in FLAGS_WITHOUT_VALUE)

    pairs = zip(arguments, ["", *arguments], strict=False)
    return [f"run={argument}" if is_alone(argument, before) else argument for argument, before in pairs]


def prepare_arguments(verb: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments for Hydra: paths quoted, flags first, and a run's keys in a form that Hydra accepts.

    Hydra composes conf/ and does not know the run, so deletions of a run's keys are kept from it; see `apply_to_run`.
    Hydra's parser accepts no override after a second flag.
    """
    facts = read_verb(verb)
    runs = [argument.partition("=")[2] for argument in arguments if key_of(argument) == "run"]
    several: list[str] = []
    if facts.starts_from == "all_runs":
        several = _as_list(runs)
    elif facts.starts_from == "each_run":
        several = _as_jobs(runs)
    if several:
        arguments = [argument for argument in arguments if key_of(argument) != "run"]
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in ("hydra.run.dir", "hydra.sweep.dir") and any(
            map(os.path.exists, (f"{value}/checkpoints", f"{value}/multirun.yaml"))
        ):
            check_links(Path(value), in_place=(".yaml", ".log"))  # Hydra writes there first
    literal = ("run", "resume", *facts.paths)
    quoted = [*(_quote(argument, literal) for argument in sorted(arguments, key=_is_override)), *several]
    if several and facts.starts_from == "each_run":
        quoted = ["--multirun", *(argument for argument in quoted if argument not in ("-m", "--multirun"))]
    if quoted[:2] == ["--cfg", "job"] and not any(argument.startswith("-") for argument in quoted[2:]):
        # Hydra would print conf/, with the facts about the verb; the job prints its configuration.
        quoted[:2] = ["hydra.run.dir=.", "hydra.output_subdir=null"]
    resumed = any(key_of(argument) == "resume" and not argument.endswith("=null") for argument in quoted)
    if facts.starts_from not in ("run", "each_run") and not resumed:
        return quoted
    chosen = {key_of(argument) for argument in quoted}
    if facts.starts_from == "resume" and "hydra.run.dir" not in chosen:
        quoted += _in_the_runs_folder(arguments)
    kept = [arg for arg in quoted if arg.lstrip("~") in OPTIONAL_GROUPS or not _is_deletion(arg)]
    return [f"++{arg.lstrip('+')}" if _is_override(arg) and _sets_run_key(key_of(arg), chosen) else arg for arg in kept]


def _in_the_runs_folder(arguments: Sequence[str]) -> list[str]:
    """Return the overrides that make a resumed run go on in its own folder, where there is one."""
    resume = next(Path(argument.partition("=")[2]) for argument in arguments if key_of(argument) == "resume")
    folder = resume.parent.parent if resume.is_file() else resume
    is_there = (folder / "checkpoints").is_dir()
    return [f"hydra.run.dir={_in_quotes(str(folder))}", "hydra.output_subdir=null"] if is_there else []


# The configuration


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
        return resolved(cfg), None
    from vidclf.run.folder import checkpoint_of, checkpoint_to_resume, load_checkpoint

    if starts_from not in ("run", "each_run", "resume"):
        raise VidclfError(f"resume={named}: vidclf {verb} cannot resume a run. Leave it out; vidclf train can.")
    find = checkpoint_to_resume if starts_from == "resume" else checkpoint_of
    run = load_checkpoint(find(Path(named)))
    composed: Any = OmegaConf.to_container(cfg, resolve=False)
    applied = OmegaConf.create(apply_to_run(run.config, composed, task_overrides(), typed))
    check_keys(applied, verb)
    return resolved(applied), run


def resolved(cfg: DictConfig) -> Config:
    """Return a configuration as plain data, without the facts about the verb; optional groups left out are None."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    kept = {key: value for key, value in plain.items() if key != "verb"}
    check_settings(kept)
    return {**kept, **{group: None for group in OPTIONAL_GROUPS if group not in kept}}


def apply_to_run(
    run: Mapping[str, Any], composed: Mapping[str, Any], overrides: Sequence[str], typed: Sequence[str]
) -> Config:
    """Return a run's configuration changed by a command line: keys are set, groups composed anew, `~key` deleted.

    Args:
        run: plain data from a checkpoint; its strings are taken literally.
        composed: what Hydra made of conf/ and `overrides`, not resolved.
        overrides: those of this job, as Hydra lists them.
        typed: the command line, which tells `key=` from `+key=` and says what is deleted.

    Raises:
        VidclfError: the run is not plain data or not trusted; a key is set or deleted that it does not have.
    """
    check_plain(run)
    set_here = [key for key in map(key_of, overrides) if key not in GLOBAL_GROUPS]
    deleted = [key_of(argument) for argument in typed if _is_deletion(argument)]
    of_verb = [key for key in (*({*composed} - known_keys("train")), *CALL_KEYS) if _has(composed, key)]
    _check_overrides(run, composed, typed, set_here, deleted)
    rest, trust = deepcopy(dict(run)), composed["trust"] is True
    # A person who names the model, or trusts the run, allows what the run fetched to be fetched again.
    fetches = value_at(run, FETCH) is True or str(value_at(run, "backbone._target_")).startswith(TORCHVISION)
    fetch = fetches and (trust or "backbone.name" in set_here) and "backbone" not in set_here
    for key in (*of_verb, *CALL_KEYS, FETCH, *set_here, *deleted):
        parent, name = _parent_of(rest, key)
        parent.pop(name, None)
    _redirect_output(rest, "")
    check_trusted(rest, Path(CONF), trust)
    applied = escaped(rest)
    if fetch:
        applied["backbone"]["fetch"] = True
    _redirect_output(applied, CHECKPOINTS)
    for key in (*of_verb, *set_here):
        parent, name = _parent_of(applied, key, make=True)
        parent[name] = value_at(composed, key)
    for key in deleted:
        parent, name = _parent_of(applied, key)
        parent.pop(name, None)
    return applied


def _check_overrides(
    run: Mapping[str, Any],
    composed: Mapping[str, Any],
    typed: Sequence[str],
    set_here: Sequence[str],
    deleted: Sequence[str],
) -> None:
    """Raise VidclfError for an override of a key that the run does not have."""
    for argument in filter(_is_override, typed):
        key, value = key_of(argument), argument.partition("=")[2]
        if key == "experiment" and value != "null":
            raise VidclfError(
                f"{argument}: a run keeps its own settings. Name the settings that should differ instead."
            )
        known = argument[0] in "+~" or key in CALL_KEYS or not _sets_run_key(key, {*set_here}) or _has(run, key)
        if not known:
            raise VidclfError(f"Could not override '{key}': the run has no such setting. To add it use +{argument}")
        if key in deleted and not (_has(run, key) or _has(composed, key)):
            raise VidclfError(f"{argument}: there is no such setting to delete.")


def check_keys(cfg: DictConfig, verb: str) -> None:
    """Raise VidclfError if a top-level key is unknown, or a required key has no value.

    Hydra finds unknown keys on the command line, but accepts a top-level one in an experiment file silently.
    """
    known = (known_keys("train") | known_keys(verb)) - {*GLOBAL_GROUPS}  # global groups set keys at the top level
    if unknown := sorted({*map(str, cfg)} - known - {"verb"}):
        hint = "Begin the file with `# @package _global_`. " if "experiment" in unknown else ""
        raise VidclfError(
            f"{', '.join(unknown)}: unknown top-level key(s), from an experiment file, a run or a +override. "
            f"{hint}Allowed: {', '.join(sorted(known))}."
        )
    groups = {*_groups("train"), "store"}
    empty = {
        key
        for key in known - {*OPTIONAL_GROUPS}
        if key not in cfg or (key in groups and not OmegaConf.is_dict(cfg[key]))
    }
    if missing := sorted(empty | OmegaConf.missing_keys(cfg)):
        example = " ".join(f"{key}=..." for key in missing)
        raise VidclfError(f"{', '.join(missing)} must be given: vidclf {verb} {example}")


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
    return [*task_overrides(), *filter(_is_deletion, sys.argv[1:])]


# Keys and values


def key_of(override: str) -> str:
    """Return the key or group that an override sets: `head.dropout` for `+head.dropout=0.3`."""
    return override.partition("=")[0].lstrip("+~")


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """Return the value at a dotted key of nested mappings; None where there is none."""
    parent, name = _parent_of(config, key)
    return parent.get(name)


def escape(text: str) -> str:
    """Return text that OmegaConf reads as `text`, although it holds `${...}`."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def escaped(value: Any) -> Any:
    """Return plain data with every string escaped for OmegaConf."""
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return escape(value) if isinstance(value, str) else value


def as_yaml(config: Mapping[str, Any]) -> str:
    """Return a configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(escaped(config)), resolve=True)


def _parent_of(config: Any, key: str, make: bool = False) -> tuple[dict[str, Any], str]:
    """Return the mapping that holds a dotted key (empty where there is none), and the last part of the key."""
    *parents, last = key.split(".")
    for name in parents:
        child = config.get(name)
        if make and child is None:
            child = config[name] = {}
        if make and not isinstance(child, dict):
            raise VidclfError(f"{key}: {name} is {child!r} and has no settings of its own.")
        config = child if isinstance(child, dict) else {}
    return config, last


def _has(config: Mapping[str, Any], key: str) -> bool:
    parent, name = _parent_of(config, key)
    return name in parent


def _redirect_output(run: Mapping[str, Any], checkpoints: str) -> None:
    """Point the run's callbacks and demo data at this job's folder, not at the paths stored in its checkpoint."""
    for path, node in walk(run):
        if path[0] == "callbacks" and isinstance(node, dict) and "dirpath" in node:
            node["dirpath"] = checkpoints
        if isinstance(node, dict) and node.get("_target_") == DEMO:
            node["root"] = OmegaConf.load(Path(CONF, "dataset", "demo.yaml")).root


# Quoting


def _as_list(runs: Sequence[str]) -> list[str]:
    """Return the override that sets `run` to a list of folders."""
    return [f"run=[{','.join(map(_in_quotes, runs))}]"] if runs else []


def _as_jobs(runs: Sequence[str]) -> list[str]:
    """Return the overrides that make one job of each run, those of sweeps included; none for a single run."""
    paths = [Path(run) for run in runs]
    if not paths or (len(paths) == 1 and (not paths[0].is_dir() or (paths[0] / "checkpoints").is_dir())):
        return []
    if len(paths) == 1 and not jobs_of(paths[0]):
        return []
    complete, incomplete = find_runs(paths)
    for job in incomplete:
        say(f"left out: {job}: {why_missing(job)}")
    if not complete:
        raise VidclfError(f"run={', '.join(runs)}: none of {len(incomplete)} jobs left a run. Their reasons are above.")
    names = ",".join(_in_quotes(str(run)) for run in complete)
    return [f"run={names}", f"hydra.sweep.dir={_in_quotes(str(complete[0].absolute().parent))}"]


def _in_quotes(path: str) -> str:
    return QuotedString(text=escape(path), quote=Quote.single).with_quotes()


def _is_folder(argument: str) -> bool:
    return not argument.startswith(("-", "~", "+")) and ("=" not in argument or os.path.isdir(argument))


def _is_override(argument: str) -> bool:
    return argument.startswith("~") or ("=" in argument and not argument.startswith("-"))


def _is_deletion(argument: str) -> bool:
    return argument.startswith("~") and not key_of(argument).startswith("hydra")


def _sets_run_key(key: str, chosen: set[str]) -> bool:
    """Return whether a key sets one of a run's settings, which Hydra does not know unless its group was chosen too."""
    group, dot, _ = key.partition(".")
    return bool(dot) and group not in {"hydra", "logger", *chosen}


def _quote(argument: str, literal: Sequence[str]) -> str:
    key, _, value = argument.partition("=")
    if key in OPTIONAL_GROUPS and value == "null":
        return f"~{key}"  # Hydra's way to say it
    if not value or not _is_path(key.lstrip("+"), value, literal):
        return argument
    if key.lstrip("+").startswith(PATH_PREFIXES) and value.startswith("~") and os.path.exists(value):
        value = os.path.abspath(value)  # expanduser() would look for a user's home
    return f"{key}={_in_quotes(value)}"


def _is_path(key: str, value: str, literal: Sequence[str]) -> bool:
    if key in literal:
        return value != "null" or os.path.exists(value)
    return key.startswith(PATH_PREFIXES) and (os.path.exists(value) or not _parses(f"{key}={value}"))


def _parses(argument: str) -> bool:
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


_register_resolvers()

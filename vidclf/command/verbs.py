"""What the files of conf/ say of verbs, groups and options, read without Hydra: for help and for messages."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from vidclf import CONF

GLOBAL_GROUPS = ("experiment", "study", "sweep")  # their options set keys of other groups
OPTIONAL_GROUPS = ("augmentation", "mixing", "callbacks", "logger")  # may be none
NO_SETTINGS = ("defaults", "hydra", "verb")  # top-level keys of a YAML that are not the user's
SETTING = re.compile(r"( *)([\w-]+):(?: (?!#)(\S.*?))?(?: +# (.*))?")


@dataclass(frozen=True)
class Verb:
    """The facts about a verb that its YAML states under `verb`.

    Attributes:
        starts_from: `nothing`; `resume` (a run, where resume= names one); `run` (run=DIR); `each_run` (several runs or
            sweeps, one job for each run); `all_runs` (several runs or sweeps, all in one job).
        keeps: where it leaves its results, for its first line; a verb that trains has a run's folder.
        stages: the groups that its first line names, where it starts from no run.
        paths: keys of the verb whose values are paths, taken literally.
        types: of keys whose default does not show it, such as `int | None` of one that may be null.
        positional: a key whose values may stand alone on the command line, several of them.
        example: arguments for the help, a line for each example.
    """

    starts_from: str = "nothing"
    keeps: str = ""
    stages: Sequence[str] = ("dataset", "backbone", "head")
    paths: Sequence[str] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    positional: str = ""
    example: str = ""

    @property
    def takes_several_runs(self) -> bool:
        """Return whether folders may stand alone on the command line, several of them, sweeps included."""
        return self.starts_from in ("each_run", "all_runs")


@cache
def read_conf(name: str) -> dict[str, Any]:
    """Return the content of a file of conf/, such as `train` or `head/mlp`."""
    return yaml.safe_load(text_of(name)) or {}


def text_of(name: str) -> str:
    """Return the text of a file of conf/, such as `train` or `head/mlp`."""
    return Path(CONF, f"{name}.yaml").read_text(encoding="utf-8")


@cache
def read_verb(name: str) -> Verb:
    """Return the facts in a verb's YAML."""
    return Verb(**read_conf(name).get("verb", {}))


def verbs() -> dict[str, str]:
    """Return every verb, and what it does: the first line of its YAML."""
    names = sorted(path.stem for path in Path(CONF).glob("*.yaml"))
    return {name: purpose(name).partition(": ")[2] for name in names}


def purpose(name: str) -> str:
    """Return the first line of comment in a file of conf/."""
    comments = (line[2:] for line in text_of(name).splitlines() if line.startswith("# "))
    return next((comment for comment in comments if not comment.startswith("@package")), "")


@cache
def known_keys(verb: str) -> frozenset[str]:
    """Return the top-level keys and the groups of a verb's YAML."""
    return frozenset({*settings_of(verb), *groups_of(verb)})


def settings_of(verb: str) -> dict[str, Any]:
    """Return the top-level keys of a verb's YAML with their defaults."""
    return {key: value for key, value in read_conf(verb).items() if key not in NO_SETTINGS}


@cache
def groups_of(verb: str) -> dict[str, str | None]:
    """Return the groups in the defaults of a verb's YAML, each with its default option; not those it overrides."""
    entries = [entry for entry in read_conf(verb)["defaults"] if isinstance(entry, dict)]
    return {group: option for entry in entries for group, option in entry.items() if not group.startswith("override ")}


@cache
def options_of(group: str) -> tuple[str, ...]:
    """Return the names of a group's options."""
    return tuple(sorted(path.stem for path in Path(CONF, group).glob("*.yaml")))


def settings_in(name: str, prefix: str = "") -> dict[str, tuple[str, str]]:
    """Return every setting in a file of conf/ by its dotted key: its default as it is typed, and its comment."""
    settings, parents = dict[str, tuple[str, str]](), list[str]()
    for line in text_of(name).splitlines():
        if not (match := SETTING.fullmatch(line)):
            continue
        indent, key, value, comment = match.groups()
        parents = [*parents[: len(indent) // 2], key]
        is_private = any(parent.startswith("_") for parent in parents) and value != "???"
        if value is not None and parents[0] not in NO_SETTINGS and not is_private:
            settings[prefix + ".".join(parents)] = (value.replace(", ", ","), comment or "")
    return settings

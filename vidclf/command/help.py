"""The texts of `vidclf --help`, `vidclf VERB --help` and `vidclf help GROUP`, made from the comments in conf/."""

import re
from collections.abc import Iterable, Mapping
from textwrap import fill, wrap

from vidclf.command.mistakes import did_you_mean, usage
from vidclf.command.verbs import (
    GLOBAL_GROUPS,
    groups_of,
    options_of,
    purpose,
    read_conf,
    read_verb,
    settings_in,
    text_of,
    verbs,
)
from vidclf.errors import VidclfError

WIDTH, COLUMN = 80, 28  # characters of a line; where its second column begins


def help_on(topic: str = "") -> str:
    """Return the help on a verb, a group (`head`), an option (`head=mlp`), or on everything.

    Raises:
        VidclfError: there is no such topic.
    """
    name, _, option = topic.partition("=")
    group, *_ = name.split(".")
    if not topic:
        return _help_on_everything()
    if topic in verbs():
        return _help_on_verb(topic)
    if topic in settings_in("train"):
        return _help_on_verb("train")
    if group in groups_of("train") and not option:
        return _help_on_group(group)
    if option in options_of(group):
        return _help_on_option(group, option)
    topics = options_of(group) or [*verbs(), *groups_of("train")]
    meant = did_you_mean(option or topic, topics)
    raise VidclfError(f"help {topic}: no such topic.{meant} There are {', '.join(topics)}.")


def _help_on_everything() -> str:
    return "\n".join(
        [
            "Usage: vidclf VERB [KEY=VALUE ...]\n",
            *_columns(verbs().items(), column=12),
            "\nExample: vidclf train experiment=demo head=linear sampling.rate_hz=5\n",
            "vidclf VERB --help      the settings and groups of a verb",
            "vidclf help GROUP       the options of a group, such as head",
            "vidclf help head=mlp    the settings of an option",
        ]
    )


def _help_on_verb(verb: str) -> str:
    facts, defaults = read_verb(verb), _default_options(verb)
    starts_from_run = facts.starts_from in ("run", "each_run", "all_runs")
    lines = [fill(purpose(verb), WIDTH), "", fill(usage(verb).partition(", such")[0], WIDTH)]
    if own := settings_in(verb):
        lines += ["", "Settings:", *_columns(_rows(own))]
    if verb != "train" and facts.starts_from != "all_runs":
        names = ", ".join(settings_in("train"))
        kept = "The run keeps its own values; what you set here differs." if starts_from_run else ""
        lines += ["", fill(f"Settings of train (vidclf train --help) that apply, too: {names}. {kept}".strip(), WIDTH)]
    if facts.starts_from != "all_runs":
        shown = {group: "..." if starts_from_run else option for group, option in defaults.items()}
        groups = {f"{group}={shown[group]}": text for group, text in _purposes_of_groups().items()}
        lines += ["", "Groups (vidclf help GROUP lists the options):", *_columns(groups.items())]
    lines += ["", "Examples:", *(f"  vidclf {verb} {example}" for example in facts.example.splitlines())]
    flags = {"--cfg job": "prints the configuration and does nothing"}
    if not starts_from_run:
        flags["-m"] = "runs every combination of KEY=A,B"
    return "\n".join([*lines, "", *_columns(flags.items())])


def _help_on_group(group: str) -> str:
    options = {f"{group}={option}": purpose(f"{group}/{option}") for option in options_of(group)}
    last = f"vidclf help {group}=OPTION shows the settings of an option."
    return "\n".join([f"{group}: {_purposes_of_groups()[group]}", "", *_columns(options.items()), "", last])


def _help_on_option(group: str, option: str) -> str:
    name = f"{group}/{option}"
    comments = [line[2:] for line in text_of(name).splitlines() if line.startswith("# ") and "@package" not in line]
    lines = [fill(f"{group}={option}: {' '.join(comments)}", WIDTH, break_on_hyphens=False)]
    prefix = "" if group in GLOBAL_GROUPS else f"{group}."
    if settings := settings_in(name, prefix):
        lines += ["", "Settings:", *_columns(_rows(settings))]
    inherited = [entry for entry in read_conf(name).get("defaults", ()) if isinstance(entry, str)]
    lines += [f"\nAnd those of {group}={other}." for other in inherited]
    return "\n".join(lines)


def _purposes_of_groups() -> dict[str, str]:
    """Return what each group is for: its comment in the defaults of train.yaml."""
    return dict(re.findall(r"^  - (\w+): \w+ +# (.*)$", text_of("train"), re.MULTILINE))


def _default_options(verb: str) -> dict[str, str]:
    entries = [entry for name in ("train", verb) for entry in read_conf(name)["defaults"] if isinstance(entry, dict)]
    return {key.removeprefix("override "): option or "null" for entry in entries for key, option in entry.items()}


def _rows(settings: Mapping[str, tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return ((f"{key}={'...' if default == '???' else default}", text) for key, (default, text) in settings.items())


def _columns(rows: Iterable[tuple[str, str]], column: int = COLUMN) -> list[str]:
    """Return lines of two columns; the second one is wrapped, and begins a line below a first one that is too long."""
    lines = []
    for name, text in rows:
        first, *rest = wrap(text, WIDTH - column, break_on_hyphens=False) or [""]
        if len(name) + 3 > column:
            lines.append(f"  {name}")
            name, first = "", first
        lines.append(f"  {name:{column - 2}}{first}".rstrip())
        lines += [" " * column + line for line in rest]
    return [line for line in lines if line]

"""The words of a command line, before Hydra sees them: what they name is checked, and paths are quoted."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from vidclf.command.keys import escape, has_own_options, is_deletion, is_override, key_of, sets_run_key
from vidclf.command.mistakes import check_flag, check_word
from vidclf.command.verbs import OPTIONAL_GROUPS, groups_of, read_verb
from vidclf.errors import VidclfError
from vidclf.run.sweep import find_runs, jobs_of, why_missing
from vidclf.system.disk import check_links
from vidclf.system.terminal import say
from vidclf.system.text import first_five, plural, redact

# Values of these keys are paths, like those a verb lists in its YAML. Hydra's grammar has its own uses for = , ( ~ and
# spaces, so where such a value exists on disk, or the grammar cannot parse it, it is quoted.
PATH_PREFIXES = ("dataset.", "store.", "backbone.weights", "backbone.name", "hydra.sweep.dir", "hydra.run.dir")
FLAGS_WITHOUT_VALUE = ("-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help", "-sc", "--shell-completion")
FLAGS_WITH_VALUE = (
    *("-c", "--cfg", "-p", "--package", "-i", "--info", "-cd", "--config-dir", "-cp", "--config-path"),
    *("-cn", "--config-name", "--experimental-rerun"),
)


def name_words(verb: str, arguments: Sequence[str]) -> list[str]:
    """Put the key before each word that stands alone: `run=` where the verb takes several runs, or its positional."""
    key = positional_of(verb)
    if not key:
        return [*arguments]

    def is_alone(argument: str, before: str) -> bool:
        return _is_value(argument) and (not before.startswith("-") or before in ("-", *FLAGS_WITHOUT_VALUE))

    pairs = zip(arguments, ["", *arguments], strict=False)
    return [f"{key}={argument}" if is_alone(argument, before) else argument for argument, before in pairs]


def positional_of(verb: str) -> str:
    """Return the key that a verb's words without `=` set; empty where there is none."""
    return "run" if read_verb(verb).takes_several_runs else read_verb(verb).positional


def prepare_arguments(verb: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments for Hydra: paths quoted, flags first, and a run's keys in a form that Hydra accepts.

    Hydra composes conf/ and does not know the run, so deletions of a run's keys are kept from it; see `apply_to_run`.
    Hydra's parser accepts no override after a second flag.

    Raises:
        VidclfError: a word is no setting, names a group's option that does not exist, or cannot be read.
    """
    _check_words(verb, arguments)
    facts, key = read_verb(verb), positional_of(verb)
    values = [argument.partition("=")[2] for argument in arguments if key_of(argument) == key]
    is_one = len(values) <= 1 and facts.starts_from != "all_runs"
    several = _as_jobs(values) if facts.starts_from == "each_run" else [] if is_one else _as_list(key, values)
    if several:
        arguments = [argument for argument in arguments if key_of(argument) != key]
    literal = ("run", "resume", *facts.paths)
    quoted = [_quote(argument, literal) for argument in sorted(arguments, key=is_override)]
    for argument in filter(is_override, quoted):
        _check_readable(argument)
    quoted += several
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
    kept = [arg for arg in quoted if arg.lstrip("~") in OPTIONAL_GROUPS or not is_deletion(arg)]
    return [f"++{arg.lstrip('+')}" if is_override(arg) and sets_run_key(key_of(arg), chosen) else arg for arg in kept]


def _check_words(verb: str, arguments: Sequence[str]) -> None:
    """Raise VidclfError for a word that Hydra could not use, or a folder that it must not write to."""
    may_add_options = has_own_options(arguments)
    for before, argument, after in zip(["", *arguments], arguments, [*arguments[1:], ""], strict=False):
        key, _, value = argument.partition("=")
        if key in ("hydra.run.dir", "hydra.sweep.dir") and any(
            map(os.path.exists, (f"{value}/checkpoints", f"{value}/multirun.yaml"))
        ):
            check_links(Path(value), in_place=(".yaml", ".log"))  # Hydra writes there first
        if key == "source" and {"-m", "--multirun"} & {*arguments} and redact(argument) != argument:
            raise VidclfError(f"{argument}: Hydra would write its password into multirun.yaml. Leave out -m.")
        if key in (*FLAGS_WITHOUT_VALUE, *FLAGS_WITH_VALUE) or before in FLAGS_WITH_VALUE:
            continue
        if argument.startswith("-"):
            check_flag(verb, argument, after)
        if not (may_add_options and key in groups_of("train")):  # which Hydra finds, or not
            check_word(verb, argument, after)


def _in_the_runs_folder(arguments: Sequence[str]) -> list[str]:
    """Return the overrides that make a resumed run go on in its own folder, where there is one."""
    resume = next(Path(argument.partition("=")[2]) for argument in arguments if key_of(argument) == "resume")
    folder = resume.parent.parent if resume.is_file() else resume
    is_there = (folder / "checkpoints").is_dir()
    return [f"hydra.run.dir={_in_quotes(str(folder))}", "hydra.output_subdir=null"] if is_there else []


def _as_list(key: str, values: Sequence[str]) -> list[str]:
    """Return the override that sets a key to a list of texts."""
    return [f"{key}=[{','.join(map(_in_quotes, values))}]"] if values else []


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
        raise VidclfError(
            f"run={', '.join(runs)}: none of {len(incomplete)} folders holds a complete run. Their reasons are above."
        )
    say(f"{plural(len(complete), 'run')}, one after the other: {first_five([str(run) for run in complete])}")
    names = ",".join(_in_quotes(str(run)) for run in complete)
    return [f"run={names}", f"hydra.sweep.dir={_in_quotes(str(complete[0].absolute().parent))}"]


def _in_quotes(path: str) -> str:
    return QuotedString(text=escape(path), quote=Quote.single).with_quotes()


def _is_value(argument: str) -> bool:
    is_word = argument == "-" or not argument.startswith(("-", "~", "+"))
    return is_word and ("=" not in argument or os.path.exists(argument))


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


def _check_readable(argument: str) -> None:
    if not _parses(argument):
        key, _, value = argument.partition("=")
        quoted = QuotedString(text=escape(value), quote=Quote.double).with_quotes()
        raise VidclfError(f"{argument}: this value cannot be read. Quote it: {shlex.quote(f'{key}={quoted}')}")


def _parses(argument: str) -> bool:
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True

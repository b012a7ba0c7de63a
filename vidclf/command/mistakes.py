"""Sentences for what is mistyped on the command line, with the names that were probably meant."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from vidclf.command.verbs import (
    GLOBAL_GROUPS,
    OPTIONAL_GROUPS,
    groups_of,
    known_keys,
    options_of,
    read_verb,
    settings_in,
    settings_of,
)
from vidclf.errors import VidclfError

CLOSE = 0.66  # how similar two names are, for difflib: mpl and mlp


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """Return a sentence with the known names that resemble a typed one, with a space before it; empty if none does.

    A dotted name also resembles another of the same or a similar last part: `lr` is probably `optimizer.lr`.
    """
    names = [*known]
    last_parts = {name.rpartition(".")[2]: name for name in reversed(names)}
    last = typed.rpartition(".")[2]
    close = [name for name in names if name.rpartition(".")[2] == last][:2] or get_close_matches(typed, names, 2, CLOSE)
    close = close or [last_parts[part] for part in get_close_matches(last, last_parts, 1, CLOSE)]
    return f" Did you mean {' or '.join(close)}?" if close else ""


def check_flag(verb: str, flag: str, next_word: str = "") -> None:
    """Raise VidclfError: a setting was written as other programs write it, `--epochs 3` or `--lr=0.1`."""
    name, _, value = flag.lstrip("-").replace("-", "_").partition("=")
    value = value or ("VALUE" if "=" in next_word or not next_word else next_word)
    meant = did_you_mean(name, all_keys(verb))
    raise VidclfError(f"{flag}: settings are written KEY={value}, without dashes.{meant} {usage(verb)}")


def check_word(verb: str, word: str, next_word: str = "") -> None:
    """Raise VidclfError if a word of the command line is not a setting (`key=value`) that the verb could have.

    Settings inside a group depend on its option and are checked when the configuration is composed.
    """
    key, equals, value = word.lstrip("+~").partition("=")
    if not equals and not word.startswith("~"):
        groups = [group for group in reversed(groups_of("train")) if word in options_of(group)]
        meant = f" Did you mean {' or '.join(f'{group}={word}' for group in groups)}?" if groups else ""
        if word in groups_of("train"):
            meant = f" Choose one of {', '.join(options_of(word))}: {word}={next_word or options_of(word)[0]}."
        elif word in known_keys("train") | known_keys(verb):
            meant = f" Write {word}={next_word or 'VALUE'}."
        raise VidclfError(f"{word}: a word without =; settings are written KEY=VALUE.{meant} {usage(verb)}")
    group, *_ = re.split(r"[./@]", key)
    if group not in known_keys("train") | known_keys(verb) | {"hydra"} and word[0] not in "+~":
        raise VidclfError(unknown_key(verb, key))
    if key in groups_of("train") and key not in ("callbacks", "logger") and value.startswith("["):
        raise VidclfError(f"{word}: {key} takes one option. For a run of each: -m {key}={value.strip('[]')}")
    if equals and key in groups_of("train") and not re.search(r"[$({\[]", value):
        check_options(key, value.split(","))


def check_options(group: str, names: Sequence[str]) -> None:
    """Raise VidclfError if a group has no option of a name."""
    options = options_of(group)
    allowed = (*options, "null") if group in (*OPTIONAL_GROUPS, *GLOBAL_GROUPS) else options
    for name in (name.strip("'\" ") for name in names):
        if name not in allowed:
            meant = did_you_mean(name, options)
            raise VidclfError(f"{group}={name}: {group} has no such option.{meant} Options: {', '.join(options)}.")


def unknown_key(verb: str, key: str) -> str:
    """Return the sentence for a key whose first part is neither a setting nor a group of the verb."""
    first = key.partition(".")[0]
    known = sorted(known_keys(verb) | known_keys("train"))
    meant = did_you_mean(first, known) or did_you_mean(key, all_keys(verb))
    return f"{key}: vidclf {verb} has no such setting.{meant} Settings and groups: {', '.join(known)}."


def unknown_setting(word: str, config: Mapping[str, Any]) -> str:
    """Return the sentence for `key=value` that a configuration does not have: the part that is wrong, and its like."""
    key, _, value = word.lstrip("+~").partition("=")
    node, parents = config, list[str]()
    for part in key.split("."):
        if part not in node:
            break
        node, parents = node[part], [*parents, part]
        if not isinstance(node, Mapping):
            return f"{key}: {'.'.join(parents)} is {node!r} and has no settings of its own."
    names = [name for name in map(str, node) if not name.startswith("_")]
    parent, meant = ".".join(parents), did_you_mean(part, names)
    if not meant and part in settings_of("train"):
        meant = f" Did you mean {part}={value}?"
    add = f"Another argument of its class is added by +{word.lstrip('+~')}."
    return f"{key}: {parent} has no setting {part}.{meant} It has {', '.join(names) or 'none'}. {add}"


def usage(verb: str) -> str:
    """Return how a verb is called, and an example."""
    facts = read_verb(verb)
    required = [f"{key}={key.upper()}" for key, default in settings_of(verb).items() if default == "???"]
    words = ["vidclf", verb, *(["RUN..."] if facts.takes_several_runs else required), "[KEY=VALUE ...]"]
    return f"Usage: {' '.join(words)}, such as: vidclf {verb} {facts.example.partition(chr(10))[0]}"


def all_keys(verb: str) -> list[str]:
    """Return the dotted keys of a verb with the default options of its groups."""
    options = [(f"{group}/{option}", f"{group}.") for group, option in groups_of("train").items() if option]
    files = [(verb, ""), ("train", ""), *options]
    return [key for name, prefix in files for key in settings_in(name, prefix)]

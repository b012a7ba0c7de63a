"""The classes of a data set: their order, those that are chosen, and one that is spelled in two ways."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from vidclf.errors import VidclfError
from vidclf.system.terminal import say
from vidclf.system.text import first_five


def sort_names(names: Iterable[str]) -> list[str]:
    """Return names in an order that capitals do not change."""
    return sorted(names, key=lambda name: (name.casefold(), name))


def choose_classes(chosen: Sequence[str | int] | None, order: Sequence[str]) -> list[str]:
    """Return the `chosen` names in the order of `order`; all where None is."""
    if chosen is None:
        return list(order)
    if isinstance(chosen, str) or not chosen:
        raise VidclfError(f"dataset.classes={chosen}: it must be a list of names, as in [Archery,YoYo].")
    names = [str(name) for name in chosen]  # a class called 7 is a number on the command line
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise VidclfError(f"dataset.classes names {first_five(twice)} more than once.")
    for name in names:
        if name not in order:
            near = get_close_matches(name, order)
            hint = f"Did you mean {' or '.join(near)}? " if near else ""
            raise VidclfError(
                f"dataset.classes: {name} is none of the {len(order)} classes. {hint}There are: {', '.join(order)}."
            )
    return [name for name in order if name in names]


def check_custom_classes(names: Sequence[str], where: object) -> None:
    """Raise where there is one class alone; say where two names look like one."""
    if len(names) < 2:
        raise VidclfError(f"{where}: there is one class, {first_five(names)}, and nothing to tell apart. Add another.")
    spellings: dict[str, list[str]] = {}
    for name in names:
        letters = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold()))
        spellings.setdefault(letters or name, []).append(name)
    for alike in spellings.values():
        if len(alike) > 1:
            say(f"{where}: {' and '.join(map(repr, alike))} may be one class in {len(alike)} spellings; kept apart.")


def check_choice(key: str, value: object, allowed: Sequence[str]) -> None:
    """Raise where a setting is none of the words that are allowed."""
    if value not in allowed:
        raise VidclfError(f"dataset.{key}={value}: it must be {' or '.join(allowed)}.")

"""Text for messages: names from strangers made safe to show, long lists made short, nouns in the plural."""

import re
import unicodedata
from collections.abc import Sequence

# Where secrets stand in addresses, from most to least certain. What is hidden may be more than the secret, never less.
SECRETS = (
    (re.compile(r"(:/+)[^\n]*@"), r"\1***@"),  # user and password; a password may hold any character
    (re.compile(r"(?<![^\s=\"'(\[,])[^\s:=/\"'@]+:[^\s/@]+@"), "***@"),  # the same without a protocol
    (re.compile(r"(:/+[^\s?]*\?)[^\s\"',)\]]*[^\s\"',)\].:;]"), r"\1***"),  # a query, which may hold a token
)
UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, invisible format characters, undecoded bytes, line separators


def redact(text: str) -> str:
    """Hide what may be secret in the addresses of a text: user and password, and the query."""
    for pattern, replacement in SECRETS:
        text = pattern.sub(replacement, text)
    return text


def sanitize(text: str, keep: str = "") -> str:
    """Replace every character that could move a cursor, change a colour, end a line or break an encoder.

    Args:
        text: may hold bytes of a file name that are not UTF-8 (as `surrogateescape` decodes them).
        keep: characters that stay, such as "\\n" where lines are meant.
    """
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in UNSAFE and char not in keep else char
        for char in text
    )


def as_utf8(text: str) -> str:
    """Return a name as UTF-8; other bytes of a file's name are written as \\x.."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: `1 run`, `2 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def first_five(names: Sequence[str]) -> str:
    """Return up to five of `names` for a message, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more or "none"

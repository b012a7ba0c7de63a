"""Show labels as a table on a terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from vidclf.pages.rendering import Table, print_table, print_text


def print_lines(lines: Iterable[Mapping[str, Any]]) -> None:
    """Print a table of the lines that `predict` would write; also of those before an error or Ctrl-C.

    A path that all lines share stands above it. A single file has a row for each of its most probable classes.
    """
    taken: list[Mapping[str, Any]] = []
    try:
        taken.extend(line for line in lines if "error" not in line)  # which was said
    finally:
        hidden = {"top5"}
        if len({line["path"] for line in taken}) == 1:
            print_text(taken[0]["path"])
            taken = taken[0].get("top5", taken)
            hidden.add("path")
        if taken:
            header = [key for key in taken[0] if key not in hidden]
            print_table(Table(header, [[_shown(line[key]) for key in header] for line in taken]), breaks=(1,))


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)

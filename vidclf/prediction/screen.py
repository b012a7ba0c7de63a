"""Show labels as a table on a terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from vidclf.pages.rendering import Table, print_table, print_text


def print_lines(lines: Iterable[Mapping[str, Any]]) -> None:
    """Print a table of the lines that `predict` would write; also of those before an error or Ctrl-C.

    A single file has a row for each of its most probable classes.
    """
    taken: list[Mapping[str, Any]] = []
    try:
        taken.extend(line for line in lines if "error" not in line)  # which was said
    finally:
        if len(taken) == 1 and "top5" in taken[0]:
            print_text(taken[0]["path"])
            taken = taken[0]["top5"]
        if taken:
            rows = [_row_of(line) for line in taken]
            print_table(Table([*rows[0]], [[*row.values()] for row in rows]), breaks=(1,))


def _row_of(line: Mapping[str, Any]) -> dict[str, str]:
    row = {key: _shown(value) for key, value in line.items() if key != "top5"}
    if len(line.get("top5", ())) > 1:
        second = line["top5"][1]
        row["second"] = f"{second['label']} {second['probability']:.3f}"
    return row


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)

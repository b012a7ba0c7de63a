"""Tables for a terminal, Markdown, CSV and a page that loads nothing and runs nothing, whatever names they hold."""

import csv
import io
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from vidclf.system.text import sanitize


class Table(NamedTuple):
    """What stands over the columns, and in the rows; names may be any and the same."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]


def render_page(template: str, **values: object) -> bytes:
    """Return a page made of a template in pages/templates/; what it shows is escaped."""
    environment = Environment(
        loader=PackageLoader("vidclf", "pages/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: sanitize(value) if type(value) is str else value,  # not what is markup already
    )
    return environment.get_template(template).render(**values).encode()


def as_markdown(table: Table) -> str:
    """Return a table in Markdown."""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    shown = [[text if row is lines[1] else _in_markdown(text) for text in map(str, row)] for row in lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in shown)


def as_csv(table: Table) -> bytes:
    """Return a table as CSV; a name that a spreadsheet would compute begins with an apostrophe."""
    text = io.StringIO(newline="")
    rows = [[_not_computed(value) for value in row] for row in [table.header, *table.rows]]
    csv.writer(text, lineterminator="\n").writerows(rows)
    return sanitize(text.getvalue(), keep="\n\r\t").encode()


def print_table(table: Table) -> None:
    """Print a table on stdout: drawn on a terminal, Markdown elsewhere."""
    if not sys.stdout.isatty():
        print(as_markdown(table), end="", flush=True)
        return
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid()
    for name in table.header:
        grid.add_column(Text(sanitize(name)))
    for row in table.rows:
        grid.add_row(*(Text(sanitize(str(value))) for value in row))  # a plain string would be markup
    Console().print(grid)


def _in_markdown(text: str) -> str:
    escaped = sanitize(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", escaped)


def _not_computed(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value

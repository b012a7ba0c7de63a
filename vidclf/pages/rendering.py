"""Render pages that load and run nothing, and tables for a terminal, Markdown and CSV; names may hold anything."""

import csv
import io
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from vidclf.system.text import sanitize


class Table(NamedTuple):
    """Column names, which may repeat, and rows."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]


def render_page(template: str, **values: object) -> bytes:
    """Return a page from a template in pages/templates/; its values are escaped."""
    environment = Environment(
        loader=PackageLoader("vidclf", "pages/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: sanitize(value) if type(value) is str else value,  # not markup
    )
    return environment.get_template(template).render(**values).encode()


def as_markdown(table: Table) -> str:
    """Return a table in Markdown."""
    header, *rows = ([_escape_markdown(str(value)) for value in row] for row in [table.header, *table.rows])
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, ["---"] * len(header), *rows])


def as_csv(table: Table) -> bytes:
    """Return a table as CSV; an apostrophe is put before a name that a spreadsheet would take for a formula."""
    text = io.StringIO(newline="")
    rows = [table.header, *table.rows]
    csv.writer(text, lineterminator="\n").writerows([map(_escape_formula, row) for row in rows])
    return sanitize(text.getvalue(), keep="\n\r\t").encode()


def print_table(table: Table) -> None:
    """Print a table on stdout: drawn on a terminal, as Markdown elsewhere."""
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
        grid.add_row(*(Text(sanitize(str(value))) for value in row))  # rich would read markup in a plain string
    Console().print(grid)


def _escape_markdown(text: str) -> str:
    escaped = sanitize(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", escaped)


def _escape_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value

"""Render pages that load and run nothing, and tables for a terminal, Markdown and CSV; names may hold anything."""

import base64
import csv
import hashlib
import io
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from vidclf.system.text import sanitize

MAX_WIDTH = 10_000  # in characters, to which a table is measured


class Table(NamedTuple):
    """Column names, which may repeat, and rows."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]


def render_page(template: str, script: str = "", **values: object) -> bytes:
    """Return a page from a template in pages/templates/; its values are escaped, and only our own script may run.

    Args:
        template: a file's name.
        script: the name of the file that the page runs; empty: none.
        values: of the template. `data | tojson` is harmless inside an element, whatever the names in it.
    """
    loader = PackageLoader("vidclf", "pages/templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: sanitize(value) if type(value) is str else value,  # not markup
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    parts = {"style": "page.css", "script": script}
    texts = {name: loader.get_source(environment, file)[0] if file else "" for name, file in parts.items()}
    allowed = "; ".join(f"{name}-src 'sha256-{_sha256(text)}'" for name, text in texts.items() if text)
    markup = {name: Markup(text) for name, text in texts.items()}
    return environment.get_template(template).render(**markup, allowed=Markup(allowed), **values).encode()


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


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


def print_table(table: Table, breaks: Sequence[int]) -> None:
    """Print a table on stdout, or a few lines for each row where the table is wider than the terminal.

    `breaks` are the columns at which the lines of a row begin; the first line begins at column 0 and names no columns.
    """
    console = Console(highlight=False)
    header, *rows = ([sanitize(str(value)) for value in row] for row in [table.header, *table.rows])
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in header:
        grid.add_column(Text(name), no_wrap=True)
    for row in rows:
        grid.add_row(*map(Text, row))  # rich would read markup in a plain string
    if console.measure(grid, options=console.options.update(max_width=MAX_WIDTH)).maximum <= console.width:
        console.print(grid)
        return
    for row in rows:
        console.print(Text("  ".join(row[: breaks[0]]), overflow="fold"))
        for start, end in pairwise([*breaks, len(row)]):
            named = [f"{name} {value}" for name, value in zip(header[start:end], row[start:end], strict=True) if value]
            line = Text(f"   {'  '.join(named)}")
            line.truncate(console.width, overflow="ellipsis")
            console.print(line)


def print_text(text: str) -> None:
    """Print a sentence on stdout, wrapped between words at the terminal's width."""
    Console(highlight=False).print(Text(sanitize(text)))


def _escape_markdown(text: str) -> str:
    escaped = sanitize(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", escaped)


def _escape_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value

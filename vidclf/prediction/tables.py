"""The tables that `predict` writes and reads again: CSV, JSON lines and Parquet, a row each file or window."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from vidclf.errors import VidclfError
from vidclf.system.disk import replacing, write_csv
from vidclf.system.extras import PYARROW, require
from vidclf.system.text import as_utf8

ENDINGS = (".csv", ".jsonl", ".parquet")
FIRST, LAST = ("path", "start_s", "end_s", "label", "probability"), ("error", "content", "run")
TEXTS = {"path", "label", *LAST}  # all other columns are numbers
OTHERWISE = "Choose another name or delete it."
GROUP_ROWS = 10_000  # of a Parquet table

Row = dict[str, Any]


def columns_for(class_names: Sequence[str]) -> list[str]:
    """Return the columns of a table."""
    return [*FIRST, *(f"p_{name}" for name in class_names), *LAST]


def check_target(to: Path) -> None:
    """Raise VidclfError unless a file of this name can be a table."""
    ending = to.suffix.lower()
    if ending not in ENDINGS:
        endings = ", ".join(ENDINGS)
        raise VidclfError(f"to={to}: the name must end in {endings}. Events along time (.boris, .srt) need window_s=2.")
    if not to.absolute().parent.is_dir():
        raise VidclfError(f"to={to}: there is no folder {to.absolute().parent}. Make it, or choose another.")
    if ending == ".parquet":
        require("pyarrow", PYARROW, "parquet", f"to={to}: Parquet", ", or choose a name that ends in .csv")


def read_table(to: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a table with these columns; an empty cell is None.

    Raises:
        VidclfError: it is another table, or damaged.
    """
    read = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}[to.suffix.lower()]
    try:
        for cells in read(to, columns):
            yield dict(zip(columns, cells, strict=True))
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise VidclfError(f"to={to}: it is no table of predictions, or damaged ({error}). {OTHERWISE}") from error


def write_table(to: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a table, whole or not at all; rows are not held in memory."""
    ending = to.suffix.lower()
    if ending == ".csv":
        write_csv(to, columns, (row.values() for row in rows))
        return
    with replacing(to) as temporary:
        if ending == ".jsonl":
            with temporary.open("w", encoding="ascii") as file:
                file.writelines(f"{json.dumps(row)}\n" for row in rows)
        else:
            _write_parquet(temporary, columns, iter(rows))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())


def _check_columns(to: Path, header: Iterable[str], columns: Sequence[str]) -> None:
    if list(header) != columns:
        is_similar = {*FIRST, *LAST} <= {*header}
        what = "its rows are of another run, with other classes" if is_similar else "it is no table of predictions"
        raise VidclfError(f"to={to}: {what}. {OTHERWISE}")


def _read_csv(to: Path, columns: Sequence[str]) -> Iterator[list]:
    with to.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv.reader(file, strict=True)
        _check_columns(to, next(reader, []), columns)
        texts = [name in TEXTS for name in columns]
        for cells in reader:
            pairs = zip(cells, texts, strict=True)
            yield [(cell if is_text else float(cell)) if cell else None for cell, is_text in pairs]


def _read_jsonl(to: Path, columns: Sequence[str]) -> Iterator[list]:
    with to.open(encoding="ascii") as file:
        for line in file:
            row = json.loads(line)
            _check_columns(to, row, columns)
            yield [*row.values()]


def _read_parquet(to: Path, columns: Sequence[str]) -> Iterator[list]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(to) as parquet:
        _check_columns(to, parquet.schema_arrow.names, columns)
        for batch in parquet.iter_batches(GROUP_ROWS):
            for row in batch.to_pylist():
                yield [*row.values()]


def _write_parquet(temporary: Path, columns: Sequence[str], rows: Iterator[Row]) -> None:
    from pyarrow import Table, field, float64, schema, string
    from pyarrow.parquet import ParquetWriter

    fields = schema([field(name, string() if name in TEXTS else float64()) for name in columns])
    with ParquetWriter(temporary, fields) as writer:
        while group := list(islice(rows, GROUP_ROWS)):
            for row in group:
                row.update({key: as_utf8(row[key]) for key in TEXTS if row[key] is not None})
            writer.write_table(Table.from_pylist(group, fields))

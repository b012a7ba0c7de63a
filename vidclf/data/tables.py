"""Read tables: Parquet, and CSV as spreadsheets write it. Unambiguous deviations from plain CSV are reported."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidclf.data.listing import read_text, repeated
from vidclf.errors import VidclfError
from vidclf.system.extras import PYARROW, require
from vidclf.system.terminal import say
from vidclf.system.text import first_five

DELIMITERS = (",", ";", "\t")
EXPANSION, SMALL = 100, 10_000_000  # bytes of a Parquet table: so many times its file's size, and so many more
ROWS_AT_ONCE = 100  # of a Parquet table

Row = dict[str, str]


@dataclass(frozen=True)
class Schema:
    """The columns of a kind of table. Their names are compared in lower case.

    Attributes:
        required: columns that it must have.
        optional: columns that it may have; None: any others.
        may_be_empty: columns whose cells may be empty.
        numbers: columns in which a comma is a decimal comma where another character separates the columns.
        verbatim: columns whose cells keep the blanks around them.
        max_rows: None for any number.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] | None
    may_be_empty: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    verbatim: tuple[str, ...] = ()
    max_rows: int | None = None


def read_csv(file: Path, schema: Schema, text: str | None = None) -> Iterator[tuple[int, Row]]:
    """Yield the line number and the cells of each row.

    Args:
        file: for messages, and read if `text` is None.
        schema: of the table.
        text: of the file.

    Raises:
        VidclfError: it is not a table of this schema.
    """
    text = read_text(file) if text is None else text
    delimiter = find_delimiter(text, schema.required)
    if delimiter != "," and schema.optional is not None:
        say(f"{file}: {delimiter!r} separates its columns, so that a comma in a time is a decimal comma.")
    header: list[str] = []
    for line, cells in csv_lines(file, text, delimiter):
        if not header:
            header = _columns(file, cells, schema)
            continue
        row = {
            name: cell if name in schema.verbatim and cell.strip() else cell.strip()
            for name, cell in zip(header, cells, strict=True)
        }
        if delimiter != ",":
            row |= {key: row[key].replace(",", ".") for key in schema.numbers if key in row}
        yield line, _filled(f"{file}, line {line}", row, schema)
    if not header:
        _columns(file, [], schema)


def csv_lines(file: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of each line that is not empty, the header's first.

    Raises:
        VidclfError: it is no CSV, or a line has another number of cells than the header.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    num_cells = 0
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells) or (not num_cells and cells[0].startswith("sep=")):
                continue  # spreadsheets write empty lines, and the separator
            num_cells = num_cells or len(cells)
            if len(cells) != num_cells:
                raise VidclfError(
                    f"{file}, line {reader.line_num}: it has {len(cells)} cells, the header {num_cells}. Put cells "
                    f"that contain a {delimiter!r} in double quotes."
                )
            yield reader.line_num, cells
    except csv.Error as error:
        raise VidclfError(f"{file}, line {reader.line_num}: not a CSV table ({error}). Save it as CSV.") from error


def find_delimiter(text: str, required: Sequence[str]) -> str:
    """Return what separates the columns: the comma, unless another character gives more of the required columns."""
    return max(DELIMITERS, key=lambda delimiter: len({*required} & header_of(text, delimiter)))


def header_of(text: str, delimiter: str) -> set[str]:
    """Return the names in a table's first line, in lower case."""
    lines = io.StringIO(text)
    header = next((line for line in lines if line.strip() and not line.startswith("sep=")), "")
    return {name.strip() for name in header.casefold().replace('"', "").split(delimiter)}


def read_parquet(file: Path, schema: Schema) -> Iterator[tuple[int, Row]]:
    """Yield the number and the cells, as text, of each row of a Parquet table.

    Raises:
        VidclfError: pyarrow is not installed, or it is not a table of this schema.
    """
    require("pyarrow", PYARROW, "parquet", f"{file}: Parquet", ", or save the table as CSV")
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile, read_schema
    from pyarrow.types import is_string

    try:
        fields = read_schema(file)
        columns = _columns(file, fields.names, schema)
        texts = [field.name for field in fields if is_string(field.type)]
        with ParquetFile(file, read_dictionary=texts) as parquet:  # texts that repeat are kept once
            groups = [parquet.metadata.row_group(number) for number in range(parquet.num_row_groups)]
            num_rows = parquet.metadata.num_rows
            check_num_rows(file, num_rows, schema.max_rows)
            _check_size(file, num_rows, sum(group.total_byte_size for group in groups))
            line = num_bytes = 0
            for batch in parquet.iter_batches(ROWS_AT_ONCE):  # the sizes that a file states may be wrong
                num_bytes += sum(map(_num_characters, batch.columns))
                _check_size(file, line + len(batch), num_bytes)
                for cells in batch.rename_columns(columns).to_pylist():
                    line += 1
                    row = {key: _text(file, line, key, cell, schema) for key, cell in cells.items()}
                    yield line, _filled(f"{file}, row {line}", row, schema)
    except (ArrowException, OSError) as error:
        raise VidclfError(f"{file}: Parquet cannot read it ({str(error).splitlines()[0]}). Write it again.") from error


def check_num_rows(file: Path, num_rows: int, max_rows: int | None) -> None:
    """Raise VidclfError if a table has more rows than may be."""
    if max_rows is not None and num_rows > max_rows:
        raise VidclfError(f"{file}: it has more than {max_rows:,} rows. Divide it into several tables.")


def seconds(where: str, row: Row, key: str) -> float | None:
    """Return the time in a cell; None if it is empty.

    Raises:
        VidclfError: it is not a number of seconds, 0 or more.
    """
    text = row.get(key)
    if not text:
        return None
    try:
        time_s = float(text)
    except ValueError:
        time_s = -1.0
    if not (math.isfinite(time_s) and time_s >= 0):
        raise VidclfError(f"{where}: {key}={text}: must be seconds, 0 or more, such as 12.5.")
    return time_s


def _check_size(file: Path, num_rows: int, num_bytes: int) -> None:
    """Raise VidclfError if a table would take far more memory than its size: a small file can repeat a long text."""
    size = file.stat().st_size
    if num_rows > size or num_bytes > EXPANSION * size + SMALL:
        raise VidclfError(
            f"{file}: {num_rows} rows and {num_bytes / 1e6:.0f} MB in a file of {size / 1e6:.1f} MB. No table of "
            "videos shrinks so much; write it again."
        )


def _num_characters(chunk: Any) -> int:
    """Return the length of all texts in an Arrow array; the size of other values."""
    from pyarrow.compute import binary_length, sum
    from pyarrow.types import is_dictionary, is_string

    if not (is_dictionary(chunk.type) and is_string(chunk.type.value_type)):
        return chunk.nbytes
    return sum(binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0


def _text(file: Path, line: int, key: str, cell: Any, schema: Schema) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, list | dict | bytes):
        hint = " A video has one label." if key == "label" else ""
        raise VidclfError(f"{file}, row {line}: {key} is a {type(cell).__name__}; it must be text or a number.{hint}")
    if "\0" in str(cell):
        raise VidclfError(f"{file}, row {line}: {key} contains a zero character. Correct the cell.")
    return str(cell) if key in schema.verbatim else str(cell).strip()


def _columns(file: Path, header: Sequence[str], schema: Schema) -> list[str]:
    """Return the names of a table's columns in lower case; raise if they do not fit."""
    columns = [name.strip().casefold() for name in header]
    if schema.optional is None:
        missing = [name for name in schema.required if name not in columns]
        if missing:
            raise VidclfError(f"{file}: it has no column {first_five(missing)}. Export the table again.")
        return columns
    if capitalised := [name for name, column in zip(header, columns, strict=True) if name.strip() != column]:
        say(f"{file}: the columns {first_five(capitalised)} are read in lower case.")
    nameless = [f"column {number}" for number, name in enumerate(columns, start=1) if not name]
    problems = {
        "unknown": [name for name in columns if name and name not in schema.required + schema.optional],
        "without a name, as pandas writes its index (save with index=False)": nameless,
        "there twice": repeated(filter(None, columns)),
        "missing": [name for name in schema.required if name not in columns],
    }
    if any(problems.values()):
        what = "; ".join(f"{problem}: {first_five(names)}" for problem, names in problems.items() if names)
        raise VidclfError(
            f"{file}: its columns do not fit ({what}). It needs {_listed(schema.required)}, may have "
            f"{_listed(schema.optional)}, and a CSV separates them by commas, semicolons or tabs."
        )
    return columns


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _filled(where: str, row: Row, schema: Schema) -> Row:
    empty = [key for key, cell in row.items() if not cell and key not in schema.may_be_empty]
    if empty and schema.optional is not None:
        raise VidclfError(f"{where}: {', '.join(empty)} is empty. Fill it, or remove the row or the whole column.")
    return row

"""A plain table of events, CSV or Parquet: path, start_s, end_s, label, and who, if known."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vidclf.data.decoding import VideoInfo
from vidclf.data.events import MAX_EVENTS, PARQUET, Event
from vidclf.data.tables import DELIMITERS, Schema, header_of, read_csv, read_parquet, seconds
from vidclf.errors import VidclfError
from vidclf.system.disk import csv_bytes
from vidclf.system.extras import PYARROW, require

NAME, ENDINGS, WRITES, PER_FRAME = "table", (".csv", ".tsv", ".txt", ".parquet", ".pq"), (".csv", ".parquet"), False
REQUIRED, WHO, TIMES = (
    ("path", "start_s", "end_s", "label"),
    ("subject", "group", "part", "coder"),
    ("start_s", "end_s"),
)
SCHEMA = Schema(
    REQUIRED, WHO, may_be_empty=(*WHO, *TIMES, "label"), numbers=TIMES, verbatim=("label",), max_rows=MAX_EVENTS
)


def fits(text: str) -> bool:
    """Return whether the header has the columns that a plain table needs, or it is a Parquet file."""
    return text == PARQUET or any({*REQUIRED} <= header_of(text, delimiter) for delimiter in DELIMITERS)


def read(file: Path, text: str) -> Iterator[Event]:
    """Yield an event for each row."""
    rows = read_parquet(file, SCHEMA) if text == PARQUET else read_csv(file, SCHEMA, text)
    for line, row in rows:
        where = f"line {line}" if text != PARQUET else f"row {line}"
        start_s, end_s = (seconds(f"{file}, {where}", row, key) for key in TIMES)
        if start_s is None or end_s is None:
            what = "start_s" if start_s is None else "end_s"
            raise VidclfError(f"{file}, {where}: {what} is empty. An event starts and stops; fill both, in seconds.")
        who = {key: row.get(key, "") for key in WHO}
        yield Event(row["path"].replace("\\", "/"), start_s, end_s, row["label"], **who, where=where)


def write(path: Path, events: Sequence[Event], videos: Mapping[str, VideoInfo]) -> bytes:
    """Return the table; columns that no event fills are left out."""
    used = [key for key in WHO if any(getattr(event, key) for event in events)]
    names = [*REQUIRED, *used]
    if path.suffix.lower() == ".csv":
        rows = ([_cell(getattr(event, name)) for name in names] for event in events)
        return csv_bytes(names, rows)
    require("pyarrow", PYARROW, "parquet", f"{path}: Parquet", ", or write a .csv file")
    import pyarrow
    from pyarrow.parquet import write_table

    columns = {name: [getattr(event, name) for event in events] for name in names}
    types = {name: pyarrow.float64() if name in TIMES else pyarrow.string() for name in names}
    arrays = {name: pyarrow.array(values, types[name]) for name, values in columns.items()}
    content = io.BytesIO()
    write_table(pyarrow.table(arrays), content)
    return content.getvalue()


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.12g}"

"""Your own videos, listed in a table: CSV or Parquet with path, label, and optional group, split, start_s, end_s.

Tables of spreadsheets are read, too, where nothing is ambiguous: with semicolons or tabs, decimal commas, in UTF-16,
with capitalised columns and parts. The deviations are reported.
"""

import csv
import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from vidclf.contracts import PARTS, Video
from vidclf.data.listing import (
    check_choice,
    check_custom_classes,
    choose_classes,
    part_named,
    read_text,
    repeated,
    sort_names,
)
from vidclf.errors import VidclfError
from vidclf.system.extras import PYARROW, require
from vidclf.system.terminal import say
from vidclf.system.text import first_five

COLUMNS = ("path", "label", "group", "split", "start_s", "end_s")
REQUIRED = ("path", "label")
DELIMITERS = (",", ";", "\t")
ROWS_AT_ONCE = 100  # of a Parquet table
EXPANSION, SMALL = 100, 10_000_000  # bytes of a Parquet table: so many times its file's size, and so many more
MAY_BE_EMPTY = ("start_s", "end_s")  # empty: the beginning, the end of the video

Row = dict[str, str]


class Manifest:
    """The videos, or labelled segments of videos, that a table lists.

    Args:
        file: CSV or, by its extension, Parquet; paths are relative to its folder.
        groups: as in `Folder`.
        classes: use these labels only; classes are in alphabetical order.
        anywhere: whether paths may be absolute or lead out of the table's folder.
        on_error: as in `UCF101`.

    Raises:
        VidclfError: the table cannot be read, or a cell is not allowed; the message names the line.
    """

    split_numbers = ()

    def __init__(
        self,
        file: str | Path,
        groups: str = "shared",
        classes: Sequence[str | int | None] | None = None,
        anywhere: bool = False,
        on_error: str = "raise",
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        check_choice("groups", groups, ("shared", "of_class"))
        self.file, self.groups, self.anywhere, self.on_error = Path(file).expanduser(), groups, anywhere, on_error
        if not self.file.is_file():
            raise VidclfError(f"dataset.file={self.file}: there is no such file. Set it to a .csv or .parquet file.")
        self.root = self.file.parent
        is_parquet = self.file.suffix.lower() in (".parquet", ".pq")
        self._rows = list(_read_parquet(self.file) if is_parquet else _read_csv(self.file))
        if not self._rows:
            raise VidclfError(f"{self.file}: it has no rows. Add one for each video.")
        self.class_names = choose_classes(classes, sort_names({row["label"] for _, row in self._rows}))
        check_custom_classes(self.class_names, self.file)

    def videos(self) -> list[Video]:
        """Return every row of `class_names`, in the table's order.

        Raises:
            VidclfError: a path leads out of the table's folder, a time or part is not allowed, or a row is there twice.
        """
        rows = [(line, row) for line, row in self._rows if row["label"] in self.class_names]
        written = {row["split"]: part_named(row["split"]) for _, row in rows if "split" in row}
        if respelled := [f"{name} as {part}" for name, part in written.items() if part not in (None, name)]:
            say(f"{self.file}: in the column split, it reads {first_five(respelled)}.")
        paths = {row["path"]: self._path(row["path"]) for _, row in rows}
        if not self.anywhere:
            self._check_inside(paths)
        videos = [self._video(line, row, paths[row["path"]]) for line, row in rows]
        self._check_each_once([line for line, _ in rows], videos)
        groups_of: dict[str, set[tuple[int, str]]] = {}
        for video in videos:
            groups_of.setdefault(video.path.as_posix(), set()).add(video.unit)
        crossing = [path for path, groups in groups_of.items() if len(groups) > 1]
        if crossing:
            say(
                f"{self.file}: {len(crossing)} file(s) have segments in several groups: {first_five(crossing)}. "
                "A split may separate them, although they come from the same recording."
            )
        return videos

    def _path(self, written: str) -> Path:
        path = self.root / written
        return path if os.path.exists(path) else self.root / written.replace("\\", "/")

    def _check_inside(self, paths: dict[str, Path]) -> None:
        inside = os.path.realpath(self.root)
        outside = [
            name
            for name, path in paths.items()
            if Path(name).is_absolute()
            or PureWindowsPath(name).is_absolute()
            or ".." in name.replace("\\", "/").split("/")
            or not Path(os.path.realpath(path)).is_relative_to(inside)
        ]
        if outside:
            raise VidclfError(
                f"{self.file}: {len(outside)} path(s) are absolute or lead out of its folder, directly or by a link: "
                f"{first_five(outside)}. Move the videos there, or pass dataset.anywhere=true if you trust the table."
            )

    def _video(self, line: int, row: Row, path: Path) -> Video:
        start_s, end_s = (_seconds(f"{self.file}, line {line}", row, key) for key in ("start_s", "end_s"))
        if end_s is not None and (start_s or 0) >= end_s:
            raise VidclfError(
                f"{self.file}, line {line}: start_s={start_s or 0:g} is not before end_s={end_s:g}. Correct the row."
            )
        part = part_named(row.get("split", ""))
        if part is None and "split" in row:
            raise VidclfError(f"{self.file}, line {line}: split={row['split']}: must be one of {', '.join(PARTS)}.")
        label = self.class_names.index(row["label"])
        shared = self.groups == "shared" or "group" not in row  # a file is the same in all classes
        written = Path(row["path"].replace("\\", "/"))
        name = Video(written, label, "", start_s=start_s, end_s=end_s).name
        group = row.get("group", written.as_posix())
        return Video(path, label, group, part, start_s, end_s, name, shared, class_name=row["label"])

    def _check_each_once(self, lines: Sequence[int], videos: Sequence[Video]) -> None:
        seen: dict[str, tuple[int, Video]] = {}
        for line, video in zip(lines, videos, strict=True):
            line_before, before = seen.setdefault(video.name, (line, video))
            if before is video:
                continue
            what = f"names {video.name} again, as line {line_before} does. Remove one"
            if before.label != video.label:
                what = (
                    f"gives {video.name} the label {video.class_name}, line {line_before} gives it "
                    f"{before.class_name}: a video has one label. Keep one"
                )
            raise VidclfError(f"{self.file}: line {line} {what}.")


def _read_csv(file: Path) -> Iterator[tuple[int, Row]]:
    text = read_text(file)
    delimiter = _delimiter(text)
    if delimiter != ",":
        say(f"{file}: {delimiter!r} separates its columns, so that a comma in a time is a decimal comma.")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            where = f"{file}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells) or (not header and cells[0].startswith("sep=")):
                continue  # spreadsheets write empty lines, and the separator
            if not header:
                header = _columns(file, cells)
                continue
            if len(cells) != len(header):
                raise VidclfError(
                    f"{where}: it has {len(cells)} cells, the header {len(header)}. Put cells that contain a "
                    f"{delimiter!r} in double quotes."
                )
            row = dict(zip(header, map(str.strip, cells), strict=True))
            if delimiter != ",":
                row |= {key: row[key].replace(",", ".") for key in MAY_BE_EMPTY if key in row}
            yield reader.line_num, _filled(where, row)
    except csv.Error as error:
        raise VidclfError(f"{file}, line {reader.line_num}: not a CSV table ({error}). Save it as CSV.") from error
    if not header:
        _columns(file, [])


def _delimiter(text: str) -> str:
    """Return what separates the columns: the comma, unless only another character gives a path and a label."""
    header = next((line for line in text.splitlines() if line.strip() and not line.startswith("sep=")), "")
    names = {delimiter: header.casefold().replace('"', "").split(delimiter) for delimiter in DELIMITERS}
    fitting = [delimiter for delimiter, found in names.items() if {*REQUIRED} <= {name.strip() for name in found}]
    return fitting[0] if fitting else ","


def _read_parquet(file: Path) -> Iterator[tuple[int, Row]]:
    require("pyarrow", PYARROW, "parquet", f"{file}: Parquet", ", or save the table as CSV")
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile, read_schema
    from pyarrow.types import is_string

    try:
        schema = read_schema(file)
        columns = _columns(file, schema.names)
        texts = [field.name for field in schema if is_string(field.type)]
        with ParquetFile(file, read_dictionary=texts) as parquet:  # texts that repeat are kept once
            groups = [parquet.metadata.row_group(number) for number in range(parquet.num_row_groups)]
            _check_size(file, parquet.metadata.num_rows, sum(group.total_byte_size for group in groups))
            line = num_bytes = 0
            for batch in parquet.iter_batches(ROWS_AT_ONCE):  # the sizes that a file states may be wrong
                num_bytes += sum(map(_num_characters, batch.columns))
                _check_size(file, line + len(batch), num_bytes)
                for cells in batch.rename_columns(columns).to_pylist():
                    line += 1
                    row = {key: _text(file, line, key, cell) for key, cell in cells.items()}
                    yield line, _filled(f"{file}, row {line}", row)
    except (ArrowException, OSError) as error:
        raise VidclfError(f"{file}: Parquet cannot read it ({str(error).splitlines()[0]}). Write it again.") from error


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


def _text(file: Path, line: int, key: str, cell: Any) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, list | dict | bytes):
        hint = " A video has one label." if key == "label" else ""
        raise VidclfError(f"{file}, row {line}: {key} is a {type(cell).__name__}; it must be text or a number.{hint}")
    if "\0" in str(cell):
        raise VidclfError(f"{file}, row {line}: {key} contains a zero character. Correct the cell.")
    return str(cell).strip()


def _columns(file: Path, header: Sequence[str]) -> list[str]:
    """Return the names of a table's columns in lower case; raise if they do not fit."""
    columns = [name.strip().casefold() for name in header]
    if capitalised := [name for name, column in zip(header, columns, strict=True) if name.strip() != column]:
        say(f"{file}: the columns {first_five(capitalised)} are read in lower case.")
    nameless = [f"column {number}" for number, name in enumerate(columns, start=1) if not name]
    problems = {
        "unknown": [name for name in columns if name and name not in COLUMNS],
        "without a name, as pandas writes its index (save with index=False)": nameless,
        "there twice": repeated(filter(None, columns)),
        "missing": [name for name in REQUIRED if name not in columns],
    }
    if any(problems.values()):
        what = "; ".join(f"{problem}: {first_five(names)}" for problem, names in problems.items() if names)
        raise VidclfError(
            f"{file}: its columns do not fit ({what}). It needs path and label, may have group, split, start_s and "
            "end_s, and a CSV separates them by commas, semicolons or tabs."
        )
    return columns


def _filled(where: str, row: Row) -> Row:
    empty = [key for key, cell in row.items() if not cell and key not in MAY_BE_EMPTY]
    if empty:
        raise VidclfError(f"{where}: {', '.join(empty)} is empty. Fill it, or remove the row or the whole column.")
    return row


def _seconds(where: str, row: Row, key: str) -> float | None:
    text = row.get(key)
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not (math.isfinite(seconds) and seconds >= 0):
        raise VidclfError(f"{where}: {key}={text}: must be seconds, 0 or more, such as 12.5.")
    return seconds

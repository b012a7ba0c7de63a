"""Your own videos, listed in a table: CSV or Parquet with path, label, and optional group, split, start_s, end_s.

Tables of spreadsheets are read, too, where nothing is ambiguous: with semicolons or tabs, decimal commas, in UTF-16,
with capitalised columns and parts. The deviations are reported.
"""

import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from vidclf.contracts import PARTS, Video
from vidclf.data.grouping import GROUPS, group_rule
from vidclf.data.listing import (
    DatasetError,
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
        group: as in `Folder`, where the table has no column group.
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
        group: str | None = None,
        groups: str = "shared",
        classes: Sequence[str | int | None] | None = None,
        anywhere: bool = False,
        on_error: str = "raise",
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        check_choice("groups", groups, ("shared", "of_class"))
        self.file, self.group, self.groups = Path(file).expanduser(), group, groups
        self.anywhere, self.on_error = anywhere, on_error
        if not self.file.is_file():
            raise VidclfError(f"dataset.file={self.file}: there is no such file. Set it to a .csv or .parquet file.")
        self.root = self.file.parent
        is_parquet = self.file.suffix.lower() in (".parquet", ".pq")
        self._rows = list(_read_parquet(self.file) if is_parquet else _read_csv(self.file))
        if not self._rows:
            raise VidclfError(f"{self.file}: it has no rows. Add one for each video.")
        self._group_of = self._group_rule(group)
        labels = {row["label"] for _, row in self._rows if row["label"]}
        self.class_names = choose_classes(classes, sort_names(labels))
        check_custom_classes(self.class_names, self.file)

    def videos(self) -> list[Video]:
        """Return every row of `class_names`, in the table's order.

        Raises:
            DatasetError: a cell is empty or not allowed, a path leads out of the table's folder, or a row is there
                twice.
        """
        problems: list[str] = []
        for where, row in self._rows:
            if empty := [key for key, cell in row.items() if not cell and key not in MAY_BE_EMPTY]:
                what = f"{', '.join(empty)} is empty. Fill it, or remove the row or the whole column."
                problems.append(f"{self.file}, {where}: {what}")
        rows = [(where, row) for where, row in self._rows if row["path"] and row["label"] in self.class_names]
        written = {row["split"]: part_named(row["split"]) for _, row in rows if "split" in row}
        if respelled := [f"{name} as {part}" for name, part in written.items() if part not in (None, name)]:
            say(f"{self.file}: in the column split, it reads {first_five(respelled)}.")
        paths = {row["path"]: self._path(row["path"]) for _, row in rows}
        outside = set() if self.anywhere else self._outside(paths)
        if outside:
            problems.append(
                f"{self.file}: {len(outside)} path(s) are absolute or lead out of its folder, directly or by a link: "
                f"{first_five(sorted(outside))}. Move the videos there, or pass dataset.anywhere=true if you trust the "
                "table."
            )
        found: dict[str, tuple[str, Video]] = {}
        for where, row in rows:
            if row["path"] in outside:
                continue
            try:
                video = self._video(where, row, paths[row["path"]])
                self._check_new(where, video, *found.setdefault(video.name, (where, video)))
            except VidclfError as error:
                problems.append(f"{self.file}, {error}")
        videos = [video for _, video in found.values()]
        self._say_crossing(videos)
        if problems:
            raise DatasetError(problems, videos)
        return videos

    def _group_rule(self, group: str | None) -> Callable[[str], str | None]:
        """Return the rule from a path to its group, for tables without the column.

        Raises:
            VidclfError: there is neither a rule nor a column, or both.
        """
        has_column = "group" in self._rows[0][1]
        if has_column and group is not None:
            raise VidclfError(f"dataset.group={group}: {self.file} has a column group. Leave dataset.group out.")
        if has_column:
            return lambda path: path
        if group is None:
            raise VidclfError(f"{GROUPS}\nOr add a column group to {self.file}.")
        return group_rule(group, parent=lambda path: PurePosixPath(path).parent.as_posix().removeprefix("."))

    def _path(self, written: str) -> Path:
        path = self.root / written
        return path if os.path.exists(path) else self.root / written.replace("\\", "/")

    def _outside(self, paths: Mapping[str, Path]) -> set[str]:
        inside = os.path.realpath(self.root)
        return {
            name
            for name, path in paths.items()
            if Path(name).is_absolute()
            or PureWindowsPath(name).is_absolute()
            or ".." in name.replace("\\", "/").split("/")
            or not Path(os.path.realpath(path)).is_relative_to(inside)
        }

    def _video(self, where: str, row: Row, path: Path) -> Video:
        start_s, end_s = (_seconds(where, row, key) for key in ("start_s", "end_s"))
        if end_s is not None and (start_s or 0) >= end_s:
            raise VidclfError(f"{where}: start_s={start_s or 0:g} is not before end_s={end_s:g}. Correct the row.")
        part = part_named(row.get("split", ""))
        if part is None and row.get("split"):
            raise VidclfError(f"{where}: split={row['split']}: must be one of {', '.join(PARTS)}.")
        label = self.class_names.index(row["label"])
        written = Path(row["path"].replace("\\", "/")).as_posix()
        group = row.get("group") or self._group_of(written)
        if group is None:
            raise VidclfError(f"{where}: {written} does not fit dataset.group={self.group}. Correct either.")
        shared = self.groups == "shared" or self.group == "file"  # a file is the same in all classes
        name = Video(Path(written), label, "", start_s=start_s, end_s=end_s).name
        return Video(path, label, group, part, start_s, end_s, name, shared, class_name=row["label"])

    def _check_new(self, where: str, video: Video, where_before: str, before: Video) -> None:
        """Raise VidclfError if another row has the same video, or the same segment of it."""
        if before is video:
            return
        if before.label == video.label:
            raise VidclfError(f"{where} names {video.name} again, as {where_before} does. Remove one.")
        raise VidclfError(
            f"{where} gives {video.name} the label {video.class_name}, {where_before} gives it {before.class_name}: a "
            "video has one label. Keep one."
        )

    def _say_crossing(self, videos: Sequence[Video]) -> None:
        groups_of: dict[str, set[tuple[int, str]]] = {}
        for video in videos:
            groups_of.setdefault(video.path.as_posix(), set()).add(video.unit)
        if crossing := [path for path, groups in groups_of.items() if len(groups) > 1]:
            say(
                f"{self.file}: {len(crossing)} file(s) have segments in several groups: {first_five(crossing)}. "
                "A split may separate them, although they come from the same recording."
            )


def _read_csv(file: Path) -> Iterator[tuple[str, Row]]:
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
            yield f"line {reader.line_num}", row
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


def _read_parquet(file: Path) -> Iterator[tuple[str, Row]]:
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
                    yield f"row {line}", {key: _text(file, line, key, cell) for key, cell in cells.items()}
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

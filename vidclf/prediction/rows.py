"""Rows of predictions that outlive their process: a journal while they are made, a table at the end.

Each row is appended at once to `.<name>.journal` beside the table. The table is written from the journal, whole or not
at all, and then the journal is removed. Rows that are there at the start, in the table or in the journal of a process
that was killed, are kept.
"""

import errno
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from vidclf.errors import VidclfError
from vidclf.prediction.tables import OTHERWISE, Row, check_target, columns_for, read_table, write_table
from vidclf.system.disk import check_sole_name, locked, replacing, writing_to
from vidclf.system.terminal import say
from vidclf.system.text import as_utf8, plural

REMEDY = "Free space, or choose another file with to=..."
SYNC_S = 1  # between two times at which the disk is waited for


class Place(NamedTuple):
    """Where in the journal a file's rows are: the first, which gives the order, and the last, which counts."""

    first: int
    last: int
    content: str  # "": the last row is an error


class RowFile:
    """Takes rows while they are made, and writes them as a table when the block ends, however it ends.

    A row has the keys path, start_s, end_s, label, probability, p_<class>, error and content, the file's hash. Missing
    ones are None. A row without start_s is of a whole file, and replaces the earlier one of its path.

    Args:
        to: the table: .csv, .jsonl or .parquet.
        class_names: in label order.
        run: a fingerprint of what determines a label; it is a column, and rows with another one are refused.

    Raises:
        VidclfError: on entering the block, if the file cannot be written, or is not of this run.
    """

    def __init__(self, to: Path, class_names: Sequence[str], run: str) -> None:
        check_target(to)
        self.to, self.run = to, run
        self.columns = columns_for(class_names)
        self._journal = to.with_name(f".{to.name}.journal")
        self._places: dict[str, Place] = {}  # by path
        self._by_content: dict[str, int] = {}  # where a row of a content is, without an error
        self._header = json.dumps([run, *self.columns]).encode() + b"\n"
        self._end = 0  # of the journal
        self._synced = 0.0

    def __enter__(self) -> "RowFile":
        lock = self.to.with_name(f".{self.to.name}.lock")
        busy = f"to={self.to}: another process writes this file. Wait until it ends, or choose another name."
        try:
            lock.touch()
        except OSError as error:
            what = f"no file can be written in {self.to.absolute().parent} ({error.strerror})"
            raise VidclfError(f"to={self.to}: {what}. Choose another folder.") from error
        with ExitStack() as stack:
            stack.enter_context(writing_to(self.to, REMEDY))
            stack.enter_context(locked(lock, busy=busy))
            stack.callback(lock.unlink, missing_ok=True)
            self._begin_journal()
            self._file = os.open(self._journal, os.O_WRONLY | os.O_APPEND)
            stack.callback(os.close, self._file)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._stack:
            try:
                if self._end > len(self._header) or error is None:
                    write_table(self.to, self.columns, self.rows())
                self._journal.unlink()
            except (VidclfError, OSError):
                if error is None:  # otherwise the first error is the one to report; the journal stays
                    raise

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row, which outlives this process from now on."""
        row = {**row, "path": self._key_of(row["path"]), "run": self.run}
        line = self._encode(row)
        with writing_to(self.to, REMEDY):
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._note(row, len(line))
            if (now := time.monotonic()) - self._synced >= SYNC_S:
                os.fsync(self._file)
                self._synced = now

    def has(self, content: str) -> bool:
        """Return whether the label of a file with this content is there; may be called from any thread."""
        return content in self._by_content

    def keep(self, path: str | Path, content: str) -> None:
        """Keep the label of a content that is there as that of the file at `path`."""
        place = self._places.get(self._key_of(path))
        if place is None or place.content != content:
            self.append({**next(self._rows_at([self._by_content[content]])), "path": path})

    def discard(self, path: str | Path) -> None:
        """Leave out the row of a whole file."""
        self._places.pop(self._key_of(path), None)

    def rows(self) -> Iterator[Row]:
        """Yield every row that counts; a file has the place of its first row."""

        def offsets() -> Iterator[int]:
            offset = 0
            with self._journal.open("rb") as file:
                for line in file:
                    row = self._parse(line) if offset else None  # the first line names the columns
                    if row and row["start_s"] is not None:
                        yield offset
                    elif row and (place := self._places.get(row["path"])) and place.first == offset:
                        yield place.last
                    offset += len(line)

        return self._rows_at(offsets())

    def _rows_at(self, offsets: Iterable[int]) -> Iterator[Row]:
        with self._journal.open("rb") as file:
            for offset in offsets:
                file.seek(offset)
                row = self._parse(file.readline())
                assert row is not None
                yield row

    def _begin_journal(self) -> None:
        """Write a new journal with all rows that are in the table and in an older journal, each once."""
        check_sole_name(self.to)
        seen: set[int] = set()
        with replacing(self._journal) as temporary, temporary.open("wb") as file:
            self._end = file.write(self._header)
            for row in chain(self._old_table(), self._old_journal()):
                line = self._encode(row)
                if hash(line) not in seen:  # a journal begins with the rows of its table
                    seen.add(hash(line))
                    self._note(row, file.write(line))

    def _old_table(self) -> Iterator[Row]:
        for row in read_table(self.to, self.columns) if self.to.exists() else ():
            if row["run"] != self.run:
                what = f"its rows are of another run, or of other settings (run {row['run']}, not {self.run})"
                raise VidclfError(f"to={self.to}: {what}. {OTHERWISE}")
            yield row

    def _old_journal(self) -> Iterator[Row]:
        if not self._journal.exists():
            return
        num_damaged = 0
        with self._journal.open("rb") as file:
            if file.readline() != self._header:
                what = f"{self._journal.name}, which a killed process left, is of another run, or of other settings"
                raise VidclfError(f"to={self.to}: {what}. {OTHERWISE}")
            for line in file:
                row = self._parse(line)
                if row is not None:
                    yield row
                num_damaged += row is None and line.endswith(b"\n")  # without it, the line in hand at a kill
        if num_damaged:
            say(f"{self._journal}: {plural(num_damaged, 'row')} cannot be read and will be computed anew.")

    def _parse(self, line: bytes) -> Row | None:
        try:
            return dict(zip(self.columns, json.loads(line), strict=True))
        except (ValueError, TypeError):
            return None

    def _encode(self, row: Mapping[str, Any]) -> bytes:
        cells = (row.get(column) for column in self.columns)
        return json.dumps([None if cell == "" else cell for cell in cells], allow_nan=False).encode() + b"\n"

    def _note(self, row: Mapping[str, Any], num_bytes: int) -> None:
        """Note where a row is that was written at the journal's end."""
        if row.get("start_s") is None:
            path, content = row["path"], "" if row.get("error") else row.get("content") or ""
            first = self._places[path].first if path in self._places else self._end
            self._places[path] = Place(first, self._end, content)
            if content:
                self._by_content[content] = self._end
        self._end += num_bytes

    def _key_of(self, path: str | Path) -> str:
        """Return a path as the table holds it: Parquet has UTF-8 only."""
        return as_utf8(str(path)) if self.to.suffix.lower() == ".parquet" else str(path)

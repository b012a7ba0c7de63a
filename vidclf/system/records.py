"""JSON values by key, in an SQLite file that processes share.

SQLite comes with Python, finds a key without reading the rest, and writes a batch whole or not at all. So the cost of a
value does not grow with their number. Its default journal works wherever the file system locks.
"""

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from vidclf.errors import VidclfError
from vidclf.system.disk import check_sole_name
from vidclf.system.terminal import say

WAIT_S = 60  # for another process that writes


class Records:
    """A cache: a damaged value counts as missing, and a damaged file is written anew.

    Args:
        path: of the file, which is made by the first `put`.
        remedy: what to do where it cannot be written.
        is_valid: value -> whether it has the form of those that were put; the file may come from anyone.
    """

    def __init__(self, path: Path, remedy: str, is_valid: Callable[[Any], bool]) -> None:
        self.path, self.remedy, self.is_valid = path, remedy, is_valid

    def get(self, keys: Iterable[str]) -> Iterator[Any]:
        """Yield the value of each key in order; None where there is none.

        Raises:
            VidclfError: another process has locked the file for too long, or the file is a link.
        """
        self._check_files()
        path = self.path if self.path.is_file() else ":memory:"
        with closing(sqlite3.connect(path, timeout=WAIT_S)) as connection:
            for key in map(_encode, keys):
                try:
                    rows = connection.execute("SELECT value FROM records WHERE key = ?", [key]).fetchall()
                except sqlite3.Error as error:  # no table yet, or a damaged file
                    if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                        raise VidclfError(f"{self.path}: cannot read ({error}). {self.remedy}") from error
                    rows = []
                value = _unpack(key, rows[0][0]) if rows else None
                yield value if self.is_valid(value) else None

    def put(self, values: Mapping[str, Any]) -> None:
        """Write all values or none."""
        self._check_files()
        rows = [(key, _pack(key, value)) for key, value in zip(map(_encode, values), values.values(), strict=True)]
        try:
            self._insert(rows)
        except (sqlite3.Error, OSError) as error:
            raise VidclfError(f"{self.path}: cannot write ({error}). {self.remedy}") from error

    def _insert(self, rows: list[tuple[bytes, bytes]]) -> None:
        try:
            with closing(sqlite3.connect(self.path, timeout=WAIT_S)) as connection, connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS records (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"
                )
                connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?)", rows)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise
            say(f"{self.path}: the file is damaged, and is written anew.")
            self.path.unlink()
            self._insert(rows)

    def _check_files(self) -> None:
        """Raise VidclfError if SQLite would write into a file that another path names too."""
        for suffix in ("", "-journal", "-wal", "-shm"):
            check_sole_name(self.path.with_name(f"{self.path.name}{suffix}"))


def _encode(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")  # names of files may be any bytes


def _pack(key: bytes, value: Any) -> bytes:
    """Return a value as JSON, after the checksum of its key and itself."""
    text = json.dumps(value).encode()
    return zlib.crc32(key + text).to_bytes(4, "big") + text


def _unpack(key: bytes, packed: Any) -> Any:
    """Return the value, or None if it is not as it was packed."""
    if not isinstance(packed, bytes) or zlib.crc32(key + packed[4:]).to_bytes(4, "big") != packed[:4]:
        return None
    try:
        return json.loads(packed[4:])
    except (ValueError, RecursionError):
        return None

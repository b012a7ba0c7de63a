"""Values are read as they were written, by every process, or count as missing."""

import sqlite3
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vidclf.errors import VidclfError
from vidclf.system import records as records_module
from vidclf.system.records import Records


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "records.sqlite", "Do this.", lambda value: value != "odd")


def test_values_are_read_in_the_order_of_their_keys(records: Records):
    assert list(records.get(["a"])) == [None]
    assert not records.path.exists()
    records.put({"a": [1, "x"], "caf\udce9": {"b": None}})
    records.put({"a": 2.5, "c": "d"})
    assert list(records.get(iter(["c", "nowhere", "caf\udce9", "a", "a"]))) == ["d", None, {"b": None}, 2.5, 2.5]


def test_values_of_another_form_are_missing(records: Records):
    records.put({"a": "odd", "b": "even"})
    with sqlite3.connect(records.path) as connection:
        deep = b"[" * 100_000
        packed = zlib.crc32(b"c" + deep).to_bytes(4, "big") + deep
        connection.execute("INSERT INTO records VALUES (?, ?)", [b"c", packed])
    connection.close()
    assert list(records.get(["a", "b", "c"])) == [None, "even", None]


def test_processes_that_write_at_once_lose_nothing(records: Records):
    """Threads stand for processes: each opens the file."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: Records(records.path, "", bool).put({str(number): number}), range(40)))
    assert list(records.get(map(str, range(40)))) == list(range(40))


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda data: b"\xff\xfe" * 5000, lambda _: b"", lambda data: data[:30]],
)
def test_a_damaged_file_is_written_anew(damage: Callable[[bytes], bytes], records: Records):
    values = {str(number): "x" * 100 for number in range(100)}
    records.put(values)
    records.path.write_bytes(damage(records.path.read_bytes()))
    assert not any(records.get(values))
    records.put({"a": 1})
    assert list(records.get(["a", "1"])) == [1, None]


def test_no_changed_byte_changes_a_value(records: Records):
    values = {str(number): [number, "x" * number] for number in range(20)}
    records.put(values)
    whole = records.path.read_bytes()
    num_damaged = 0
    for position in range(0, len(whole), 7):
        records.path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x11]) + whole[position + 1 :])
        read = list(records.get(values))
        assert all(value in (None, expected) for value, expected in zip(read, values.values(), strict=True))
        num_damaged += None in read
    assert num_damaged > 20


def test_a_file_that_cannot_be_written_is_reported(records: Records, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(VidclfError, match=r"nowhere/a\.sqlite: cannot write \(.*\)\. Do this\."):
        Records(records.path.parent / "nowhere" / "a.sqlite", "Do this.", bool).put({"a": 1})
    records.put({"a": 1})
    monkeypatch.setattr(records_module, "WAIT_S", 0.01)
    with sqlite3.connect(records.path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(VidclfError, match=r"cannot write \(database is locked\)"):
            records.put({"a": 2})
        with pytest.raises(VidclfError, match=r"cannot read \(database is locked\)"):
            list(records.get(["a"]))
    other.close()
    assert list(records.get(["a"])) == [1]

"""Rows of predictions outlive their process, and come back byte for byte."""

import csv
import errno
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from vidclf.errors import VidclfError
from vidclf.prediction import rows
from vidclf.prediction.rows import RowFile
from vidclf.prediction.tables import ENDINGS, read_table

pytestmark = pytest.mark.fast

NAMES = ["walk", "run"]
HARD_NAMES = ['two\nlines, a "quote"', "=1+1", "\r", os.fsdecode(b"\xff\xe4.avi"), " blanks ", "ü☃", "\\xff"]


def row_of(path: str, content: str, probability: float = 0.1 + 0.2, **more: Any) -> dict[str, Any]:
    """Return a row as `predict` makes it."""
    probabilities = {"p_walk": probability, "p_run": 1 - probability}
    return {"path": path, "label": "walk", "probability": probability, **probabilities, "content": content, **more}


def failure_of(path: str) -> dict[str, Any]:
    return {"path": path, "error": f"{path}: damaged", "content": ""}


def table_of(to: Path) -> list[dict[str, Any]]:
    """Return the rows of a table, by this package's own reader."""
    return list(read_table(to, RowFile(to, NAMES, "a").columns))


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_come_back_as_they_were_given(ending: str, tmp_path: Path):
    to = tmp_path / f"out{ending}"
    with RowFile(to, NAMES, "a") as file:
        for number, name in enumerate(HARD_NAMES):
            file.append(row_of(name, str(number), probability=1 / (3 + number)))
        file.append(failure_of("broken.avi"))
    found = table_of(to)
    in_utf_8 = [name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name in HARD_NAMES]
    names = in_utf_8 if ending == ".parquet" else HARD_NAMES
    assert [row["path"] for row in found] == [*names, "broken.avi"]
    assert [row["p_walk"] for row in found[:3]] == [1 / 3, 1 / 4, 1 / 5]
    assert found[-1] == {
        **dict.fromkeys(found[0]),
        **{"path": "broken.avi", "error": "broken.avi: damaged", "run": "a"},
    }
    assert os.listdir(tmp_path) == [to.name]


def test_another_csv_reader_finds_the_same_bytes(tmp_path: Path):
    with RowFile(tmp_path / "out.csv", NAMES, "a") as file:
        for number, name in enumerate(HARD_NAMES):
            file.append(row_of(name, str(number)))
    with (tmp_path / "out.csv").open(newline="", encoding="latin-1") as text:
        found = [row["path"].encode("latin-1") for row in csv.DictReader(text)]
    assert found == [os.fsencode(name) for name in HARD_NAMES]


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_of_the_same_run_are_kept_and_a_file_keeps_its_place(ending: str, tmp_path: Path):
    to = tmp_path / f"out{ending}"
    with RowFile(to, NAMES, "a") as file:
        file.append(failure_of("1.avi"))
        file.append(row_of("2.avi", "two"))
        file.append(row_of("3.avi", "three"))
    with RowFile(to, NAMES, "a") as file:
        assert [file.has(content) for content in ("", "one", "two")] == [False, False, True]
        file.append(row_of("1.avi", "one"))
        file.append(row_of("3.avi", "changed"))
        file.keep("2.avi", "two")
        file.keep("copy.avi", "two")
    found = [(row["path"], row["content"], row["error"]) for row in table_of(to)]
    expected = [("1.avi", "one"), ("2.avi", "two"), ("3.avi", "changed"), ("copy.avi", "two")]
    assert found == [(*row, None) for row in expected]


def test_windows_are_appended_and_replace_nothing(tmp_path: Path):
    windows = [row_of("-", "", start_s=float(start), end_s=start + 1.0) for start in range(3)]
    for window in windows:
        with RowFile(tmp_path / "out.csv", NAMES, "a") as file:
            file.append(window)
    assert [row["start_s"] for row in table_of(tmp_path / "out.csv")] == [0, 1, 2]


def label_all(to: Path, contents: dict[str, str]) -> list[str]:
    """Do what `predict` does with files of these contents, of which "" is damaged; return what was computed."""
    computed = []
    with RowFile(to, NAMES, "a") as file:
        for path, content in contents.items():
            if content and file.has(content):
                file.keep(path, content)
                continue
            computed.append(path)
            file.append(row_of(path, content, probability=len(path) / 7) if content else failure_of(path))
    return computed


CONTENTS = {"1.avi": "one", "2\n.avi": "", "3.avi": "three", "copy.avi": "one", "4.avi": "four"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_killed_after_any_byte_the_table_becomes_that_of_an_undisturbed_process(ending: str, tmp_path: Path):
    undisturbed, killed = tmp_path / f"whole{ending}", tmp_path / f"killed{ending}"
    assert label_all(undisturbed, CONTENTS) == ["1.avi", "2\n.avi", "3.avi", "4.avi"]
    with RowFile(killed, NAMES, "a") as file:
        for row in table_of(undisturbed):
            file.append(row)
        journal = (tmp_path / f".killed{ending}.journal").read_bytes()
    ends = [0, *(number + 1 for number, byte in enumerate(journal) if byte == ord("\n"))]  # of lines
    for cut in range(ends[1], len(journal) + 1):
        killed.unlink()
        (tmp_path / f".killed{ending}.journal").write_bytes(journal[:cut])
        num_whole = sum(end <= cut for end in ends) - 2
        computed = label_all(killed, CONTENTS)
        assert table_of(killed) == table_of(undisturbed)
        kept = [path for path, content in list(CONTENTS.items())[:num_whole] if content]
        assert not {*computed} & {*kept}
    assert {*os.listdir(tmp_path)} == {undisturbed.name, killed.name}


def test_killed_between_table_and_journal_nothing_is_there_twice(tmp_path: Path):
    to, journal = tmp_path / "out.csv", tmp_path / ".out.csv.journal"
    windows = [row_of("-", "", start_s=float(start), end_s=start + 1.0) for start in range(3)]
    with RowFile(to, NAMES, "a") as file:
        for row in (*windows, row_of("1.avi", "one")):
            file.append(row)
        left = journal.read_bytes()
    before = table_of(to)
    journal.write_bytes(left)
    assert label_all(to, {"1.avi": "one"}) == []
    assert table_of(to) == before


def test_an_error_in_the_block_keeps_the_rows_before_it(tmp_path: Path):
    with suppress(KeyboardInterrupt), RowFile(tmp_path / "out.csv", NAMES, "a") as file:
        file.append(row_of("1.avi", "one"))
        raise KeyboardInterrupt
    assert [row["path"] for row in table_of(tmp_path / "out.csv")] == ["1.avi"]
    with pytest.raises(ValueError, match="first"), RowFile(tmp_path / "none.csv", NAMES, "a"):
        raise ValueError("first")
    assert os.listdir(tmp_path) == ["out.csv"]


def test_a_full_disk_is_a_sentence_and_the_rows_before_it_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    to, write = tmp_path / "out.csv", os.write

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(to: Path) -> None:
        with RowFile(to, NAMES, "a") as file:
            file.append(row_of("1.avi", "one"))
            monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:5]))
            monkeypatch.setattr(rows, "write_table", refuse)
            file.append(row_of("2.avi", "two"))

    with pytest.raises(VidclfError, match=r"out\.csv: cannot write \(No space left on device\)"):
        fill(to)
    monkeypatch.undo()
    assert label_all(to, {"1.avi": "one", "2.avi": "two"}) == ["2.avi"]


def test_a_damaged_row_of_the_journal_is_reported_and_computed_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    journal = tmp_path / ".out.csv.journal"
    with RowFile(tmp_path / "out.csv", NAMES, "a") as file:
        for number in "123":
            file.append(row_of(number, number))
        left = journal.read_bytes().splitlines(keepends=True)
    (tmp_path / "out.csv").unlink()
    journal.write_bytes(b"".join([*left[:2], bytes(20) + b"\n", left[3]]))
    assert label_all(tmp_path / "out.csv", {number: number for number in "123"}) == ["2"]
    assert ".out.csv.journal: 1 row cannot be read and will be computed anew." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("out.txt", None, "out.txt: the name must end in .csv, .jsonl, .parquet."),
        ("none/out.csv", None, "none/out.csv: there is no folder "),
        ("out.csv", "", "out.csv: it is no table of predictions. Choose another name or delete it."),
        ("out.csv", "path,label\n", "out.csv: it is no table of predictions."),
        ("out.jsonl", "12\n", "out.jsonl: it is no table of predictions, or damaged"),
        ("out.jsonl", "{", "out.jsonl: it is no table of predictions, or damaged"),
        ("out.parquet", "path", "out.parquet: it is no table of predictions, or damaged"),
        ("out.csv/x", "", "out.csv: is a link, or another kind of file"),
    ],
)
def test_a_file_that_is_not_ours_is_left_alone(name: str, content: str | None, message: str, tmp_path: Path):
    to = tmp_path / name
    if content is not None:
        to.parent.mkdir(exist_ok=True)
        to.write_text(content)
    to = to.parent if name.endswith("/x") else to
    with pytest.raises(VidclfError, match=re.escape(message)):
        RowFile(to, NAMES, "a").__enter__()
    if content is not None:
        assert (tmp_path / name).read_text() == content
        assert len(os.listdir((tmp_path / name).parent)) == 1


def test_a_table_of_another_run_is_left_alone(tmp_path: Path):
    to = tmp_path / "out.csv"
    label_all(to, CONTENTS)
    before = to.read_bytes()
    with pytest.raises(
        VidclfError, match=r"out\.csv: its rows are of another run, or of other settings \(run a, not b\)"
    ):
        RowFile(to, NAMES, "b").__enter__()
    with pytest.raises(VidclfError, match=r"out\.csv: its rows are of another run, with other classes"):
        RowFile(to, ["walk", "sit"], "a").__enter__()
    assert to.read_bytes() == before
    assert os.listdir(tmp_path) == ["out.csv"]


def test_what_a_killed_process_of_another_run_left_is_named(tmp_path: Path):
    with RowFile(tmp_path / "out.csv", NAMES, "a") as file:
        file.append(row_of("1.avi", "one"))
        left = (tmp_path / ".out.csv.journal").read_bytes()
    (tmp_path / "out.csv").unlink()
    (tmp_path / ".out.csv.journal").write_bytes(left)
    for names, run in ((NAMES, "b"), (["sit"], "a")):
        with pytest.raises(VidclfError, match=r"out\.csv: \.out\.csv\.journal, which a killed process left"):
            RowFile(tmp_path / "out.csv", names, run).__enter__()
    assert (tmp_path / ".out.csv.journal").read_bytes() == left


def test_a_second_process_is_refused(tmp_path: Path):
    to = tmp_path / "out.csv"
    with RowFile(to, NAMES, "a") as file:
        with pytest.raises(VidclfError, match=r"to=.*out\.csv: another process writes this file\. Wait"):
            RowFile(to, NAMES, "a").__enter__()
        file.append(row_of("1.avi", "one"))
    assert len(table_of(to)) == 1


def test_a_folder_that_cannot_be_written_is_a_sentence():
    with pytest.raises(VidclfError, match=r"to=/proc/out\.csv: no file can be written in /proc \(No such file"):
        RowFile(Path("/proc/out.csv"), NAMES, "a").__enter__()

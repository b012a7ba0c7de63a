"""What `source=` names: files, folders, globs, tables, lists."""

import io
import os
import re
import sys
from pathlib import Path

import pytest

from vidclf.errors import VidclfError
from vidclf.prediction.sources import find_files
from vidclf.run.words import name_words, prepare_arguments

HARD_NAMES = ("a,b.mp4", "two\nlines.mp4", '"quoted".mp4', "=1+1.mp4", os.fsdecode(b"\xff\xe4.mp4"), "[x].mp4")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with files, some of them with the names of videos; none is opened."""
    for name in ("a.mp4", "B.AVI", "notes.txt", "deep/c.mkv", "deep/er/d.mp4", ".hidden.mp4", *HARD_NAMES):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*sources: str, are_lists: bool = False) -> list[str]:
    return [str(path) for path in find_files(sources, are_lists)]


def test_files_are_taken_as_they_are_each_once_in_order(folder: Path):
    assert names("deep/c.mkv", "missing.mp4", "notes.txt", "./a.mp4", "a.mp4", "[x].mp4") == [
        *("deep/c.mkv", "missing.mp4", "notes.txt", "a.mp4", "[x].mp4"),
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.mkv", None),
        ("deep/*", ["deep/c.mkv"]),
        ("**/*.mkv", ["deep/c.mkv"]),
        ("deep/**", ["deep/c.mkv", "deep/er/d.mp4"]),
        ("?.mp4", ["a.mp4"]),
        ("[ab].*", ["a.mp4"]),
    ],
)
def test_a_glob_matches_videos_sorted(pattern: str, expected: list[str] | None, folder: Path):
    if expected is not None:
        assert names(pattern) == expected
        return
    with pytest.raises(VidclfError, match=re.escape(f"source={pattern}: it matches no file. Quote it, and check")):
        names(pattern)


def test_a_glob_that_matches_other_files_says_so(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert "B.AVI" in names("*")
    assert "*: 1 file(s) are ignored, because their endings are not those of videos: notes.txt." in (
        capsys.readouterr().err
    )
    with pytest.raises(VidclfError, match=r"source=n\*: it matches only notes\.txt, no video"):
        names("n*")


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_a_list_has_a_path_a_line_or_between_zeros(separator: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch):
    written = [name for name in HARD_NAMES if separator == b"\0" or "\n" not in name] + ["missing.mp4"]
    content = separator.join([*map(os.fsencode, written), b""])
    Path("list.txt").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    for found in (names("@list.txt"), names("list.txt", are_lists=True), names("-", are_lists=True)):
        assert found == written


def test_a_list_of_powershell_is_read(folder: Path):
    Path("list.txt").write_text("a.mp4\nü.mp4\n", encoding="utf-16")
    assert names("@list.txt") == ["a.mp4", "ü.mp4"]
    Path("list.txt").write_text("a.mp4\n", encoding="utf-8-sig")
    assert names("@list.txt") == ["a.mp4"]


@pytest.mark.parametrize(("content", "message"), [(None, "cannot be read (No such file"), ("\n\n", "names no file")])
def test_a_list_without_files_is_an_error(content: str | None, message: str, folder: Path):
    if content is not None:
        Path("list.txt").write_text(content)
    with pytest.raises(VidclfError, match=re.escape(f"source: the list list.txt {message}")):
        names("@list.txt")


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_the_paths_of_a_table_are_relative_to_its_folder(ending: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    written = ["c.mkv", "er\\d.mp4", "c.mkv", str(folder / "a.mp4"), "missing.mp4"]
    table = folder / "deep" / f"table{ending}"
    if ending == ".csv":
        table.write_text("".join(f"{cell};x;1,5\n" for cell in ("Path", *written)).replace("x;1,5", "label;start_s", 1))
    else:
        from pyarrow import table as make_table
        from pyarrow.parquet import write_table

        write_table(make_table({"path": written, "label": ["x"] * 5, "start_s": [1.5] * 5}), table)
    expected = ["deep/c.mkv", "deep/er/d.mp4", str(folder / "a.mp4"), "deep/missing.mp4"]
    assert names(f"deep/table{ending}") == expected
    assert "a file has one label here, so its columns start_s are not used." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.mp4,x\n", "table.csv: it has no column path."),
        ("path,label\na.mp4,x\n,y\n", "source=table.csv: in line 3 the path is empty. Fill it, or remove the row."),
        ("path,label\n", "source=table.csv: it has no rows. Add one for each video."),
    ],
)
def test_a_table_without_paths_is_an_error(text: str, message: str, folder: Path):
    Path("table.csv").write_text(text)
    with pytest.raises(VidclfError, match=re.escape(message)):
        names("table.csv")


def test_words_that_stand_alone_are_sources(folder: Path):
    typed = name_words("predict", ["run=x", "a.mp4", *HARD_NAMES, "-", "b", "--cfg", "job", "head=mlp", "to=out.csv"])
    assert typed == [
        *("run=x", "source=a.mp4", *(f"source={name}" for name in HARD_NAMES), "source=-", "source=b"),
        *("--cfg", "job"),
        *("head=mlp", "to=out.csv"),
    ]
    (override,) = (word for word in prepare_arguments("predict", typed) if word.startswith("source="))
    assert override.startswith("source=['a.mp4','a,b.mp4',")
    assert "source='a.mp4'" in prepare_arguments("predict", ["run=x", "source=a.mp4"])


def test_a_file_whose_name_looks_like_a_setting_is_a_source_if_it_exists(folder: Path):
    Path("seed=1").touch()
    assert name_words("predict", ["seed=1", "seed=2"]) == ["source=seed=1", "seed=2"]

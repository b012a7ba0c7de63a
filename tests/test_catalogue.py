"""What is known of a video file is its own, remembered, and read again when the file changes."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from doubles import halve
from videos import encode_video

from vidclf.contracts import VideoError
from vidclf.data import catalogue as facts
from vidclf.data.catalogue import FactBook
from vidclf.data.decoding import VideoInfo, probe


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [encode_video(tmp_path / f"{number}.avi", num_frames=5 + number, seed=number) for number in range(4)]


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return tmp_path / "store" / "videos.json"


@pytest.fixture
def examined(book: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read."""
    book.parent.mkdir()
    names = []

    def probe_and_note(path: Path) -> VideoInfo:
        names.append(path.name)
        return probe(path)

    monkeypatch.setattr(facts, "probe", probe_and_note)
    return names


def test_facts_are_the_files_hash_and_what_the_container_says(clips: list[Path], book: Path, examined: list[str]):
    known = FactBook(book).look_up(clips)
    assert [fact.content for fact in known] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in clips]
    assert [fact.info for fact in known] == [VideoInfo(5 + number, 25.0, 64, 48) for number in range(4)]


def test_a_file_is_read_once_by_all_runs(clips: list[Path], book: Path, examined: list[str]):
    first = FactBook(book).look_up(clips[:3])
    assert sorted(examined) == ["0.avi", "1.avi", "2.avi"]
    assert FactBook(book).look_up([*clips[1:], clips[0]])[-1] == first[0]
    assert examined[3:] == ["3.avi"]


def test_a_changed_file_is_read_again(clips: list[Path], book: Path, examined: list[str]):
    FactBook(book).look_up(clips)
    examined.clear()
    before = clips[1].stat()
    shutil.copyfile(clips[2], clips[1])  # another size
    os.utime(clips[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(clips[3], ns=(0, 0))  # another time alone
    known = FactBook(book).look_up(clips)
    assert sorted(examined) == ["1.avi", "3.avi"]
    assert known[1] == known[2]


def test_a_damaged_file_is_told_in_its_place_and_read_again(clips: list[Path], book: Path, examined: list[str]):
    halve(clips[1])
    (clips[0].parent / "text.avi").write_text("no video")
    paths = [clips[0], clips[1], clips[0].parent / "text.avi", clips[0].parent / "gone.avi", clips[2]]
    for _ in range(2):
        known = FactBook(book).look_up(paths)
        assert [isinstance(fact, VideoError) for fact in known] == [False, True, True, True, False]
        for path, fact in zip(paths[1:4], known[1:4], strict=True):
            assert str(path) in str(fact)
    assert examined.count("1.avi") == 2
    encode_video(clips[1], num_frames=9)
    assert FactBook(book).look_up(paths)[1].info.num_frames == 9


@pytest.mark.parametrize(
    "spoil", [lambda data: data[: len(data) // 2], lambda data: b"\xff\xfe\xfa" * 50, lambda _: b""]
)
def test_a_book_that_cannot_be_read_is_written_anew(
    spoil: Callable[[bytes], bytes], clips: list[Path], book: Path, examined: list[str]
):
    expected = FactBook(book).look_up(clips)
    book.write_bytes(spoil(book.read_bytes()))
    assert FactBook(book).look_up(clips) == expected
    assert len(examined) == 8
    assert FactBook(book).look_up(clips) == expected
    assert len(examined) == 8


def test_two_runs_at_once_lose_nothing(clips: list[Path], book: Path, examined: list[str]):
    one, other = FactBook(book), FactBook(book)  # both have read an empty book
    one.look_up(clips[:2])
    other.look_up(clips[2:])
    examined.clear()
    FactBook(book).look_up(clips)
    assert examined == []


def test_a_killed_run_keeps_what_it_has_saved(
    clips: list[Path], book: Path, examined: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(facts, "SAVE_EVERY", 1)

    def track_until_killed(items, *_: object):
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(facts, "track", track_until_killed)
        with pytest.raises(KeyboardInterrupt):
            FactBook(book).look_up(clips, num_threads=1)
    examined.clear()
    FactBook(book).look_up(clips)
    assert sorted(examined) == ["2.avi", "3.avi"]


def test_a_name_that_is_no_text_is_remembered(clips: list[Path], book: Path, examined: list[str]):
    odd = clips[0].rename(os.fsdecode(os.fsencode(clips[0].parent) + b"/\xe4 = 'a, b'.avi"))
    expected = FactBook(book).look_up([odd])
    assert FactBook(book).look_up([odd]) == expected
    assert len(examined) == 1

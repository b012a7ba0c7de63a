"""The catalogue remembers the facts of a video by its content, and looks again when the file changes."""

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import pytest
from doubles import halve, spoil
from videos import encode_video

from vidclf.data import catalogue
from vidclf.data.catalogue import Catalogue
from vidclf.data.decoding import VideoInfo, inspect
from vidclf.errors import VideoError


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [encode_video(tmp_path / f"{number}.avi", num_frames=5 + number, seed=number) for number in range(4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded, not only hashed."""
    names = []

    def inspect_and_note(path: Path) -> VideoInfo:
        names.append(path.name)
        return inspect(path)

    monkeypatch.setattr(catalogue, "inspect", inspect_and_note)
    return names


def test_facts_are_the_files_hash_and_what_decodes(clips: list[Path], folder: Path):
    known = Catalogue(folder).look_up([*clips, clips[0]])
    assert [fact.content for fact in known[:4]] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in clips]
    assert [fact.info for fact in known] == [VideoInfo(5 + number, 25.0, 64, 48) for number in (0, 1, 2, 3, 0)]


def test_a_file_is_decoded_once_by_all_runs(clips: list[Path], folder: Path, decoded: list[str]):
    first = Catalogue(folder).look_up(clips[:3])
    assert sorted(decoded) == ["0.avi", "1.avi", "2.avi"]
    assert Catalogue(folder).look_up([*clips[1:], clips[0]])[-1] == first[0]
    assert decoded[3:] == ["3.avi"]


def test_a_changed_file_is_examined_again(clips: list[Path], folder: Path, decoded: list[str]):
    Catalogue(folder).look_up(clips)
    decoded.clear()
    before = [path.stat() for path in clips]
    encode_video(clips[1], num_frames=9)  # another size
    os.utime(clips[1], ns=(before[1].st_atime_ns, before[1].st_mtime_ns))
    data = bytearray(clips[2].read_bytes())
    data[data.index(b"LIST") - 1] ^= 1  # the same size, another time
    clips[2].write_bytes(data)
    os.utime(clips[2], ns=(0, 0))
    known = Catalogue(folder).look_up(clips)
    assert sorted(decoded) == ["1.avi", "2.avi"]
    assert known[1].info.num_frames == 9


def test_a_moved_copied_or_touched_file_is_only_hashed(clips: list[Path], folder: Path, decoded: list[str]):
    spoil(clips[1])
    known = Catalogue(folder).look_up(clips)
    decoded.clear()
    os.utime(clips[0], ns=(0, 0))
    moved, copy = clips[1].rename(folder / "moved.avi"), Path(shutil.copy(clips[2], folder / "copy.avi"))
    again = Catalogue(folder).look_up([clips[0], moved, copy])
    assert decoded == []
    assert (again[0], again[2]) == (known[0], known[2])
    assert str(again[1]) == str(known[1]).replace(str(clips[1]), str(moved))


def test_a_damaged_file_is_reported_in_order_and_not_decoded_again(clips: list[Path], folder: Path, decoded: list[str]):
    halve(clips[1])
    text, gone, pipe = (clips[0].with_name(name) for name in ("text.avi", "gone.avi", "pipe.avi"))
    text.write_text("no video")
    os.mkfifo(pipe)
    paths = [clips[0], clips[1], text, gone, pipe, clips[2]]
    for _ in range(2):
        known = Catalogue(folder).look_up(paths)
        assert [isinstance(fact, VideoError) for fact in known] == [False, True, True, True, True, False]
        reasons = ("damaged", "no video", "No such file", "a pipe")
        for path, fact, said in zip(paths[1:5], known[1:5], reasons, strict=True):
            assert str(fact).startswith(f"{path}: ")
            assert said in str(fact)
    assert sorted(decoded) == ["0.avi", "1.avi", "2.avi", "text.avi"]
    encode_video(gone, num_frames=7)
    encode_video(clips[1], num_frames=9)
    assert [fact.info.num_frames for fact in Catalogue(folder).look_up([gone, clips[1]])] == [7, 9]


NO_FAULT_OF_THE_FILE = [OSError(24, "Too many open files"), MemoryError("no room")]


@pytest.mark.parametrize(
    ("error", "is_video_error", "remembered"),
    [
        *((error, is_video_error, False) for error in NO_FAULT_OF_THE_FILE for is_video_error in (False, True)),
        (RuntimeError("a mistake of ours"), False, False),
        (av.error.OSError(5, "FFmpeg ends early"), True, True),
    ],
)
def test_errors_of_the_machine_are_reported_and_not_stored(
    error: Exception,
    is_video_error: bool,
    remembered: bool,
    clips: list[Path],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    def fail(path: Path) -> VideoInfo:
        if is_video_error:  # as decoding reports it
            raise VideoError(f"{path}: {error}") from error
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "inspect", fail)
        (fact,) = Catalogue(folder).look_up(clips[:1])
        assert str(fact).startswith(f"{clips[0]}: ")
        assert str(error) in str(fact)
    assert isinstance(Catalogue(folder).look_up(clips[:1])[0], VideoError) == remembered


@pytest.mark.parametrize("changed", ["FORMAT", "av.__version__"])
def test_facts_of_another_version_are_not_used(
    changed: str, clips: list[Path], folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
):
    (folder / "videos.json").write_text("[]")  # the first version's
    Catalogue(folder).look_up(clips)
    monkeypatch.setattr(f"vidclf.data.catalogue.{changed}", "99")
    decoded.clear()
    assert [fact.info.num_frames for fact in Catalogue(folder).look_up(clips)] == [5, 6, 7, 8]
    assert len(decoded) == 4


@pytest.mark.parametrize(
    "spoil_it", [lambda data: data[: len(data) // 2], lambda data: b"\xff\xfe\xfa" * 50, lambda _: b""]
)
def test_an_unreadable_catalogue_is_written_again(
    spoil_it: Callable[[bytes], bytes], clips: list[Path], folder: Path, decoded: list[str]
):
    expected = Catalogue(folder).look_up(clips)
    (book,) = folder.glob("*.sqlite")
    book.write_bytes(spoil_it(book.read_bytes()))
    assert Catalogue(folder).look_up(clips) == expected
    assert len(decoded) == 8
    assert Catalogue(folder).look_up(clips) == expected
    assert len(decoded) == 8


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: [1],
        lambda facts: {},
        lambda facts: facts | {"shown_from": None},
        lambda facts: facts | {"num_frames": "4"},
        lambda facts: facts | {"num_frames": 2**70},
        lambda facts: facts | {"fps": -1},
        lambda facts: facts | {"more": 1},
    ],
)
def test_facts_of_another_form_are_examined_again(change: Callable, clips: list[Path], folder: Path):
    """A catalogue may come from anyone, with right checksums."""
    facts = Catalogue(folder).look_up(clips[:1])
    records = Catalogue(folder).records
    records.put({facts[0].content: change(next(records.get([facts[0].content])))})
    assert Catalogue(folder).look_up(clips[:1]) == facts
    records.put({os.path.abspath(clips[0]): change({})})
    assert Catalogue(folder).look_up(clips[:1]) == facts


def test_a_killed_run_keeps_the_facts_that_it_saved(
    clips: list[Path], folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(catalogue, "SAVE_EVERY", 1)

    def track_until_killed(items, *_: object):
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "track", track_until_killed)
        with pytest.raises(KeyboardInterrupt):
            Catalogue(folder).look_up(clips, num_threads=1)
    decoded.clear()
    Catalogue(folder).look_up(clips)
    assert decoded == ["3.avi"]


def test_facts_of_earlier_versions_are_taken_over(clips: list[Path], folder: Path, decoded: list[str]):
    halve(clips[1])
    expected = Catalogue(folder).look_up(clips[:3])
    (book,) = folder.glob("*.sqlite")
    files, contents = {}, {}
    for path in clips[:3]:
        status, content = path.stat(), hashlib.sha256(path.read_bytes()).hexdigest()
        files[str(path)] = [status.st_size, status.st_mtime_ns, content]
        (contents[content],) = Catalogue(folder).records.get([content])
    decoded.clear()
    book.unlink()
    book.with_suffix(".json").write_text(json.dumps({"files": files, "contents": contents}))
    assert list(map(str, Catalogue(folder).look_up(clips)))[:3] == list(map(str, expected))
    assert decoded == ["3.avi"]
    book.unlink()
    book.with_suffix(".json").write_text(json.dumps({"files": files, "contents": {**contents, "c": {"fps": 25}}}))
    assert list(map(str, Catalogue(folder).look_up(clips)))[:3] == list(map(str, expected))


def test_a_file_that_is_replaced_while_it_is_examined_is_not_stored(
    clips: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def replace_and_inspect(path: Path) -> VideoInfo:
        status = path.stat()
        path.with_suffix(".new").write_bytes(clips[3].read_bytes()[: status.st_size].ljust(status.st_size, b"0"))
        os.utime(path.with_suffix(".new"), ns=(status.st_atime_ns, status.st_mtime_ns))  # the same size and time
        path.with_suffix(".new").replace(path)
        return VideoInfo(99, 25.0, 64, 48)

    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "inspect", replace_and_inspect)
        (fact,) = Catalogue(folder).look_up(clips[:1])
    assert re.search(r"0\.avi: the file changed while it was read", str(fact))
    Catalogue(folder).look_up(clips[:1])
    (entry,) = Catalogue(folder).records.get([str(clips[0])])
    assert entry[2] == hashlib.sha256(clips[0].read_bytes()).hexdigest()


def test_a_name_that_is_not_utf_8_is_stored(clips: list[Path], folder: Path, decoded: list[str]):
    odd = clips[0].rename(os.fsdecode(os.fsencode(clips[0].parent) + b"/\xe4 = 'a, b'.avi"))
    expected = Catalogue(folder).look_up([odd])
    assert Catalogue(folder).look_up([odd]) == expected
    assert len(decoded) == 1


# Several at once


def test_a_process_with_the_same_files_waits_and_says_so_and_one_with_different_files_does_not(
    clips: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Threads stand for processes: to a lock they are the same."""
    decoded, said, waited = [], [], threading.Event()

    def inspect_when_waited_for(path: Path) -> VideoInfo:
        decoded.append(path.name)
        assert path not in clips[:2] or waited.wait(10)
        return inspect(path)

    monkeypatch.setattr(catalogue, "inspect", inspect_when_waited_for)
    monkeypatch.setattr("vidclf.system.disk.say", lambda sentence: (said.append(sentence), waited.set()))
    with ThreadPoolExecutor(2) as pool:
        same = [pool.submit(Catalogue(folder).look_up, paths) for paths in (clips[:2], clips[1::-1])]
        others = Catalogue(folder).look_up(clips[2:])  # not held up
        assert [fact.info.num_frames for fact in others] == [7, 8]
        assert same[0].result() == same[1].result()[::-1]
    assert said == ["Another process is examining the same videos; waiting for it."]
    assert sorted(decoded) == ["0.avi", "1.avi", "2.avi", "3.avi"]
    decoded.clear()
    assert len(Catalogue(folder).look_up(clips)) == 4  # of what was saved at once, nothing is lost
    assert decoded == []
    assert not list(folder.glob(".*.lock"))


def test_ranks_share_the_files_and_all_return_all_facts(
    clips: list[Path], folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
):
    rank, met, gathered = threading.local(), threading.Barrier(2, timeout=10), {}

    def gather(value: dict) -> list[dict]:
        assert met.wait() in (0, 1)  # a lock that is held here would keep the other from coming
        gathered[rank.number] = value
        met.wait()
        return [gathered[0], gathered[1]]

    monkeypatch.setattr(catalogue, "rank_and_size", lambda: (rank.number, 2))
    monkeypatch.setattr(catalogue, "gather", gather)
    halve(clips[3])

    def look_up(number: int) -> list:
        rank.number = number
        return Catalogue(folder).look_up(clips)

    for _ in range(2):
        with ThreadPoolExecutor(2) as pool:
            one, other = pool.map(look_up, range(2))
        assert [str(fact) for fact in one] == [str(fact) for fact in other]
        assert [fact.info.num_frames for fact in one[:3]] == [5, 6, 7]
        assert list(gathered[0]) == clips[::2]
        assert list(gathered[1]) == clips[1::2]
    assert sorted(decoded) == ["0.avi", "1.avi", "2.avi", "3.avi"]

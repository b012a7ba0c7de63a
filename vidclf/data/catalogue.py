"""Facts about video files: the hash of the content, and what decoding the whole file shows.

Facts are stored by content, so a file that was moved or copied is only hashed, and a damaged one is not decoded again.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av

from vidclf.data.decoding import VideoInfo, errors_name_video, inspect
from vidclf.data.opening import check_regular
from vidclf.data.prefetch import run_ahead
from vidclf.errors import VideoError
from vidclf.system.disk import locked, write_atomically
from vidclf.system.ranks import gather, rank_and_size
from vidclf.system.terminal import track

FORMAT = 5  # raise it when the facts or their JSON change
SAVE_EVERY = 500  # files: a killed run repeats no more than these

Stamp = tuple[int, int]  # a file's size in bytes and its modification time in ns
Entry = dict | str  # the VideoInfo of a content, or what is wrong with it, without the path


@dataclass(frozen=True)
class VideoFacts:
    """`content` is the file's sha256 in hex; `info` is the result of `inspect`."""

    content: str
    info: VideoInfo


class Catalogue:
    """The facts of all files seen so far, in a JSON file in `folder` that runs share.

    Each format and each version of PyAV has a separate file: another version may detect other damage.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"videos-{FORMAT}-av{av.__version__}.json"
        self.files: dict[str, list] = {}  # path -> size, modification time, content
        self.contents: dict[str, Entry] = {}

    def look_up(self, paths: Sequence[Path], num_threads: int = 2) -> list[VideoFacts | VideoError]:
        """Return the facts of each file, or its error, in order; unknown files are decoded.

        Distributed processes share the files among them, and all return all facts.
        """
        rank, size = rank_and_size()
        local_facts = self._look_up(list(dict.fromkeys(paths))[rank::size], num_threads)
        facts = {path: fact for facts_of_rank in gather(local_facts) for path, fact in facts_of_rank.items()}
        return [facts[path] for path in paths]

    def _look_up(self, paths: Sequence[Path], num_threads: int) -> dict[Path, VideoFacts | VideoError]:
        self._read()
        stamps = {path: _stamp(path) for path in paths}
        failed: dict[Path, VideoError] = {}
        if self._unknown(stamps):
            with self._lock_out_others(paths):
                self._read()  # another process may have added facts meanwhile
                failed = self._examine(self._unknown(stamps), num_threads)
        return {path: failed.get(path) or self._facts_of(path) for path in paths}

    def _unknown(self, stamps: Mapping[Path, Stamp | None]) -> list[Path]:
        """Return the files that are new, changed or missing."""
        entries = ((path, stamp, self.files.get(os.path.abspath(path))) for path, stamp in stamps.items())
        return [path for path, stamp, entry in entries if entry is None or tuple(entry[:2]) != stamp]

    def _examine(self, paths: Sequence[Path], num_threads: int) -> dict[Path, VideoError]:
        """Examine files, store their facts, and return the errors of files that could not be read this time."""
        failed: dict[Path, VideoError] = {}
        new: dict[str, list] = {}
        results = track(run_ahead(self._examine_file, paths, num_threads), len(paths), "Examining", "videos")
        for count, (path, result) in enumerate(results, start=1):
            if isinstance(result, VideoError):
                failed[path] = result
            else:
                stamp, content, self.contents[content] = result
                new[os.path.abspath(path)] = [*stamp, content]
            if count % SAVE_EVERY == 0 or count == len(paths):
                self._save(new)
        return failed

    def _examine_file(self, path: Path) -> Iterator[tuple[Stamp, str, Entry] | VideoError]:
        try:
            with errors_name_video(path):
                stamp, content = _stamp_and_content(path)
                yield stamp, content, self.contents.get(content) or _decode(path)
        except VideoError as error:
            yield error

    def _facts_of(self, path: Path) -> VideoFacts | VideoError:
        content = self.files[os.path.abspath(path)][-1]
        entry = self.contents[content]
        if isinstance(entry, str):
            return VideoError(f"{path}: {entry}")
        return VideoFacts(content, VideoInfo(**{**entry, "shown_from": tuple(entry["shown_from"])}))

    @contextmanager
    def _lock_out_others(self, paths: Iterable[Path]) -> Iterator[None]:
        """Keep other processes from examining the same files; processes with other files do not wait."""
        names = "\0".join(sorted(map(os.path.abspath, paths)))
        digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        path = self.path.with_name(f".{self.path.name}.{digest}.lock")
        with locked(path, "Another process is examining the same videos; waiting for it."):
            yield
            path.unlink(missing_ok=True)

    def _save(self, new: Mapping[str, list]) -> None:
        """Add to what is on disk by now, so that two runs at once lose nothing."""
        with locked(self.path.with_name(f"{self.path.name}.lock")):
            self._read()
            self.files |= new
            write_atomically(self.path, json.dumps({"files": self.files, "contents": self.contents}).encode())

    def _read(self) -> None:
        """Read the facts that other runs have stored."""
        try:
            on_disk = json.loads(self.path.read_bytes())
        except (FileNotFoundError, ValueError):  # not JSON, or not even text
            return
        self.files |= on_disk["files"]
        self.contents |= on_disk["contents"]


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _stamp_and_content(path: Path) -> tuple[Stamp, str]:
    try:
        check_regular(path)
        status = path.stat()  # before reading: a file that changes meanwhile is then read again
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise VideoError(f"{path}: the file cannot be read ({error.strerror}). Give a video file.") from error
    return (status.st_size, status.st_mtime_ns), content


def _decode(path: Path) -> Entry:
    """Return the entry to store for a file.

    Raises:
        VideoError: memory or the disk failed, not the file: the next run may succeed.
    """
    try:
        return dataclasses.asdict(inspect(path))
    except VideoError as error:
        cause = error.__cause__
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and not isinstance(cause, av.FFmpegError)):
            raise
        return str(error).removeprefix(f"{path}: ")

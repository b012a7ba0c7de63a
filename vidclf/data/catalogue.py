"""What is known of each video file before a frame is decoded: its content's hash and its VideoInfo.

Both need the whole file read, so they are remembered by path, size and time of change.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from vidclf.contracts import VideoError
from vidclf.data.decoding import VideoInfo, probe
from vidclf.data.prefetch import run_ahead
from vidclf.system.disk import write_atomically
from vidclf.system.terminal import track

Stamp = tuple[int, int]  # a file's size in bytes, and when it was changed in ns

SAVE_EVERY = 500  # files; a killed run repeats at most as many


@dataclass(frozen=True)
class VideoFacts:
    """`content` is the file's sha256, in hex; `info` what `probe` says of it."""

    content: str
    info: VideoInfo


class FactBook:
    """The facts of every file seen so far, kept in one JSON file that runs share."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, list] = self._read()

    def look_up(self, paths: Sequence[Path], num_threads: int = 2) -> list[VideoFacts | VideoError]:
        """Return the facts of each file, or what is wrong with it, in order; new files are read."""
        stamps = [_stamp(path) for path in paths]
        broken: dict[Path, VideoError] = {}
        if self._unknown(paths, stamps):
            with FileLock(f"{self.path}.examining"):  # whoever comes second reads what the first has found
                self.entries |= self._read()
                broken = self._examine_all(self._unknown(paths, stamps), num_threads)
        return [broken.get(path) or self._fact(path) for path in paths]

    def _unknown(self, paths: Sequence[Path], stamps: Sequence[Stamp | None]) -> list[tuple[Path, Stamp | None]]:
        return [
            (path, stamp)
            for path, stamp in zip(paths, stamps, strict=True)
            if stamp is None or self._known(path, stamp) is None
        ]

    def _examine_all(self, new: list[tuple[Path, Stamp | None]], num_threads: int) -> dict[Path, VideoError]:
        """Examine files, remember the sound ones, and return what is wrong with the others."""
        broken: dict[Path, VideoError] = {}
        fresh: dict[str, list] = {}
        facts = track(run_ahead(_examine, new, num_threads), len(new), "Examining", "videos")
        for count, ((path, stamp), fact) in enumerate(facts, start=1):
            if stamp is None or isinstance(fact, VideoError):
                broken[path] = fact if isinstance(fact, VideoError) else VideoError(f"{path}: the file is gone.")
            else:
                fresh[os.path.abspath(path)] = [*stamp, fact.content, *dataclasses.astuple(fact.info)]
            if count % SAVE_EVERY == 0:
                self._merge(fresh)
        if fresh:
            self._merge(fresh)
        return broken

    def _known(self, path: Path, stamp: Stamp) -> list | None:
        entry = self.entries.get(os.path.abspath(path))
        return entry if entry is not None and tuple(entry[:2]) == stamp else None

    def _fact(self, path: Path) -> VideoFacts:
        _, _, content, *info = self.entries[os.path.abspath(path)]
        return VideoFacts(content, VideoInfo(*info))

    def _merge(self, fresh: dict[str, list]) -> None:
        """Add to what is on disk by now, so that two runs at once lose nothing."""
        with FileLock(f"{self.path}.lock"):
            self.entries = {**self.entries, **self._read(), **fresh}
            write_atomically(self.path, json.dumps(self.entries).encode())

    def _read(self) -> dict[str, list]:
        try:
            return json.loads(self.path.read_bytes())
        except (FileNotFoundError, ValueError):  # not JSON, or not even text
            return {}


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _examine(item: tuple[Path, object]) -> Iterator[VideoFacts | VideoError]:
    path, _ = item
    try:
        info = probe(path)
        with path.open("rb") as file:
            yield VideoFacts(hashlib.file_digest(file, "sha256").hexdigest(), info)
    except VideoError as error:
        yield error

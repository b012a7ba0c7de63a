"""Facts about video files: the hash of the content, and what decoding the whole file shows.

Facts are stored by content, so a file that was moved or copied is only hashed, and a damaged one is not decoded again.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

from vidclf.data.decoding import VideoInfo, errors_name_video, inspect
from vidclf.data.opening import check_regular
from vidclf.data.prefetch import run_ahead
from vidclf.errors import VideoError
from vidclf.system.disk import locked
from vidclf.system.ranks import gather, rank_and_size
from vidclf.system.records import Records
from vidclf.system.terminal import track

FORMAT = 5  # raise it when the facts or their JSON change
MAX_COUNT = 10**9  # of frames, pixels, and frames a second; more is a mistake
SAVE_EVERY = 500  # records: a killed run repeats no more than these

Stamp = tuple[int, int, int]  # a file's size in bytes, its modification time in ns, and its inode
Entry = dict | str  # the VideoInfo of a content, or what is wrong with it, without the path


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """The facts of one file.

    Attributes:
        content: the file's sha256 in hex.
        info: the result of `inspect`.
        stamp: of the file that was hashed; None: not known.
    """

    content: str
    info: VideoInfo
    stamp: Stamp | None = field(default=None, compare=False)

    def check_unchanged(self, path: Path) -> None:
        """Raise VideoError if the file at `path` is no longer the one that was hashed."""
        if self.stamp is not None and stamp_of(path) != self.stamp:
            raise _changed(path)


class Catalogue:
    """The facts of all files seen so far, in a file in `folder` that runs share.

    Each format and each version of PyAV has a separate file: another version may detect other damage. It has two kinds
    of records: [size, modification time, content] by a file's path, and what is known of it by content.
    """

    def __init__(self, folder: Path) -> None:
        name = f"videos-{FORMAT}-av{av.__version__}"
        remedy = "Free space, or name another folder with store.root=..."
        self.records = Records(folder / f"{name}.sqlite", remedy, _is_record)
        self._unsaved: dict[str, Any] = {}
        if not self.records.path.exists():
            self._import(folder / f"{name}.json")

    def look_up(self, paths: Sequence[Path], num_threads: int = 2) -> list[VideoFacts | VideoError]:
        """Return the facts of each file, or its error, in order; unknown files are decoded.

        Distributed processes share the files among them, and all return all facts.
        """
        rank, size = rank_and_size()
        local_facts = self._look_up(list(dict.fromkeys(paths))[rank::size], num_threads)
        facts = {path: fact for facts_of_rank in gather(local_facts) for path, fact in facts_of_rank.items()}
        return [facts[path] for path in paths]

    def _look_up(self, paths: Sequence[Path], num_threads: int) -> dict[Path, VideoFacts | VideoError]:
        facts = self._known(paths)
        if len(facts) < len(paths):
            with self._lock_out_others(paths):
                facts = self._known(paths)  # another process may have added facts meanwhile
                facts |= self._examine([path for path in paths if path not in facts], num_threads)
        return facts

    def _known(self, paths: Sequence[Path]) -> dict[Path, VideoFacts | VideoError]:
        """Return the stored facts of the files that have not changed since."""
        same: dict[Path, tuple[str, Stamp]] = {}
        for path, entry in zip(paths, self.records.get(map(os.path.abspath, paths)), strict=True):
            stamp = stamp_of(path)
            if isinstance(entry, list) and stamp and tuple(entry[:2]) == stamp[:2]:
                same[path] = entry[2], stamp
        entries = self.records.get(content for content, _ in same.values())
        return {
            path: _facts(path, content, entry, stamp)
            for (path, (content, stamp)), entry in zip(same.items(), entries, strict=True)
            if isinstance(entry, dict | str)
        }

    def _examine(self, paths: Sequence[Path], num_threads: int) -> dict[Path, VideoFacts | VideoError]:
        with closing(self.examine(paths, num_threads)) as facts:
            return dict(track(facts, len(paths), "Examining", "videos"))

    def examine(
        self, paths: Sequence[Path], num_threads: int
    ) -> Generator[tuple[Path, VideoFacts | VideoError], None, None]:
        """Yield each file with its facts, and store them, but not the errors of files that could not be read now."""
        try:
            for path, result in run_ahead(self._examine_file, paths, num_threads):
                if isinstance(result, VideoError):
                    yield path, result
                    continue
                content, entry, stamp = result
                self._unsaved |= {content: entry, os.path.abspath(path): [*stamp[:2], content]}
                if len(self._unsaved) >= SAVE_EVERY:
                    self._save()
                yield path, _facts(path, content, entry, stamp)
        finally:
            self._save()

    def _save(self) -> None:
        self.records.put(self._unsaved)
        self._unsaved = {}

    def _examine_file(self, path: Path) -> Iterator[tuple[str, Entry, Stamp] | VideoError]:
        try:
            with errors_name_video(path):
                content, stamp = hash_file(path)
                entry = self._unsaved.get(content) or next(self.records.get([content])) or _decode(path)
                if stamp_of(path) != stamp:
                    raise _changed(path)
                yield content, entry, stamp
        except VideoError as error:
            yield error

    @contextmanager
    def _lock_out_others(self, paths: Iterable[Path]) -> Iterator[None]:
        """Keep other processes from examining the same files; processes with other files do not wait."""
        names = "\0".join(sorted(map(os.path.abspath, paths)))
        digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        path = self.records.path.with_name(f".{self.records.path.stem}.{digest}.lock")
        with locked(path, "Another process is examining the same videos; waiting for it."):
            yield
            path.unlink(missing_ok=True)

    def _import(self, path: Path) -> None:
        """Take over the facts that earlier versions kept in a JSON file."""
        with suppress(OSError, ValueError, LookupError, TypeError, RecursionError):  # none, or damaged
            on_disk = json.loads(path.read_bytes()) if path.is_file() else {}
            values = {**on_disk["files"], **on_disk["contents"]}
            self.records.put({key: value for key, value in values.items() if _is_record(value)})


def stamp_of(path: Path) -> Stamp | None:
    """Return what changes when a file is written or replaced; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def _changed(path: Path) -> VideoError:
    return VideoError(f"{path}: the file changed while it was read. Run the command again when nothing writes it.")


def _is_record(value: Any) -> bool:
    """Return whether a value is a file's [size, time, content], the facts of a content, or what is wrong with it."""
    if not isinstance(value, dict):
        return isinstance(value, str) or (isinstance(value, list) and [*map(type, value)] == [int, int, str])
    if value.keys() != VideoInfo.__annotations__.keys() or not isinstance(value["shown_from"], list):
        return False
    sizes = value["num_frames"], value["width"], value["height"]
    are_counts = all(type(number) is int and 0 <= number < MAX_COUNT for number in (*sizes, *value["shown_from"]))
    return are_counts and min(sizes) > 0 and type(value["fps"]) in (int, float) and 0 < value["fps"] < MAX_COUNT


def _facts(path: Path, content: str, entry: Entry, stamp: Stamp) -> VideoFacts | VideoError:
    if isinstance(entry, str):
        return VideoError(f"{path}: {entry}")
    return VideoFacts(content, VideoInfo(**{**entry, "shown_from": tuple(entry["shown_from"])}), stamp)


def hash_file(path: Path) -> tuple[str, Stamp]:
    """Return a file's content, the sha256 in hex, and its stamp.

    Raises:
        VideoError: it cannot be read.
    """
    try:
        check_regular(path)
        status = path.stat()
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise VideoError(f"{path}: the file cannot be read ({error.strerror}). Give a video file.") from error
    return content, (status.st_size, status.st_mtime_ns, status.st_ino)


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

"""What one look at each video file says: the hash of its content, and what decoding all of it has shown.

It is remembered by content, so that a moved or copied file is only hashed, and a damaged one not decoded again.
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
from vidclf.data.prefetch import run_ahead
from vidclf.errors import VideoError
from vidclf.system.disk import locked, write_atomically
from vidclf.system.ranks import gather, rank_and_size
from vidclf.system.terminal import track

FORMAT = 4  # whoever changes what a look says or how it is kept raises it
SAVE_EVERY = 500  # files; a killed run repeats at most as many

Stamp = tuple[int, int]  # a file's size in bytes, and when it was changed in ns
Known = dict | str  # of a content: its VideoInfo, or what is wrong with it, without the path


@dataclass(frozen=True)
class VideoFacts:
    """`content` is the file's sha256, in hex; `info` what `inspect` says of it."""

    content: str
    info: VideoInfo


class Catalogue:
    """What is known of every file seen so far, kept in one JSON file in `folder` that runs share.

    Another format, or another version of PyAV, has a file of its own: it may see what this one does not.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"videos-{FORMAT}-av{av.__version__}.json"
        self.files: dict[str, list] = {}  # path -> its stamp's two numbers, its content
        self.contents: dict[str, Known] = {}

    def look_up(self, paths: Sequence[Path], num_threads: int = 2) -> list[VideoFacts | VideoError]:
        """Return the facts of each file, or what is wrong with it, in order; files that are not known are decoded.

        Of several processes that work as one, each looks at files of its own, and all know the answers.
        """
        rank, size = rank_and_size()
        mine = self._look_up_mine(list(dict.fromkeys(paths))[rank::size], num_threads)
        answers = {path: answer for of_rank in gather(mine) for path, answer in of_rank.items()}
        return [answers[path] for path in paths]

    def _look_up_mine(self, paths: Sequence[Path], num_threads: int) -> dict[Path, VideoFacts | VideoError]:
        self._read()
        stamps = {path: _stamp(path) for path in paths}
        failed: dict[Path, VideoError] = {}
        if self._unknown(stamps):
            with self._alone_with(paths):
                self._read()  # what another process has found meanwhile
                failed = self._look_at(self._unknown(stamps), num_threads)
        return {path: failed.get(path) or self._answer(path) for path in paths}

    def _unknown(self, stamps: Mapping[Path, Stamp | None]) -> list[Path]:
        """Return the files that are new or changed, or not there."""
        entries = ((path, stamp, self.files.get(os.path.abspath(path))) for path, stamp in stamps.items())
        return [path for path, stamp, entry in entries if entry is None or tuple(entry[:2]) != stamp]

    def _look_at(self, paths: Sequence[Path], num_threads: int) -> dict[Path, VideoError]:
        """Look at files, remember what is found, and return why others could not be read this time."""
        failed: dict[Path, VideoError] = {}
        new: dict[str, list] = {}
        looks = track(run_ahead(self._look, paths, num_threads), len(paths), "Examining", "videos")
        for count, (path, look) in enumerate(looks, start=1):
            if isinstance(look, VideoError):
                failed[path] = look
            else:
                stamp, content, self.contents[content] = look
                new[os.path.abspath(path)] = [*stamp, content]
            if count % SAVE_EVERY == 0 or count == len(paths):
                self._save(new)
        return failed

    def _look(self, path: Path) -> Iterator[tuple[Stamp, str, Known] | VideoError]:
        try:
            with errors_name_video(path):
                stamp, content = _stamp_and_content(path)
                yield stamp, content, self.contents.get(content) or _decode(path)
        except VideoError as error:
            yield error

    def _answer(self, path: Path) -> VideoFacts | VideoError:
        content = self.files[os.path.abspath(path)][-1]
        known = self.contents[content]
        if isinstance(known, str):
            return VideoError(f"{path}: {known}")
        return VideoFacts(content, VideoInfo(**{**known, "shown_from": tuple(known["shown_from"])}))

    @contextmanager
    def _alone_with(self, paths: Iterable[Path]) -> Iterator[None]:
        """Let no other process look at the same files meanwhile; whoever asks for others is not held up."""
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
        """Learn what other runs have found."""
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
        status = path.stat()  # before it is read: a file that is changed meanwhile is then read again
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise VideoError(f"{path}: the file cannot be read ({error.strerror}). A video file is needed here.") from error
    return (status.st_size, status.st_mtime_ns), content


def _decode(path: Path) -> Known:
    """Return what to remember of a file: what one look says of it.

    Raises:
        VideoError: it was not the file: memory or the disk failed, which may be better another time.
    """
    try:
        return dataclasses.asdict(inspect(path))
    except VideoError as error:
        cause = error.__cause__
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and not isinstance(cause, av.FFmpegError)):
            raise
        return str(error).removeprefix(f"{path}: ")

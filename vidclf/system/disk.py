"""Write whole files or none, lock between processes, and say in one sentence when the disk refuses.

Temporary files and folders are named `.<name>.<32 hex digits>`, and their process holds a lock on them. One without a
lock was left by a process that was killed, and the next process that writes the same name removes it.
"""

import csv
import errno
import io
import json
import math
import os
import re
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from vidclf.errors import VidclfError
from vidclf.system.terminal import say

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    import torch

_TEMPORARY = re.compile(r"\.(.+)\.(?:[0-9a-f]{32}|part)", re.DOTALL)  # part: of earlier versions
_REFUSALS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
)


@contextmanager
def writing_to(path: Path, remedy: str) -> Iterator[None]:
    """Turn the OSError of a full, read-only or misplaced disk into a VidclfError that names `path` and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        message = f"{path}: cannot write ({error.strerror}); what was written before is whole. {remedy}"
        raise VidclfError(message) from error


@contextmanager
def locked(path: Path, waiting_message: str = "", busy: str = "") -> Iterator[bool]:
    """Hold the lock file `path`; where another process holds it, say so and wait. Yield whether this waited.

    The lock ends with the `with` block, or with the process. With `busy`, that is raised as a VidclfError instead.
    """
    check_sole_name(path)
    lock = FileLock(path)
    has_waited = False
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if busy:
            raise VidclfError(busy) from None
        has_waited = True
        if waiting_message:
            say(waiting_message)
        lock.acquire()
    try:
        yield has_waited
    finally:
        lock.release()


def check_links(folder: Path, within: Path | None = None, in_place: tuple[str, ...] = ()) -> None:
    """Raise VidclfError if a link inside `folder`, which may come from anyone, leads out of it.

    The folder itself may be a link, because its user has named it; with `within`, the folder that was named, it must
    lie in that. Files that are written in place, which end in one of `in_place`, may have no second name either.
    """
    root, todo = (within or folder).resolve(), [str(folder.resolve())]

    def check(path: Path) -> None:
        if not Path(os.path.realpath(path)).is_relative_to(root):  # `resolve` fails where links lead in a circle
            raise VidclfError(
                f"{path}: is a link that leads out of {within or folder}. Nothing is read or written through it. "
                "Remove the link, or copy what it leads to."
            )

    check(folder)
    while todo:
        with suppress(OSError), os.scandir(todo.pop()) as entries:  # no such folder
            for entry in entries:
                if entry.is_symlink():
                    check(Path(entry.path))
                elif entry.is_dir():
                    todo.append(entry.path)
                elif entry.name.endswith(in_place):
                    check_sole_name(Path(entry.path))


def check_sole_name(path: Path) -> None:
    """Raise VidclfError if writing into the file at `path` would change what another path names, or is no file."""
    with suppress(OSError):  # no file yet
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise VidclfError(
                f"{path}: is a link, or another kind of file, and is not written through. Delete it, or make it a copy."
            )


def check_replaceable(path: Path, sign: str, verb: str) -> None:
    """Raise VidclfError if a file exists at `path` that the verb did not write: its beginning holds no `sign`."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        if sign not in file.read(1000):
            raise VidclfError(
                f"to={path}: exists, and {verb} did not write it. Name another file with to=FILE, or delete it."
            )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file beside `path`; rename it to `path` when the block ends without an error.

    Readers see the old file or the new one, whole.
    """
    with _temporary(path, Path.touch) as temporary:
        yield temporary
        temporary.replace(path)


@contextmanager
def making_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; rename it to `path` when the block ends without an error."""
    with _temporary(path, Path.mkdir) as temporary:
        yield temporary
        temporary.replace(path)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder in the system's folder for temporary files, for as long as the block lasts."""
    with _temporary(Path(tempfile.gettempdir(), "vidclf"), Path.mkdir) as folder:
        yield folder


@contextmanager
def _temporary(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Make and lock a temporary file or folder beside `path`; remove it at the end, and first what kills left."""
    for other in _leftovers(path.parent).pop(path.name, ()):
        if (lock := _try_lock(other)) is not None:
            _remove(other)
            os.close(lock)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    make(temporary)
    lock = _try_lock(temporary)
    try:
        yield temporary
    finally:
        _remove(temporary)
        if lock is not None:
            os.close(lock)


@cache
def _leftovers(folder: Path) -> dict[str, list[Path]]:
    """Return the temporaries in a folder, by the name that they are for; listed once, for a folder may be large."""
    found: dict[str, list[Path]] = {}
    with suppress(OSError):  # no such folder, which making the temporary reports
        for name in os.listdir(folder):
            if match := _TEMPORARY.fullmatch(name):
                found.setdefault(match[1], []).append(folder / name)
    return found


def _try_lock(path: Path) -> int | None:
    """Lock a temporary until the returned descriptor is closed; return None if it is locked, or cannot be."""
    if sys.platform == "win32":
        return None
    try:
        descriptor = os.open(path, os.O_NOFOLLOW | (os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_NONBLOCK))
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, sync it to the disk, and rename."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def require_space(folder: Path, num_bytes: int, remedy: str) -> None:
    """Raise VidclfError if `folder`'s disk has fewer than `num_bytes` free."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if num_bytes > free:
        needed, left = (f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB" for size in (num_bytes, free))
        raise VidclfError(f"{folder}: {needed} needed, {left} free. {remedy}")


def empty_on_disk(folder: Path, shape: Sequence[int], dtype: "torch.dtype", remedy: str) -> "torch.Tensor":
    """Return a tensor in a mapped file, which disappears with the last tensor on it or with the process."""
    import torch

    num_bytes = math.prod(shape) * dtype.itemsize
    require_space(folder, num_bytes, remedy)
    with writing_to(folder, remedy), _temporary(folder / "mapped", Path.touch) as path:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, num_bytes)  # a disk that fills later would end the process
        return torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=dtype).view(*shape)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write sorted JSON."""
    try:
        text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    except ValueError as error:
        numbers = {key: value for key, value in content.items() if isinstance(value, float)}
        names = ", ".join(f"{key}={value}" for key, value in numbers.items() if not math.isfinite(value))
        raise VidclfError(f"{path}: not written, because a number is not finite ({names or error}).") from error
    write_atomically(path, f"{text}\n".encode())


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table, UTF-8; rows are not held in memory."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows(chain([header], rows))
        file.flush()
        os.fsync(file.fileno())


def csv_bytes(header: Iterable[str], rows: Iterable[Iterable[object]]) -> bytes:
    """Return a table as CSV, UTF-8."""
    table = io.StringIO(newline="")
    csv.writer(table).writerows([header, *rows])
    return table.getvalue().encode("utf-8", "surrogateescape")

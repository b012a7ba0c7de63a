"""Write whole files or none, lock between processes, and say in one sentence when the disk refuses."""

import csv
import errno
import io
import json
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from vidclf.errors import VidclfError
from vidclf.system.terminal import say

if TYPE_CHECKING:
    import torch

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


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
def locked(path: Path, waiting_message: str = "") -> Iterator[bool]:
    """Hold the lock file `path`; where another process holds it, say so and wait. Yield whether this waited.

    The lock ends with the `with` block, or with the process.
    """
    lock = FileLock(path)
    has_waited = False
    try:
        lock.acquire(blocking=False)
    except Timeout:
        has_waited = True
        if waiting_message:
            say(waiting_message)
        lock.acquire()
    try:
        yield has_waited
    finally:
        lock.release()


def check_links(folder: Path, within: Path | None = None) -> None:
    """Raise VidclfError if a link inside `folder`, which may come from anyone, leads out of it.

    The folder itself may be a link, because its user has named it; with `within`, the folder that was named, it must
    lie in that.
    """
    root = (within or folder).resolve()
    paths = [folder] if within else []
    paths += [Path(parent, name) for parent, *names in os.walk(folder.resolve()) for name in (*names[0], *names[1])]
    for path in paths:
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise VidclfError(
                f"{path}: is a link that leads out of {within or folder}. Nothing is read or written through it. "
                "Remove the link, or copy what it leads to."
            )


@contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an error.

    Args:
        path: readers see the old file or the new one, whole.
        suffix: of the temporary name, where there is one writer only: it then replaces what a killed process left.
    """
    temporary = path.with_name(f".{path.name}.{suffix or uuid.uuid4().hex}")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, sync it to the disk, and rename."""
    with replacing(path) as temporary, temporary.open("xb") as file:
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
    """Return a tensor in a mapped file, which disappears with the last tensor on it or with the process.

    Raises:
        VidclfError: the disk has no room for it.
    """
    import torch

    num_bytes = math.prod(shape) * dtype.itemsize
    require_space(folder, num_bytes, remedy)
    with writing_to(folder, remedy), tempfile.NamedTemporaryFile(dir=folder, prefix=".mapped-") as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, num_bytes)  # a disk that fills later would end the process
        return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=dtype).view(*shape)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write sorted JSON.

    Raises:
        VidclfError: a number is not finite, which JSON cannot say.
    """
    try:
        text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    except ValueError as error:
        numbers = {key: value for key, value in content.items() if isinstance(value, float)}
        names = ", ".join(f"{key}={value}" for key, value in numbers.items() if not math.isfinite(value))
        raise VidclfError(f"{path}: not written, because a number is not finite ({names or error}).") from error
    write_atomically(path, f"{text}\n".encode())


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table, UTF-8."""
    write_atomically(path, csv_bytes(header, rows))


def csv_bytes(header: Iterable[str], rows: Iterable[Iterable[object]]) -> bytes:
    """Return a table as CSV, UTF-8."""
    table = io.StringIO(newline="")
    csv.writer(table).writerows([header, *rows])
    return table.getvalue().encode("utf-8", "surrogateescape")

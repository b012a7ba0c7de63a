"""Writing that loses nothing: whole files or none, and a sentence when the disk refuses."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vidclf.errors import VidclfError

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def writing_to(path: Path, remedy: str) -> Iterator[None]:
    """Turn a full, read-only or misplaced disk into a sentence which names `path` and the remedy.

    Raises:
        VidclfError: instead of the OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        raise VidclfError(
            f"{path}: cannot write ({error.strerror}); what was written before is whole. {remedy}"
        ) from error


def require_space(folder: Path, num_bytes: int, remedy: str) -> None:
    """Raise VidclfError if `folder`'s disk has fewer than `num_bytes` free."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if num_bytes > free:
        raise VidclfError(f"{folder}: {num_bytes / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free. {remedy}")


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, sync, and rename: readers see the old file or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

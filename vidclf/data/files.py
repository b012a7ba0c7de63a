"""Files by their names: which are videos, what lies below a folder, and the lists that name them."""

import errno
import io
import os
from collections.abc import Sequence
from pathlib import Path

from vidclf.errors import VidclfError
from vidclf.system.text import first_five

# Of containers of video; FFmpeg's own list of extensions holds images, sound, text and playlists, too.
VIDEO_ENDINGS = frozenset(
    (
        *(".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".dav", ".dif", ".divx", ".dv", ".f4v", ".flv", ".h264"),
        *(".h265", ".hevc", ".ivf", ".m1v", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4"),
        *(".mpeg", ".mpg", ".mts", ".mxf", ".nut"),
        *(".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m"),
    )
)


class FileForFFmpeg(io.BufferedReader):
    """A file that answers a seek to where nothing can be, as damage asks for, by a negative number.

    That is FFmpeg's way. Of what is raised here PyAV prints a stack trace, or makes it an error of the machine's.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Return the new position, or minus the number of an error."""
        try:
            return super().seek(offset, whence)
        except OSError as error:
            return -(error.errno or errno.EINVAL)


def is_video(path: Path) -> bool:
    """Return whether a file is one of video by its ending, in capitals or not; hidden files are none."""
    return path.suffix.lower() in VIDEO_ENDINGS and not path.name.startswith(".")


def find_videos(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the video files below `folder` and the other files, each sorted.

    Links are followed; a folder that several of them lead to is looked through once. Hidden folders are passed over.
    """
    found: list[Path] = []
    others: list[Path] = []
    seen: set[tuple[int, int]] = set()
    todo, links = [folder], list[Path]()
    while todo or links:
        inside = todo.pop() if todo else links.pop(0)  # a folder is known by its own name, if it has one here
        status = inside.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for path in sorted(Path(entry) for entry in os.scandir(inside)):
            if path.is_dir():
                if not path.name.startswith("."):
                    (links if path.is_symlink() else todo).append(path)
            else:  # a link that leads nowhere is one of the others
                (found if is_video(path) and path.is_file() else others).append(path)
    return sorted(found), sorted(others)


def names_below(paths: Sequence[Path], root: Path) -> str:
    """Return up to five of the files' names below `root`, and how many are left."""
    return first_five([path.relative_to(root).as_posix() for path in paths])


def read_text(path: Path) -> str:
    """Return a text file, which is UTF-8, with or without a byte order mark.

    Raises:
        VidclfError: it cannot be read, or is in another encoding.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise VidclfError(f"{path}: it cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise _other_encoding(path, f"byte {error.start} is none of it") from error
    if "\0" in text:
        raise _other_encoding(path, "it holds zeros, as UTF-16 does")
    return text


def read_names(path: Path) -> list[str]:
    """Return the lines of a list of file names, with / between folders, without empty ones and blanks at the ends."""
    return [line.strip().replace("\\", "/") for line in read_text(path).splitlines() if line.strip()]


def _other_encoding(path: Path, why: str) -> VidclfError:
    return VidclfError(f"{path}: it is no UTF-8 text ({why}). Save it as UTF-8.")

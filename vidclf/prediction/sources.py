"""Which files `source=` names: files, folders, globs, tables with a column `path`, lists of paths."""

import glob
import os
import sys
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Sequence
from pathlib import Path

from vidclf.data.listing import VIDEO_ENDINGS, find_videos, is_video, names_below, read_text
from vidclf.data.tables import Schema, read_csv, read_parquet
from vidclf.errors import VidclfError
from vidclf.system.terminal import say
from vidclf.system.text import first_five

SCHEMA = Schema(("path",), None, verbatim=("path",))
OF_WHOLE_FILES = "a file has one label here, so its columns {} are not used."


def find_files(sources: Sequence[str], are_lists: bool = False) -> list[Path]:
    """Return the files that the words of `source` name, each once, in order; they may be missing or no videos.

    What exists is taken as it is: a file, a folder with all videos below it, or a table, by its ending. Otherwise
    @FILE is a list, and a word with * ? [ a glob.

    Args:
        sources: the words.
        are_lists: whether each is a list of paths, `-` on standard input.

    Raises:
        VidclfError: a word names no file.
    """
    paths = [path for source in sources for path in (_read_list(source) if are_lists else _files_of(source))]
    return list(dict.fromkeys(paths))


def _files_of(source: str) -> list[Path]:
    name = source if os.path.exists(source) else os.path.expanduser(source)
    path = Path(name)
    if os.path.isdir(name):
        return _videos_below(path)
    if os.path.exists(name):
        return _read_table(path) if path.suffix.lower() in (".csv", ".tsv", ".parquet", ".pq") else [path]
    if source.startswith("@"):
        return _read_list(source[1:])
    return _matches(name) if glob.has_magic(name) else [path]  # decoding says what is wrong with it


def _videos_below(folder: Path) -> list[Path]:
    videos, ignored = find_videos(folder)
    _say_ignored(folder, ignored, below=folder)
    if not videos:
        endings = ", ".join(sorted(VIDEO_ENDINGS))
        raise VidclfError(f"source={folder}: no video below this folder; looked for {endings}.")
    return videos


def _matches(pattern: str) -> list[Path]:
    """Return the video files that a glob matches, sorted; `**` matches folders at any depth."""
    paths = sorted(Path(name) for name in glob.iglob(pattern, recursive=True) if os.path.isfile(name))
    videos, ignored = ([path for path in paths if is_video(path) is kind] for kind in (True, False))
    if not videos:
        found = f"only {first_five([path.name for path in ignored])}, no video" if ignored else "no file"
        raise VidclfError(f"source={pattern}: it matches {found}. Quote it, and check the folder and the ending.")
    _say_ignored(pattern, ignored, below=Path(paths[0].anchor))
    return videos


def _say_ignored(source: Path | str, ignored: Sequence[Path], below: Path) -> None:
    if ignored:
        names = names_below(ignored, below)
        say(f"{source}: {len(ignored)} file(s) are ignored, because their endings are not those of videos: {names}.")


def _read_table(file: Path) -> list[Path]:
    """Return the column `path` of a table; paths are relative to its folder."""
    read, unit = (read_parquet, "row") if file.suffix.lower() in (".parquet", ".pq") else (read_csv, "line")
    rows = list(read(file, SCHEMA))
    if empty := [line for line, row in rows if not row["path"]]:
        raise VidclfError(f"source={file}: in {unit} {empty[0]} the path is empty. Fill it, or remove the row.")
    if not rows:
        raise VidclfError(f"source={file}: it has no rows. Add one for each video.")
    if times := [key for key in ("start_s", "end_s") if any(row.get(key) for _, row in rows)]:
        say(f"{file}: {OF_WHOLE_FILES.format(' and '.join(times))}")
    return [_below(file.parent, row["path"]) for _, row in rows]


def _below(folder: Path, written: str) -> Path:
    path = folder / written
    return path if os.path.lexists(path) else folder / written.replace("\\", "/")


def _read_list(name: str) -> list[Path]:
    """Return the paths in a text file, one a line, or separated by zeros as `find -print0` writes them.

    Paths are relative to the current folder, and may be any bytes.
    """
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).expanduser().read_bytes()
    except OSError as error:
        raise VidclfError(f"source: the list {name} cannot be read ({error.strerror}). Name a text file.") from error
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        content = read_text(Path(name)).encode()
    text = os.fsdecode(content.removeprefix(BOM_UTF8))
    names = text.split("\0") if "\0" in text else [line.removesuffix("\r") for line in text.split("\n")]
    if not any(names):
        raise VidclfError(f"source: the list {name} names no file. Write one path a line.")
    return [Path(one) for one in names if one]

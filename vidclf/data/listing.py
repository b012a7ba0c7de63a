"""Video files, text lists and classes: find them, read them, choose among them."""

import os
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path, PureWindowsPath

from vidclf.contracts import Video
from vidclf.errors import VidclfError
from vidclf.system.terminal import say
from vidclf.system.text import first_five

# Video containers only; FFmpeg's list of extensions includes images, sound, text and playlists.
VIDEO_ENDINGS = frozenset(
    (
        *(".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".dav", ".dif", ".divx", ".dv", ".f4v", ".flv", ".h264"),
        *(".h265", ".hevc", ".ivf", ".m1v", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4"),
        *(".mpeg", ".mpg", ".mts", ".mxf", ".nut"),
        *(".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m"),
    )
)


PART_OF = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"val": "val", "valid": "val", "validation": "val"},
}
SEPARATORS = ("|", ";", ",")  # between several labels in one cell
MAX_GRADES = 10  # numbers that are plausible classes, such as grades
ZIP = b"PK\x03\x04"  # the first bytes of .xlsx, .ods and .zip
NO_VALUES = {"nan", "none", "null", "na", "n/a", "<na>"}  # what programs write for a missing label


class DatasetError(VidclfError):
    """A data set's folders or its table have problems.

    Attributes:
        problems: a sentence each, at least one.
        videos: what the data set holds without them, which `vidclf check` examines.
    """

    def __init__(self, problems: Sequence[str], videos: Sequence[Video]) -> None:
        more = f" {len(problems) - 1} more problem(s): vidclf check lists them." if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems, self.videos = list(problems), list(videos)


def is_video(path: Path) -> bool:
    """Return whether a file has the extension of a video, in any case, and is not hidden."""
    return path.suffix.lower() in VIDEO_ENDINGS and not path.name.startswith(".")


def find_videos(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the video files below `folder` and all remaining files, each sorted.

    Links are followed, each folder is searched once, and hidden folders are skipped.
    """
    videos: list[Path] = []
    remaining: list[Path] = []
    seen: set[tuple[int, int]] = set()
    todo, links = [folder], list[Path]()
    while todo or links:
        inside = todo.pop() if todo else links.pop(0)  # links last: a folder's real path, if below, names its files
        status = inside.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for path in sorted(inside.iterdir()):
            if path.is_dir():
                if not path.name.startswith("."):
                    (links if path.is_symlink() else todo).append(path)
            else:  # a broken link is not a video
                (videos if is_video(path) and path.is_file() else remaining).append(path)
    return sorted(videos), sorted(remaining)


def find_folders(root: Path) -> list[Path]:
    """Return the folders directly in `root`, sorted, without hidden ones and those that vidclf wrote there."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [folder for folder in folders if not _is_output(folder)]


def _is_output(folder: Path) -> bool:
    """Return whether vidclf wrote a folder: a store, the folder data that holds one or the demo, or runs."""
    inside = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if any(fnmatch(name, "videos-*-av*") for name in inside):
        return True
    if folder.name == "data":
        return bool(inside) and inside <= {"features", "demo"}
    return folder.name in ("runs", "multirun") and bool(inside) and not find_videos(folder)[0]


def names_below(paths: Sequence[Path], root: Path) -> str:
    """Return up to five of the files' names below `root`, and how many remain."""
    return first_five([path.relative_to(root).as_posix() for path in paths])


def leads_out(name: str, path: Path, root: Path) -> bool:
    """Return whether a name in a table is absolute, or its file is not below `root`, directly or by a link."""
    is_absolute = Path(name).is_absolute() or PureWindowsPath(name).is_absolute()
    is_below = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
    return is_absolute or not is_below or ".." in name.replace("\\", "/").split("/")


def read_text(path: Path, remedy: str = "Give a text file.") -> str:
    """Return the content of a text file: UTF-8, or UTF-16 with a byte order mark.

    Raises:
        VidclfError: it cannot be read (the message ends with the `remedy`), or has another encoding.
    """
    try:
        content = path.read_bytes()
        if content.startswith(ZIP):
            raise VidclfError(f"{path}: a workbook or an archive, not text. Save its table as CSV, in UTF-8.")
        is_utf_16 = content.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
        text = content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except OSError as error:
        raise VidclfError(f"{path}: it cannot be read ({error.strerror}). {remedy}") from error
    except UnicodeDecodeError as error:
        raise VidclfError(f"{path}: not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    if is_utf_16:
        say(f"{path}: it is UTF-16, and read as that.")
    if "\0" in text:
        raise VidclfError(f"{path}: not UTF-8 text (it contains zeros, as UTF-16 does). Save it as UTF-8.")
    return text


def read_names(path: Path, remedy: str) -> list[str]:
    """Return the lines of a list of file names: stripped, not empty, with / between folders."""
    return [line.strip().replace("\\", "/") for line in read_text(path, remedy).splitlines() if line.strip()]


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def sort_names(names: Iterable[str]) -> list[str]:
    """Return names in alphabetical order, regardless of case."""
    return sorted(names, key=lambda name: (name.casefold(), name))


def part_named(name: str) -> str | None:
    """Return the part that a name such as Train or validation stands for; None: it is no part's name."""
    return PART_OF.get(name.strip().casefold())


def choose_classes(chosen: Sequence[str | int | None] | None, class_names: Sequence[str]) -> list[str]:
    """Return the `chosen` classes in the order of `class_names`; None: all."""
    if chosen is None:
        return list(class_names)
    if isinstance(chosen, str) or not chosen:
        raise VidclfError(f"dataset.classes={chosen}: must be a list of names, such as [Archery,YoYo].")
    words = ["null" if name is None else str(name).lower() for name in chosen if isinstance(name, bool | None)]
    if words:
        raise VidclfError(
            f"dataset.classes: {' and '.join(words)} without quotes is no text in YAML. Quote the names: "
            f'"dataset.classes=[{",".join(map(repr, words))}]".'
        )
    names = [str(name) for name in chosen]  # a class called 7 is a number on the command line
    if twice := repeated(names):
        raise VidclfError(f"dataset.classes names {first_five(twice)} more than once. Remove the repeats.")
    for name in names:
        if name not in class_names:
            near = get_close_matches(name, class_names)
            hint = f"Did you mean {' or '.join(near)}? " if near else ""
            raise VidclfError(
                f"dataset.classes: {name} is not one of the {len(class_names)} classes. {hint}Allowed: "
                f"{', '.join(class_names)}."
            )
    return [name for name in class_names if name in names]


def check_custom_classes(names: Sequence[str], where: object) -> None:
    """Report names that do not look like one class each: missing values, spellings, several labels, numbers."""
    if missing := [name for name in names if name.strip().casefold() in NO_VALUES]:
        say(f"{where}: the label {' or '.join(map(repr, missing))} may be a missing value; it is kept as a class.")
    spellings: dict[object, list[str]] = {}
    for name in names:
        spellings.setdefault(_spelling(name), []).append(name)
    for alike in spellings.values():
        if len(alike) > 1:
            say(f"{where}: {' and '.join(map(repr, alike))} may be one class in {len(alike)} spellings; kept apart.")
    if several := _several_labels(names):
        say(
            f"{where}: {first_five(several)} looks like several labels. A video has one label here, so each "
            "combination is a separate class. Choose one label for each video, or cut the video into segments."
        )
    if _are_measurements(names):
        say(
            f"{where}: the {len(names)} labels are numbers ({first_five(list(names))}), which looks like regression. "
            "vidclf predicts classes: each number is a separate class, and near numbers differ as much as far ones. "
            "Put the numbers into ranges, such as low, middle, high."
        )


def _several_labels(names: Sequence[str]) -> list[str]:
    """Return the names that list several: as JSON, or joined by a character, where a piece occurs in another name."""
    several = [name for name in names if name.startswith("[") and name.endswith("]")]
    for separator in SEPARATORS:
        pieces = {name: {piece.strip() for piece in name.split(separator)} for name in names}
        counts = Counter(piece for of_name in pieces.values() for piece in of_name)
        several += [
            name for name, of_name in pieces.items() if len(of_name) > 1 and any(counts[piece] > 1 for piece in of_name)
        ]
    return list(dict.fromkeys(several))


def _are_measurements(names: Sequence[str]) -> bool:
    """Return whether more than ten names are all numbers, but do not count 0, 1, 2, ... or 1, 2, 3, ..."""
    try:
        numbers = sorted(map(float, names))
    except ValueError:
        return False
    counted = (list(range(len(numbers))), list(range(1, len(numbers) + 1)))
    return len(numbers) > MAX_GRADES and numbers not in counted


def _spelling(name: str) -> object:
    """Return what the spellings of a class share: the number (1 and 1.0), or the letters and digits (a_b and A b)."""
    try:
        return float(name)
    except ValueError:
        return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold())) or name


def check_choice(key: str, value: object, allowed: Sequence[str]) -> None:
    """Raise if a setting is not one of the allowed words."""
    if value not in allowed:
        raise VidclfError(f"dataset.{key}={value}: must be {' or '.join(allowed)}.")

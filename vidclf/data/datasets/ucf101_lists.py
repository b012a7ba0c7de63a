"""What UCF101's list files say: the order of the classes, and which videos a split trains and tests on."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from vidclf.contracts import Video
from vidclf.data.files import read_names
from vidclf.errors import VidclfError
from vidclf.system.text import first_five


def class_order(lists: Path) -> list[str] | None:
    """Return the class names of `lists`' classInd.txt; None where there is none."""
    if not (lists / "classInd.txt").is_file():
        return None
    found = [re.fullmatch(r"(?:(\d+)\s+)?(.*)", line) for line in read_names(lists / "classInd.txt")]
    return [match[2] for match in sorted(filter(None, found), key=lambda match: int(match[1] or 0))]


def in_test_list(videos: Sequence[Video], number: int, lists: Path) -> list[bool]:
    """Return for each video whether the lists of split `number` test on it."""
    names = {}
    for part in ("train", "test"):
        path = lists / f"{part}list{number:02d}.txt"
        if not path.is_file():
            raise VidclfError(
                f"{path}: there is no such file. split.number={number} needs it; choose another "
                "number, or leave dataset.lists out to split by group numbers."
            )
        names[part] = set(read_list(path))
    wrong = [v.name for v in videos if (v.name in names["train"]) == (v.name in names["test"])]
    if wrong:
        raise VidclfError(
            f"{len(wrong)} of {len(videos)} videos are not in exactly one of trainlist{number:02d}.txt and "
            f"testlist{number:02d}.txt in {lists}: {first_five(wrong)}. Mend the lists or remove the videos."
        )
    return [video.name in names["test"] for video in videos]


def all_listed(lists: Path) -> set[str]:
    """Return the names in all train and test lists."""
    return {name for file in list_files(lists) for name in read_list(file)}


def check_listed(
    videos: Sequence[Video], listed: set[str], root: Path, lists: Path, classes: Sequence[str], allow_missing: bool
) -> None:
    """Raise where a video is not `listed`, and where one of `classes` that is listed is missing, or warn of that."""
    there = {video.name for video in videos}
    unlisted = sorted(there - listed)
    if unlisted:
        raise VidclfError(
            f"{len(unlisted)} of {len(there)} videos in {root} are named by no list in {lists}: "
            f"{first_five(unlisted)}. Remove them, or leave dataset.lists out."
        )
    wanted = {name for name in listed if name.rpartition("/")[0] in classes}
    missing = sorted(wanted - there)
    if not missing:
        return
    what = (
        f"{len(missing)} of {len(wanted)} videos that the lists in {lists} name are not in {root}: "
        f"{first_five(missing)}."
    )
    if not allow_missing:
        raise VidclfError(f"{what} Extract the archive again, or go on with dataset.allow_missing=true.")
    warnings.warn(what, stacklevel=3)


def list_files(lists: Path) -> list[Path]:
    """Return the train and test lists in the folder `lists`."""
    files = sorted([*lists.glob("trainlist*.txt"), *lists.glob("testlist*.txt")])
    if not files:
        raise VidclfError(
            f"dataset.lists={lists}: {'it holds no' if lists.is_dir() else 'there is no such folder with a'} "
            "trainlist01.txt or testlist01.txt. Point it at the folder of UCF101's recognition-task lists "
            "(ucfTrainTestlist), or leave it out to split by group numbers."
        )
    return files


def read_list(path: Path) -> list[str]:
    """Return the names `<class>/<file>` of a train or test list, without the labels that train lists add."""
    return [re.sub(r"\s+\d+$", "", line) for line in read_names(path)]

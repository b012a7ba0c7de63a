"""UCF101 as its archive unpacks it, and its official splits: labels from the folders, groups from the file names.

Source: Soomro, Zamir and Shah, "UCF101", 2012, arXiv:1212.0402; https://www.crcv.ucf.edu/data/UCF101.php
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from vidclf.contracts import OfficialParts, Video
from vidclf.data.datasets.classes import check_choice, choose_classes, sort_names
from vidclf.data.datasets.ucf101_lists import all_listed, check_listed, class_order, in_test_list, read_list
from vidclf.data.files import is_video, names_below
from vidclf.errors import VidclfError
from vidclf.system.terminal import say
from vidclf.system.text import first_five

CLIP_NAME = re.compile(r"v_(?P<action>.+)_(?P<group>g\d\d)_c\d\d+\.avi", re.IGNORECASE)

# The one class whose files are spelled unlike their folder.
FOLDER_OF = {"HandStandPushups": "HandstandPushups"}

EXPECTED_TREE = """Expected are UCF101's class folders, or all its clips in one folder:
  {root}/Archery/v_Archery_g01_c01.avi
  {root}/YoYo/v_YoYo_g25_c05.avi
Set dataset.root to the folder that UCF101.rar unpacks to (usually UCF-101)."""


class UCF101:
    """The labelled clips below `root`.

    Labels follow the order of classInd.txt where `lists` has that file, else the sort of the names
    without regard to case, which is the same order for UCF101. Hidden files and all but .avi are ignored.

    Args:
        root: a folder of class folders, or of all clips (v_<class>_g<group>_c<clip>.avi).
        lists: the folder of the official lists; the clips below `root` must then be those which they name.
        classes: take these classes only, still in the order above.
        allow_missing: go on, with a warning, where `lists` name clips that are not there.
        on_error: for whoever decodes: "raise" at a damaged clip, or "skip" it, counted and listed.

    Raises:
        VidclfError: `root`, `lists` or `classes` are not as said; the message shows what is there.
    """

    credit: str = ""
    split_numbers: tuple[int, ...] = (1, 2, 3)

    def __init__(
        self,
        root: str | Path,
        lists: str | Path | None = None,
        classes: Sequence[str | int] | None = None,
        allow_missing: bool = False,
        on_error: str = "raise",
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        self.root = Path(root).expanduser()
        self.lists = None if lists is None else Path(lists).expanduser()
        self.allow_missing = allow_missing
        self.on_error = on_error
        self._clips = find_clips(self.root)
        order = self.lists and class_order(self.lists)
        order = order or sort_names(self._clips)
        if classes is None:
            _check_no_other_folder(self._clips, order, self.root)
        self.class_names = choose_classes(classes, order)
        _say_what_is_no_avi(self.root, self.class_names)

    def videos(self) -> list[Video]:
        """Return every clip of `class_names`, sorted by label, then name.

        Raises:
            VidclfError: a class folder is empty, a file name has no group or stands in two folders, or the
                clips are not those that `lists` name.
        """
        videos = [
            Video(path, label, _match(path)["group"].lower(), name=f"{name}/{path.stem}{path.suffix.lower()}")
            for label, name in enumerate(self.class_names)
            for path in self._clips_of(name)
        ]
        _check_file_names_differ(videos)
        if self.lists is not None:
            listed = all_listed(self.lists)
            check_listed(videos, listed, self.root, self.lists, self.class_names, self.allow_missing)
        return videos

    def official_parts(self, videos: Sequence[Video], number: int, lists: Path | None = None) -> OfficialParts:
        """Return the parts of official split `number`, see the function of this name."""
        return official_parts(videos, number, lists or self.lists)

    def _clips_of(self, name: str) -> list[Path]:
        clips = self._clips.get(name)
        if clips == []:
            raise VidclfError(
                f"{self.root / name}: the class folder holds no .avi file. "
                "Extract it again from the archive, or remove it if it is no class."
            )
        return clips or []


def official_parts(videos: Sequence[Video], number: int, lists: Path | None = None) -> OfficialParts:
    """Return the parts of videos in UCF101's official split `number`.

    With `lists`, test is what testlist0`number`.txt names. Without, it is groups 1-7, 8-14 or 15-21 of every class,
    which are the same videos. The unit of independence is (class, group): a group is one long video of its class, cut
    into clips.

    Raises:
        VidclfError: the lists, or the names of the groups, do not say where a video belongs.
    """
    if lists is None:
        return OfficialParts(["test" if is_test_group(video, number) else "train" for video in videos])
    parts = ["test" if is_test else "train" for is_test in in_test_list(videos, number, lists)]
    classes = {video.name.rpartition("/")[0] for video in videos}
    listed = {name for name in read_list(lists / f"testlist{number:02d}.txt") if name.rpartition("/")[0] in classes}
    return OfficialParts(parts, num_missing=len(listed - {video.name for video in videos}))


def is_test_group(video: Video, number: int) -> bool:
    """Return whether the official split `number` tests on the video's group: one of seven."""
    digits = video.group.removeprefix("g")
    if not digits.isdecimal():
        raise VidclfError(
            f"{video.name}: its group is {video.group!r}; split=official needs g01, g02, ..., "
            "or lists (dataset.lists=FOLDER)."
        )
    return 7 * (number - 1) < int(digits) <= 7 * number


def find_clips(root: Path) -> dict[str, list[Path]]:
    """Return the sorted .avi files of every class folder below `root`, or of every class in a flat `root`."""
    if not root.is_dir():
        raise VidclfError(f"{root}: there is no such folder. {EXPECTED_TREE.format(root=root)}")
    loose = _avi_files(root)
    folders = {folder.name: _avi_files(folder) for folder in _folders(root)}
    filled = sorted(name for name, clips in folders.items() if clips)
    if loose and filled:
        raise VidclfError(
            f"{root} holds class folders ({first_five(filled)}) and also loose clips "
            f"({first_five([path.name for path in loose])}). Move the loose clips into their folders."
        )
    if loose:
        return _by_action(loose)
    if not filled:
        _raise_no_clips(root, sorted(folders))
    return folders


def _say_what_is_no_avi(root: Path, class_names: Sequence[str]) -> None:
    folders = [root, *(root / name for name in class_names if (root / name).is_dir())]
    entries = (entry for folder in folders for entry in os.scandir(folder) if not entry.name.lower().endswith(".avi"))
    others = sorted(path for path in map(Path, entries) if is_video(path) and path.is_file())
    if others:
        say(
            f"{root}: {len(others)} video file(s) are no .avi, as UCF101's are, and are left out: "
            f"{names_below(others, root)}. dataset=folder takes all kinds."
        )


def _folders(root: Path) -> list[Path]:
    return sorted(Path(entry) for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))


def _avi_files(folder: Path) -> list[Path]:
    names = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    return [folder / name for name in names if name.lower().endswith(".avi")]


def _raise_no_clips(root: Path, folders: Sequence[str]) -> NoReturn:
    for name in folders:
        if any(_avi_files(inner) for inner in _folders(root / name)):
            raise VidclfError(f"{root} holds the class folders one level down: set dataset.root={root / name}.")
    where = f"nor in its folders ({first_five(folders)})" if folders else "and no folders"
    raise VidclfError(f"{root}: there is no .avi file in it {where}. {EXPECTED_TREE.format(root=root)}")


def _match(path: Path) -> re.Match[str]:
    match = CLIP_NAME.fullmatch(path.name)
    if match is None:
        raise VidclfError(
            f"{path}: the file name says no group; expected is v_<class>_g<two digits>_c<two digits>.avi, "
            "as in v_Archery_g01_c01.avi. Rename the file or move it away."
        )
    return match


def _by_action(clips: Iterable[Path]) -> dict[str, list[Path]]:
    classes: dict[str, list[Path]] = {}
    for path in clips:
        action = _match(path)["action"]
        classes.setdefault(FOLDER_OF.get(action, action), []).append(path)
    return classes


def _check_no_other_folder(names: Iterable[str], order: Sequence[str], root: Path) -> None:
    others = sorted(set(names) - set(order))
    if others:
        raise VidclfError(
            f"{root} holds {len(others)} class(es) that classInd.txt does not name: {first_five(others)}. "
            "Rename or remove them, or choose the classes with dataset.classes."
        )


def _check_file_names_differ(videos: Sequence[Video]) -> None:
    folders: dict[str, list[str]] = {}
    for video in videos:
        folders.setdefault(video.name.rpartition("/")[2], []).append(str(video.path))
    for name, paths in folders.items():
        if len(paths) > 1:
            raise VidclfError(f"{name} is there {len(paths)} times: {first_five(paths)}. Keep the one that is right.")

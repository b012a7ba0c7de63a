"""UCF101 as its archive unpacks it, and its official splits: labels from folders, groups from file names.

Source: Soomro, Zamir and Shah, "UCF101", 2012, arXiv:1212.0402; https://www.crcv.ucf.edu/data/UCF101.php
"""

import re
from collections.abc import Sequence
from pathlib import Path

from vidclf.contracts import OfficialParts, Video
from vidclf.data.datasets.listed import ListedClips, avi_files
from vidclf.data.listing import choose_classes, find_folders, read_names, repeated, sort_names
from vidclf.errors import VidclfError
from vidclf.system.text import first_five

CLIP_NAME = re.compile(r"v_(?P<action>.+)_(?P<group>g\d\d)_c\d\d+\.avi", re.IGNORECASE)
LISTS = (
    "Set dataset.lists to the folder of UCF101's recognition-task lists (ucfTrainTestlist), or leave it out to split "
    "by group numbers."
)
FOLDER_OF = {"HandStandPushups": "HandstandPushups"}  # the only class with different spellings in files and folder


class UCF101(ListedClips):
    """The labelled clips below `root`.

    Labels follow classInd.txt if `lists` has that file, else alphabetical order regardless of case, which is the same
    for UCF101. Hidden files and all but .avi are skipped.

    Args:
        root: a folder of class folders, or of all clips (v_<class>_g<group>_c<clip>.avi).
        lists: the folder of the official lists; the clips below `root` must match them.
        classes: use these classes only, in the order above.
        allow_missing: warn, and do not raise, if `lists` name clips that are missing.
        on_error: "raise" at a damaged clip, or "skip" it: it is counted and listed.

    Raises:
        VidclfError: an argument does not fit the files; the message shows the expected layout.
    """

    credit: str = ""
    expected_tree = """Expected are UCF101's class folders, or all its clips in one folder:
  {root}/Archery/v_Archery_g01_c01.avi
  {root}/YoYo/v_YoYo_g25_c05.avi
Set dataset.root to the folder that UCF101.rar unpacks to (usually UCF-101)."""

    def __init__(
        self,
        root: str | Path,
        lists: str | Path | None = None,
        classes: Sequence[str | int | None] | None = None,
        allow_missing: bool = False,
        on_error: str = "raise",
    ) -> None:
        super().__init__(root, lists, allow_missing, on_error)
        self._clips = self._find_clips()
        names = (self.lists and _read_class_names(self.lists)) or sort_names(self._clips)
        unknown = sorted(set(self._clips) - set(names))
        if classes is None and unknown:
            raise VidclfError(
                f"{self.root} holds {len(unknown)} class(es) that classInd.txt does not name: {first_five(unknown)}. "
                "Rename or remove them, or choose the classes with dataset.classes."
            )
        self.class_names = choose_classes(classes, names)
        self.report_other_videos()

    def videos(self) -> list[Video]:
        """Return every clip of `class_names`, sorted by label, then name.

        Raises:
            VidclfError: a class folder is empty, a file name has no group or is in two folders, or the clips do not
                match `lists`.
        """
        videos = []
        for label, name in enumerate(self.class_names):
            clips = self._clips.get(name)
            if clips == []:
                raise VidclfError(
                    f"{self.root / name}: the class folder holds no .avi file. "
                    "Re-extract it from the archive, or remove it if it is not a class."
                )
            for path in clips or []:
                group = _match(path)["group"].lower()
                videos.append(Video(path, label, group, name=f"{name}/{path.stem}{path.suffix.lower()}"))
        for name in repeated(video.name.rpartition("/")[2] for video in videos):
            paths = [str(video.path) for video in videos if video.name.endswith(f"/{name}")]
            raise VidclfError(f"{name} is there {len(paths)} times: {first_five(paths)}. Keep the correct one.")
        if self.lists is not None:
            listed = {name for file in _list_files(self.lists) for name in _read_list(file)}
            self.check_listed(videos, listed)
        return videos

    def official_parts(self, videos: Sequence[Video], number: int, lists: Path | None = None) -> OfficialParts:
        """Return the parts of official split `number`, see the function of this name."""
        return official_parts(videos, number, lists or self.lists)

    def _find_clips(self) -> dict[str, list[Path]]:
        """Return the .avi files of every class folder below the root, or of every class in a flat root."""
        loose = avi_files(self.root)
        clips = {folder.name: avi_files(folder) for folder in find_folders(self.root)}
        filled = [name for name, paths in clips.items() if paths]
        if loose and filled:
            raise VidclfError(
                f"{self.root} holds class folders ({first_five(filled)}) and also loose clips "
                f"({first_five([path.name for path in loose])}). Move the loose clips into their folders."
            )
        if loose:
            return _by_action(loose)
        if not filled:
            for name in clips:
                if any(avi_files(inner) for inner in find_folders(self.root / name)):
                    raise VidclfError(
                        f"{self.root} holds the class folders one level down: set dataset.root={self.root / name}."
                    )
            where = f"nor in its folders ({first_five(list(clips))})" if clips else "and no folders"
            raise self.layout_error(f"there is no .avi file in it {where}")
        return clips


def official_parts(videos: Sequence[Video], number: int, lists: Path | None = None) -> OfficialParts:
    """Return the parts of videos in UCF101's official split `number`.

    Test is what testlist0`number`.txt in `lists` names. Without lists, test is groups 1-7, 8-14 or 15-21 of every
    class, which are the same videos. Groups are counted per class: a group is one long video, cut into clips.

    Raises:
        VidclfError: the lists or the group names do not determine a video's part.
    """
    if lists is None:
        return OfficialParts(["test" if is_test_group(video, number) else "train" for video in videos])
    files = [lists / f"{part}list{number:02d}.txt" for part in ("train", "test")]
    train, test = (set(_read_list(path)) for path in files)
    wrong = [video.name for video in videos if (video.name in train) == (video.name in test)]
    if wrong:
        raise VidclfError(
            f"{len(wrong)} of {len(videos)} videos are not in exactly one of {files[0].name} and {files[1].name} in "
            f"{lists}: {first_five(wrong)}. Correct the lists or remove the videos."
        )
    names = {video.name for video in videos}
    classes = {name.rpartition("/")[0] for name in names}
    missing = {name for name in test - names if name.rpartition("/")[0] in classes}
    return OfficialParts(["test" if video.name in test else "train" for video in videos], len(missing))


def is_test_group(video: Video, number: int) -> bool:
    """Return whether official split `number` tests on the video's group; each split tests on seven groups."""
    digits = video.group.removeprefix("g")
    if not digits.isdecimal():
        raise VidclfError(
            f"{video.name}: its group is {video.group!r}; split=official needs g01, g02, ..., "
            "or lists (dataset.lists=FOLDER)."
        )
    return 7 * (number - 1) < int(digits) <= 7 * number


def _match(path: Path) -> re.Match[str]:
    match = CLIP_NAME.fullmatch(path.name)
    if match is None:
        raise VidclfError(
            f"{path}: the file name has no group; expected is v_<class>_g<two digits>_c<two digits>.avi, "
            "such as v_Archery_g01_c01.avi. Rename the file or move it away."
        )
    return match


def _by_action(clips: Sequence[Path]) -> dict[str, list[Path]]:
    classes: dict[str, list[Path]] = {}
    for path in clips:
        action = _match(path)["action"]
        classes.setdefault(FOLDER_OF.get(action, action), []).append(path)
    return classes


def _read_class_names(lists: Path) -> list[str] | None:
    """Return the class names of classInd.txt in the order of its numbers; None if there is no such file."""
    path = lists / "classInd.txt"
    if not path.is_file():
        return None
    matches = [re.fullmatch(r"(?:(\d+)\s+)?(.*)", line) for line in read_names(path, LISTS)]
    return [match[2] for match in sorted(filter(None, matches), key=lambda match: int(match[1] or 0))]


def _list_files(lists: Path) -> list[Path]:
    files = sorted([*lists.glob("trainlist*.txt"), *lists.glob("testlist*.txt")])
    if not files:
        raise VidclfError(
            f"dataset.lists={lists}: {'it holds no' if lists.is_dir() else 'there is no such folder with a'} "
            f"trainlist01.txt or testlist01.txt. {LISTS}"
        )
    return files


def _read_list(path: Path) -> list[str]:
    """Return the names `<class>/<file>` of a train or test list, without the labels of train lists."""
    return [re.sub(r"\s+\d+$", "", line) for line in read_names(path, LISTS)]

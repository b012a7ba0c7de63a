"""HMDB51 as its archives unpack it, and what its official lists say.

Source: Kuehne et al., "HMDB: A Large Video Database for Human Motion Recognition", ICCV 2011;
https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from vidclf.contracts import OfficialParts, Video
from vidclf.data.datasets.classes import check_choice, choose_classes, sort_names
from vidclf.data.datasets.ucf101_lists import check_listed
from vidclf.data.files import is_video, names_below, read_names
from vidclf.errors import VidclfError
from vidclf.system.terminal import say
from vidclf.system.text import first_five

PARTS_OF_DIGIT = {"1": "train", "2": "test", "0": "unused"}
EXPECTED = """Expected is a folder for each action:
  {root}/wave/TrumanShow_wave_f_nm_np1_fr_med_26.avi
Set dataset.root to the folder that the action archives (wave.rar, ...) are unpacked in."""


class HMDB51:
    """The clips below `root`: labels from the folders, groups (the film) from what stands before `_<action>_`.

    Args:
        root: a folder of action folders.
        lists: the folder of the official lists (`wave_test_split1.txt`, ...), which `split=official` needs.
        classes: take these actions only; they are in the order of their names.
        allow_missing: go on, with a warning, where `lists` name clips that are not there.
        on_error: as in `UCF101`.

    Raises:
        VidclfError: `root`, `lists` or `classes` are not as said; the message shows what is there.
    """

    split_numbers = (1, 2, 3)

    def __init__(
        self,
        root: str | Path,
        lists: str | Path | None = None,
        classes: Sequence[str | int] | None = None,
        allow_missing: bool = False,
        on_error: str = "raise",
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        self.root, self.on_error, self.allow_missing = Path(root).expanduser(), on_error, allow_missing
        self.lists = None if lists is None else Path(lists).expanduser()
        if not self.root.is_dir():
            raise VidclfError(f"{self.root}: there is no such folder. {EXPECTED.format(root=self.root)}")
        self._files = {
            folder.name: sorted(Path(entry) for entry in os.scandir(folder) if is_video(Path(entry)))
            for folder in map(Path, os.scandir(self.root))
            if folder.is_dir() and not folder.name.startswith(".")
        }
        if not any(self._files.values()):
            raise VidclfError(f"{self.root}: no folder in it holds a clip. {EXPECTED.format(root=self.root)}")
        self.class_names = choose_classes(classes, sort_names(self._files))

    def videos(self) -> list[Video]:
        """Return every clip of `class_names`, sorted by label, then name.

        Raises:
            VidclfError: a file name has no group, or the clips are not those that `lists` name.
        """
        files = [(label, path) for label, name in enumerate(self.class_names) for path in self._files[name]]
        others = [path for _, path in files if path.suffix.lower() != ".avi"]
        if others:
            found = names_below(others, self.root)
            say(f"{self.root}: {len(others)} video file(s) are no .avi, as HMDB51's are, and are left out: {found}.")
        videos = [
            Video(path, label, _group_of(path), name=f"{path.parent.name}/{path.name}")
            for label, path in files
            if path not in others
        ]
        if self.lists is not None:
            listed = {
                name for number in self.split_numbers for name in _read_lists(self.lists, number, self.class_names)
            }
            check_listed(videos, listed, self.root, self.lists, self.class_names, self.allow_missing)
        return videos

    def official_parts(self, videos: Sequence[Video], number: int, lists: Path | None = None) -> OfficialParts:
        """Return the parts of official split `number`, as the lists state them: some groups cross them.

        Raises:
            VidclfError: there are no lists, a list is missing or malformed, or a video is in none of them.
        """
        lists = lists or self.lists
        if lists is None:
            raise VidclfError(
                "dataset.lists: HMDB51's official splits are known by their lists only. Set it to their folder "
                "(testTrainMulti_7030_splits)."
            )
        listed = _read_lists(lists, number, {video.name.partition("/")[0] for video in videos})
        unlisted = [video.name for video in videos if video.name not in listed]
        if unlisted:
            raise VidclfError(
                f"{len(unlisted)} of {len(videos)} videos are in no list of split {number} in {lists}: "
                f"{first_five(unlisted)}. Correct the lists or remove the videos."
            )
        tested = {name for name, part in listed.items() if part == "test"}
        parts = [listed[video.name] for video in videos]
        return OfficialParts(parts, len(tested - {video.name for video in videos}), groups_may_cross=True)


def _read_lists(lists: Path, number: int, actions: Iterable[str]) -> dict[str, str]:
    """Return `<action>/<file>` -> part, of the lists of a split."""
    parts: dict[str, str] = {}
    for action in actions:
        path = lists / f"{action}_test_split{number}.txt"
        if not path.is_file():
            raise VidclfError(
                f"{path}: there is no such file. Set dataset.lists to the folder of HMDB51's lists "
                "(testTrainMulti_7030_splits), and dataset.root to that of its actions."
            )
        for line in read_names(path):
            name, _, digit = line.rpartition(" ")
            part = PARTS_OF_DIGIT.get(digit)
            if part is None or parts.setdefault(f"{action}/{name.strip()}", part) != part:
                raise VidclfError(f"{path}: {line!r}: a line is a clip's name, once, and 1 (train), 2 (test) or 0.")
    return parts


def _group_of(path: Path) -> str:
    group, _, tags = path.name.rpartition(f"_{path.parent.name}_")
    if not (group and tags):
        raise VidclfError(
            f"{path}: the file name says no group; expected is <film>_{path.parent.name}_<tags>.avi. "
            "Rename the file or move it away."
        )
    return group

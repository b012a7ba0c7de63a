"""HMDB51 as its archives unpack it, and its official splits.

Source: Kuehne et al., "HMDB: A Large Video Database for Human Motion Recognition", ICCV 2011;
https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from vidclf.contracts import OfficialParts, Video
from vidclf.data.datasets.listed import ListedClips, avi_files
from vidclf.data.listing import choose_classes, find_folders, read_names, sort_names
from vidclf.errors import VidclfError
from vidclf.system.text import first_five

REMEDY = "Set dataset.lists to the folder of HMDB51's lists (testTrainMulti_7030_splits)"
PARTS_OF_DIGIT = {"1": "train", "2": "test", "0": "unused"}


class HMDB51(ListedClips):
    """The clips below `root`. Labels are the folders; groups (films) are the text before `_<action>_` in file names.

    Args:
        root: a folder of action folders.
        lists: the folder of the official lists (`wave_test_split1.txt`, ...), which `split=official` needs.
        classes: use these actions only; classes are in alphabetical order.
        allow_missing: warn, and do not raise, if `lists` name clips that are missing.
        on_error: as in `UCF101`.

    Raises:
        VidclfError: an argument does not fit the files; the message shows the expected layout.
    """

    expected_tree = """Expected is a folder for each action:
  {root}/wave/TrumanShow_wave_f_nm_np1_fr_med_26.avi
Set dataset.root to the folder that the action archives (wave.rar, ...) are unpacked in."""

    def __init__(
        self,
        root: str | Path,
        lists: str | Path | None = None,
        classes: Sequence[str | int | None] | None = None,
        allow_missing: bool = False,
        on_error: str = "raise",
    ) -> None:
        super().__init__(root, lists, allow_missing, on_error)
        self._clips = {folder.name: avi_files(folder) for folder in find_folders(self.root)}
        if not any(self._clips.values()):
            raise self.layout_error("none of its folders holds an .avi file")
        self.class_names = choose_classes(classes, sort_names(self._clips))
        self.report_other_videos()

    def videos(self) -> list[Video]:
        """Return every clip of `class_names`, sorted by label, then name.

        Raises:
            VidclfError: a file name has no group, or the clips do not match `lists`.
        """
        videos = [
            Video(path, label, _group_of(path), name=f"{name}/{path.name}")
            for label, name in enumerate(self.class_names)
            for path in self._clips[name]
        ]
        if self.lists is not None:
            lists, classes = self.lists, self.class_names
            self.check_listed(videos, {name for number in (1, 2, 3) for name in _read_lists(lists, number, classes)})
        return videos

    def official_parts(self, videos: Sequence[Video], number: int, lists: Path | None = None) -> OfficialParts:
        """Return the parts of official split `number` as the lists state them; some groups cross parts.

        Raises:
            VidclfError: there are no lists, a list is missing or malformed, or a video is in none of them.
        """
        lists = lists or self.lists
        if lists is None:
            raise VidclfError(f"dataset.lists: HMDB51's official splits need their lists. {REMEDY}.")
        part_of = _read_lists(lists, number, {video.name.partition("/")[0] for video in videos})
        unlisted = [video.name for video in videos if video.name not in part_of]
        if unlisted:
            raise VidclfError(
                f"{len(unlisted)} of {len(videos)} videos are in no list of split {number} in {lists}: "
                f"{first_five(unlisted)}. Correct the lists or remove the videos."
            )
        missing = {name for name, part in part_of.items() if part == "test"} - {video.name for video in videos}
        return OfficialParts([part_of[video.name] for video in videos], len(missing), groups_may_cross=True)


def _read_lists(lists: Path, number: int, actions: Iterable[str]) -> dict[str, str]:
    """Return the part of each `<action>/<file>` in the lists of a split."""
    part_of: dict[str, str] = {}
    for action in actions:
        path = lists / f"{action}_test_split{number}.txt"
        for line in read_names(path, f"{REMEDY}, and dataset.root to that of its actions."):
            name, _, digit = line.rpartition(" ")
            part = PARTS_OF_DIGIT.get(digit)
            if part is None or part_of.setdefault(f"{action}/{name.strip()}", part) != part:
                raise VidclfError(f"{path}: {line!r}: a line is a clip's name, once, and 1 (train), 2 (test) or 0.")
    return part_of


def _group_of(path: Path) -> str:
    group, _, tags = path.name.rpartition(f"_{path.parent.name}_")
    if not (group and tags):
        raise VidclfError(
            f"{path}: the file name has no group; expected is <film>_{path.parent.name}_<tags>.avi. "
            "Rename the file or move it away."
        )
    return group

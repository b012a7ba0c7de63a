"""What UCF101 and HMDB51 share: .avi clips below one folder, and official lists that name them."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from vidclf.contracts import Video
from vidclf.data.listing import check_choice, is_video, names_below
from vidclf.errors import VidclfError
from vidclf.system.terminal import say
from vidclf.system.text import first_five


class ListedClips:
    """A data set of .avi clips below `root`, which the files in `lists` may name.

    Subclasses set `class_names` and `expected_tree`, the text that describes the layout with {root} in it.
    """

    split_numbers: tuple[int, ...] = (1, 2, 3)
    class_names: list[str]
    expected_tree: str

    def __init__(self, root: str | Path, lists: str | Path | None, allow_missing: bool, on_error: str) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        self.root, self.allow_missing, self.on_error = Path(root).expanduser(), allow_missing, on_error
        self.lists = None if lists is None else Path(lists).expanduser()
        if not self.root.is_dir():
            raise self.layout_error("there is no such folder")

    def layout_error(self, what: str) -> VidclfError:
        """Return the error that shows the expected layout."""
        return VidclfError(f"{self.root}: {what}. {self.expected_tree.format(root=self.root)}")

    def report_other_videos(self) -> None:
        """Report the video files that are skipped because they are not .avi."""
        folders = [self.root, *(self.root / name for name in self.class_names if (self.root / name).is_dir())]
        paths = (path for folder in folders for path in folder.iterdir() if path.suffix.lower() != ".avi")
        skipped = sorted(path for path in paths if is_video(path) and path.is_file())
        if skipped:
            say(
                f"{self.root}: {len(skipped)} video file(s) are not .avi, as {type(self).__name__}'s are, and are "
                f"skipped: {names_below(skipped, self.root)}. dataset=folder takes all kinds."
            )

    def check_listed(self, videos: Sequence[Video], listed: set[str]) -> None:
        """Raise if a video is not `listed`, or if a listed video of `class_names` is missing and may not be."""
        names = {video.name for video in videos}
        unlisted = sorted(names - listed)
        if unlisted:
            raise VidclfError(
                f"{len(unlisted)} of {len(names)} videos in {self.root} are named by no list in {self.lists}: "
                f"{first_five(unlisted)}. Remove them, or leave dataset.lists out."
            )
        expected = {name for name in listed if name.rpartition("/")[0] in self.class_names}
        missing = sorted(expected - names)
        if not missing:
            return
        what = (
            f"{len(missing)} of {len(expected)} videos that the lists in {self.lists} name are not in {self.root}: "
            f"{first_five(missing)}."
        )
        if not self.allow_missing:
            raise VidclfError(f"{what} Re-extract the archive, or pass dataset.allow_missing=true.")
        warnings.warn(what, stacklevel=3)


def avi_files(folder: Path) -> list[Path]:
    """Return the .avi files of a folder, sorted, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".avi" and not path.name.startswith("."))

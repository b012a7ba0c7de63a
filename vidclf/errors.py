"""Errors that a person can act on; the command line prints them as one sentence."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidclf.contracts import Video


class VidclfError(Exception):
    """A setting, a file or a machine is not as it must be. The message names it, the value, and what to do."""


class VideoError(VidclfError):
    """A file is not a video, or is damaged. The message names the file and what to do."""


class DatasetError(VidclfError):
    """A data set's folders or its table have problems.

    Attributes:
        problems: a sentence each, at least one.
        videos: what the data set holds without them, which `vidclf check` examines.
    """

    def __init__(self, problems: Sequence[str], videos: "Sequence[Video]") -> None:
        more = f" {len(problems) - 1} more problem(s): vidclf check lists them." if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems, self.videos = list(problems), list(videos)

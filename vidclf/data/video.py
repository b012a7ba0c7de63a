"""Video and Views, the two things that travel between the rooms, and what goes wrong with a video."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from vidclf.errors import VidclfError


class VideoError(VidclfError):
    """A file that is not a video, or a damaged one. The message names the file and what to do."""


@dataclass(frozen=True)
class Video:
    """A labelled clip; `group` says which long video of its class it was cut from (UCF101's `g07`).

    `folder` is the class folder it belongs in, where it is not the one `path` lies in (a flat folder).
    """

    path: Path
    label: int
    group: str
    folder: str = ""

    @property
    def name(self) -> str:
        """`<class folder>/<file name>`, the same on every machine; the extension in lower case."""
        return f"{self.folder or self.path.parent.name}/{self.path.stem}{self.path.suffix.lower()}"


class Views(NamedTuple):
    """A batch of N views, and whose they are.

    `inputs` are pictures (N, T, 3, h, w) or features (N, S, D); `labels` are class indices (N,) or
    probabilities (N, K); `video` and `view` (N,) are the position of the video in its data set and of the
    view in its video.
    """

    inputs: Float[Tensor, "N ..."]
    labels: Int[Tensor, " N"] | Float[Tensor, "N K"]
    video: Int[Tensor, " N"]
    view: Int[Tensor, " N"]

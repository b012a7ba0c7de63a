"""Video and Views, the two things that travel between the rooms, and what goes wrong with a video."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from vidclf.errors import VidclfError


class VideoError(VidclfError):
    """A file that is not a video, or a damaged one. The message names the file and what to do."""


def death_of(path: Path, error: Exception) -> VideoError:
    """Return what to say where the worker that reads a video failed for another reason than the video, and where."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f", {Path(trace.tb_frame.f_code.co_filename).name} line {trace.tb_lineno}" if trace else ""
    return VideoError(
        f"{path}: the worker that read it failed ({type(error).__name__}: {error}{where}). Mend that, or pass "
        "dataset.on_error=skip to leave the video out (it is listed and counted)."
    )


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

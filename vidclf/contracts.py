"""What travels between the rooms, and what each stage promises; the way itself is drawn in `vidclf/__init__.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Video:
    """A labelled video, or a labelled segment of one.

    Attributes:
        path: of the file.
        label: class index.
        group: what it was cut from or who is in it (UCF101's `g07`): videos of a group are not independent.
        side: train, val or test, where its data set says so.
        start_s: where the segment begins, in seconds; None: at the first frame.
        end_s: where the segment ends; None: at the last frame.
        name: the same on every machine, and no other video's. Where the data set gives none it is the path (below
            the data set's `root`, once listed), and the segment: `a/b.mp4#1.5-4`.
        shared: whether the group's name means one thing in all classes (a person, a camera), or in its class alone.
        class_name: of its label, for messages; "": its name begins with it.
    """

    path: Path
    label: int
    group: str
    side: str | None = None
    start_s: float | int | None = None
    end_s: float | int | None = None
    name: str = ""
    shared: bool = False
    class_name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            ends = ["" if time is None else f"{time:.12g}" for time in (self.start_s, self.end_s)]
            segment = f"#{'-'.join(ends)}" if any(ends) else ""
            object.__setattr__(self, "name", f"{self.path.as_posix()}{segment}")

    @property
    def unit(self) -> tuple[int, str]:
        """What stands on one side of a split as a whole: the group, of its class or of all of them."""
        return -1 if self.shared else self.label, self.group


@dataclass(frozen=True, eq=False)
class VideoViews:
    """The views of one video that are used.

    Attributes:
        video: its position in the list of videos.
        label: class index.
        views: which of its views, (V,).
        frames: the frames of each, (V, T).
    """

    video: int
    label: int
    views: Int[Tensor, " V"]
    frames: Int[Tensor, "V T"]


class Views(NamedTuple):
    """A batch of N views, and whose they are.

    `inputs` are pictures (N, T, 3, h, w) or features (N, S, D); `labels` are class indices (N,) or
    probabilities (N, K); `video` and `view` (N,) are the position of the video in its list and of the view in
    its video. A view of video -1 is nobody's: it fills a batch of a process that has none left.
    """

    inputs: Float[Tensor, "N ..."]
    labels: Int[Tensor, " N"] | Float[Tensor, "N K"]
    video: Int[Tensor, " N"]
    view: Int[Tensor, " N"]


def count_views(views: Sequence[VideoViews]) -> int:
    """Return the number of views of all videos."""
    return sum(len(one.views) for one in views)


def name_views(inputs: Tensor, views: Sequence[VideoViews], num_crops: int) -> Views:
    """Say of each input whose it is; the crops of view v are the views v * num_crops and following."""
    counts = torch.tensor([len(one.views) * num_crops for one in views], dtype=torch.int64)
    labels = torch.tensor([one.label for one in views], dtype=torch.int64).repeat_interleave(counts)
    video = torch.tensor([one.video for one in views], dtype=torch.int64).repeat_interleave(counts)
    numbers = torch.cat([one.views for one in views]) if views else torch.empty(0, dtype=torch.int64)
    view = (numbers[:, None] * num_crops + torch.arange(num_crops)).flatten()
    return Views(inputs, labels, video, view)


def nobodys(views: Views) -> Views:
    """Return a batch of one view that counts for nothing: it is video -1's."""
    first = Views(*(part[:1] for part in views))
    return first._replace(video=torch.full_like(first.video, -1))


@dataclass(frozen=True)
class PictureFormat:
    """How frames become a backbone's pictures.

    The shorter side is resized to `resize` pixels (a pair: height and width), the middle `size` x `size` pixels
    are cut out, values in 0..1 are normalised by `mean` and `std` (one for each of R, G, B), and `clip_length`
    frames go in at once: 1 for a picture backbone. `antialias` says whether what is resized is smoothed first;
    None: pictures are and clips are not, as torchvision evaluates its own. Where the middle lies between two pixels,
    its corner is rounded as torchvision does, or `crop_down`, as transformers does.
    """

    size: int
    resize: int | tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    clip_length: int = 1
    antialias: bool | None = None
    crop_down: bool = False

    @property
    def is_antialiased(self) -> bool:
        """Whether what is resized is smoothed first."""
        return self.clip_length == 1 if self.antialias is None else self.antialias


@runtime_checkable
class Dataset(Protocol):
    """A data set lists its videos; it reads names and lists, no video."""

    class_names: list[str]  # in label order
    on_error: str  # raise: a damaged video ends the work; skip: it is left out, counted and listed

    def videos(self) -> list[Video]:
        """Return every labelled video."""


@runtime_checkable
class Sampling(Protocol):
    """Which frames of a video are looked at."""

    @property
    def random(self) -> bool:
        """Whether a generator changes the indices."""

    def __call__(self, num_frames: int, fps: float | int, generator: Generator | None = None) -> Int[Tensor, "V T"]:
        """Return int64 frame indices; V depends on the video, T does not. A generator means training."""


@runtime_checkable
class Transform(Protocol):
    """From frames to the pictures that a backbone wants.

    One may have two halves, `crop` to bytes and `normalize` to numbers, see `vidclf.data.transforms.halves_of`.
    """

    @property
    def num_crops(self) -> int:
        """Pictures made of a frame."""

    @property
    def random(self) -> bool:
        """Whether pictures are drawn by chance; their features are then not stored."""

    def __call__(self, frames: UInt8[Tensor, "V T 3 H W"]) -> Float[Tensor, "views T 3 h w"]:
        """Return V * num_crops views of pictures, the crops of a view behind one another."""

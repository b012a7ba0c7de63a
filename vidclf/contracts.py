"""What travels between the stages, and what each stage promises. `vidclf/__init__.py` draws the data's path.

A stage is any object that fits its protocol. Members that a protocol declares as optional have a default there, and
`optional` reads them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

Kind = TypeVar("Kind")

PARTS = ("train", "val", "test")
DEFAULTS: dict[type, dict[str, Any]] = {}  # of the optional members, by protocol


def optional_members(**defaults: Any) -> Callable[[type[Kind]], type[Kind]]:
    """Declare the optional members of a protocol, with their defaults."""

    def declare(protocol: type[Kind]) -> type[Kind]:
        DEFAULTS[protocol] = defaults
        return protocol

    return declare


def optional(stage: object, protocol: type, name: str) -> Any:
    """Return an optional member of a stage, or the default that its protocol declares."""
    return getattr(stage, name, DEFAULTS[protocol][name])


@dataclass(frozen=True)
class Video:
    """A labelled video, or a labelled segment of one.

    Attributes:
        path: of the file.
        label: class index.
        group: what it was cut from, or who is in it (UCF101's `g07`): videos of one group are not independent.
        part: train, val or test, where the data set says so.
        start_s: where the segment begins, in seconds; None: at the first frame.
        end_s: where the segment ends; None: at the last frame.
        name: unique, and the same on every machine. By default the path (below the data set's `root`, once listed) and
            the segment: `a/b.mp4#1.5-4`.
        shared: whether the group's name means one thing in all classes (a person, a camera), or only in its class.
        class_name: of its label, for messages; "": the first folder of its name.
    """

    path: Path
    label: int
    group: str
    part: str | None = None
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
        """Return what a split never divides: the group, of its class (label) or of all classes (-1)."""
        return -1 if self.shared else self.label, self.group


@dataclass(frozen=True, eq=False)
class VideoViews:
    """The views of one video that are used.

    Attributes:
        video: its position in the list of videos.
        label: class index.
        views: the numbers of its views, (V,).
        frames: the frames of each view, (V, T).
    """

    video: int
    label: int
    views: Int[Tensor, " V"]
    frames: Int[Tensor, "V T"]


class Views(NamedTuple):
    """A batch of N views, labelled with their video and view.

    `inputs` are images (N, T, 3, h, w) or features (N, S, D); `labels` are class indices (N,) or probabilities (N, K);
    `video` and `view` (N,) are positions in the list of videos and in the video's views. A view of video -1 is
    padding: it fills a batch of a process that has none left.
    """

    inputs: Float[Tensor, "N ..."]
    labels: Int[Tensor, " N"] | Float[Tensor, "N K"]
    video: Int[Tensor, " N"]
    view: Int[Tensor, " N"]


def count_views(views: Sequence[VideoViews]) -> int:
    """Return the number of views of all videos."""
    return sum(len(video.views) for video in views)


def label_views(inputs: Tensor, views: Sequence[VideoViews], num_crops: int) -> Views:
    """Label each input with its video and view; the crops of view v are the views v * num_crops and following."""
    counts = torch.tensor([len(video.views) * num_crops for video in views], dtype=torch.int64)
    labels = torch.tensor([video.label for video in views], dtype=torch.int64).repeat_interleave(counts)
    positions = torch.tensor([video.video for video in views], dtype=torch.int64).repeat_interleave(counts)
    numbers = torch.cat([video.views for video in views]) if views else torch.empty(0, dtype=torch.int64)
    view = (numbers[:, None] * num_crops + torch.arange(num_crops)).flatten()
    return Views(inputs, labels, positions, view)


def padding_batch(views: Views) -> Views:
    """Return a batch of one view that counts for nothing: its video is -1."""
    first = Views(*(column[:1] for column in views))
    return first._replace(video=torch.full_like(first.video, -1))


@dataclass(frozen=True)
class PictureFormat:
    """Describes how frames become a backbone's images.

    The shorter side is resized to `resize` pixels (a pair: height and width), the middle `size` x `size` pixels are
    cropped, values in 0..1 are normalised by `mean` and `std` (one for each of R, G, B), and `clip_length` frames go in
    at once: 1 for an image backbone. `antialias` says whether resizing smooths first; None: for images, not for clips,
    as torchvision evaluates its own. Where the middle lies between two pixels, its corner is rounded as torchvision
    does, or down with `crop_down`, as transformers does.
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
        """Return whether resizing smooths first."""
        return self.clip_length == 1 if self.antialias is None else self.antialias


@dataclass(frozen=True)
class OfficialParts:
    """The parts of an official split, as its data set knows them.

    Attributes:
        parts: train, val, test or unused, one for each video.
        num_missing: test videos that the official lists name and that are not on disk.
        groups_may_cross: whether the published split puts videos of one group into two parts, and is kept all the same.
    """

    parts: Sequence[str]
    num_missing: int = 0
    groups_may_cross: bool = False


@optional_members(
    **{"on_error": "raise", "root": None, "split_numbers": (), "official_parts": None, "credit": ""},
    **{"needs_look": False, "timelines": None, "background": None, "coded_twice": None},
)
@runtime_checkable
class Dataset(Protocol):
    """A data set lists its videos. It reads names and tables, no video.

    Attributes:
        class_names: in label order.
        on_error: `raise`: a damaged video ends the work; `skip`: it is left out, counted and listed.
        root: videos without a name of their own are named by their path below this folder.
        split_numbers: of the official splits; empty: there are none.
        official_parts: (videos, number, folder that split.lists names) -> OfficialParts; required with split_numbers.
        needs_look: whether `videos` is called with a function from paths to the facts of these files.
        timelines: after `videos`, the labels of long videos over time: stretches by path.
        background: the label of windows without an event.
        coded_twice: (step in s, function from paths to facts) -> what two coders say, of videos that both have seen.
        credit: shown below images of its videos.
    """

    class_names: list[str]

    def videos(self) -> list[Video]:
        """Return every labelled video."""
        ...


@optional_members(official=False, number=None, lists=None, per_view=False)
@runtime_checkable
class SplitRule(Protocol):
    """A split decides the part of every view, from labels and groups alone.

    It is called with the videos and the number of views of each, and returns a `vidclf.data.splits.Split`.

    Attributes:
        official: whether it is called with the data set's `OfficialParts` as a third argument.
        number: of the official split that it wants.
        lists: the folder of official lists, for data sets that read them.
        per_view: whether it puts single views into parts, so that the sampling must not be random.
    """

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int], *official: OfficialParts) -> Any:
        """Return the part of every view."""
        ...


@optional_members(random=False)
@runtime_checkable
class Sampling(Protocol):
    """A sampling chooses the frames of a video that are used.

    Attributes:
        random: whether a generator changes the indices.
    """

    def __call__(self, num_frames: int, fps: float | int, generator: Generator | None = None) -> Int[Tensor, "V T"]:
        """Return int64 frame indices; V depends on the video, T does not. A generator means training."""
        ...


@optional_members(num_crops=1, random=False)
@runtime_checkable
class Transform(Protocol):
    """A transform turns frames into the images that a backbone wants.

    One may have two halves, see `vidclf.data.transforms.halves_of`.

    Attributes:
        num_crops: images made of a frame.
        random: whether images are drawn by chance; their features are then not stored.
    """

    def __call__(self, frames: UInt8[Tensor, "V T 3 H W"]) -> Float[Tensor, "views T 3 h w"]:
        """Return V * num_crops views of images, the crops of one view next to each other."""
        ...


@optional_members(check_classes=None)
@runtime_checkable
class Augmentation(Protocol):
    """An augmentation turns training frames into random images, in place of the transform.

    Attributes:
        check_classes: called with the class names; raises where the augmentation would make labels wrong.
    """

    def __call__(self, frames: UInt8[Tensor, "V T 3 H W"]) -> Float[Tensor, "V T 3 h w"]:
        """Return images, drawn from the global random state."""
        ...


@optional_members(name=None, precision=None, arithmetic="", configuration="", compilable=True, licence="")
@runtime_checkable
class Backbone(Protocol):
    """A backbone is an nn.Module that turns images (N, T, 3, h, w) into features (N, S, D).

    It is frozen, and its features are stored, if none of its parameters wants a gradient.

    Attributes:
        feature_dim: D.
        picture_format: the images that it wants.
        name: for messages and the store's folder; None: its class's name in lower case.
        precision: the number format of its features; None: float32.
        arithmetic: text on how this machine's processor computes the features, where there are several ways.
        configuration: text that determines its features besides the weights.
        compilable: whether torch.compile can make its layers faster.
        licence: of the weights, where it is known.
    """

    feature_dim: int
    picture_format: PictureFormat


@optional_members(scaling="none", fit=None, min_steps=1)
@runtime_checkable
class Head(Protocol):
    """A head is an nn.Module with `__init__(feature_dim, num_classes, ...)` that turns features (N, S, D) into logits.

    Attributes:
        scaling: the scaling before it where scaling=auto: standard, max or none.
        fit: ((features, labels) of train, the same of val, loss) -> rows of heads.csv; for a head that is solved, not
            trained by gradients.
        min_steps: the smallest S that it can be trained on: 2 for a head over time.
    """

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N K"]:
        """Return the logits."""
        ...


@optional_members(fit=None)
@runtime_checkable
class Loss(Protocol):
    """A loss is an nn.Module that training minimises.

    Attributes:
        fit: called with the labels of the training views.
    """

    def forward(self, logits: Float[Tensor, "N K"], labels: Tensor) -> Float[Tensor, ""]:
        """Return the mean loss; labels are class indices (N,), or probabilities (N, K) of mixed views."""
        ...


@runtime_checkable
class Source(Protocol):
    """A source turns lists of VideoViews into batches of Views: of stored features, or of images."""

    @property
    def num_draws(self) -> int:
        """Return how many draws of random training views are prepared at once."""
        ...

    def draw_of(self, epoch: int) -> int:
        """Return which draw of the training views an epoch uses."""
        ...

    def prepare(self, views: Sequence[VideoViews], shard: tuple[int, int] = (1, 1)) -> int:
        """Compute what is missing; return how many units (frames or clips) were computed here."""
        ...

    def training_batches(self, views: Sequence[VideoViews], batch_size: int, epoch: int) -> Iterable[Views]:
        """Return shuffled batches: `batch_size` views in all processes, of which this one has those of its videos."""
        ...

    def scoring_batches(
        self, views: Sequence[VideoViews], batch_size: int | None = None, keep_as: str | None = None
    ) -> Iterable[Views]:
        """Return all views of this process's videos in order: `batch_size` at once, or one video a batch.

        With `keep_as`, the name of a part, all processes get the same number of batches, and the part's views may stay
        in memory, because they will be asked for again.
        """
        ...

    def features(self, views: Sequence[VideoViews]) -> Float[Tensor, "N S D"]:
        """Return the features of all views, those of one video next to each other; damaged videos are left out."""
        ...

"""Choose the frames of a video: V views of T frames each.

A sampling is called with the video's `num_frames` and `fps` and returns frame indices (V, T) from 0 to
`num_frames` - 1. A generator means training: `random` samplings then draw one view, all others return all their views.
A custom sampling is any callable that fits `Sampling`.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from vidclf.errors import VidclfError


@dataclass(frozen=True)
class Rate:
    """Every `floor(fps / rate_hz)`-th frame from the first on, each a separate view (T=1).

    At 29.97 fps and 1 Hz that is every 29th frame. A rate above the video's fps gives every frame once.
    """

    rate_hz: float | int = 1.0
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.rate_hz, int | float) or not self.rate_hz > 0:
            raise VidclfError(f"sampling.rate_hz={self.rate_hz}: must be a number above 0, in frames per second.")

    def __call__(self, num_frames: int, fps: float | int, generator: Generator | None = None) -> Int[Tensor, "V 1"]:
        """Return ceil(num_frames / step) views; `generator` changes nothing."""
        _check_video(num_frames)
        if not 0 < fps < math.inf:
            raise VidclfError(f"The video has {fps} frames per second; sampling=rate needs a rate above 0.")
        return torch.arange(0, num_frames, self.step(fps))[:, None]

    def step(self, fps: float | int) -> int:
        """Return the number of frames from one view to the next."""
        return max(1, math.floor(fps / self.rate_hz))


@dataclass(frozen=True)
class Uniform:
    """One view of `num_frames` frames spread evenly from the video's first frame to its last.

    Indices are those of a linspace, with halves rounded up, so a reversed video gives the reversed view (except where a
    half was rounded). A view of one frame takes the middle frame. A video shorter than the view repeats frames.
    """

    num_frames: int = 16
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_count("num_frames", self.num_frames)

    def __call__(self, num_frames: int, fps: float | int, generator: Generator | None = None) -> Int[Tensor, "1 T"]:
        """Return the view; `fps` and `generator` change nothing."""
        _check_video(num_frames)
        return _spread(num_frames - 1, self.num_frames)[None]


@dataclass(frozen=True)
class Segments:
    """One view with a frame from each of `num_segments` equal segments of the video (TSN, arXiv:1608.00859).

    Evaluation takes the middle frame of each segment, training a random frame. If the video has fewer frames than
    segments, an empty segment takes the frame in which it begins, so frames repeat.
    """

    num_segments: int = 8
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_count("num_segments", self.num_segments)

    def __call__(self, num_frames: int, fps: float | int, generator: Generator | None = None) -> Int[Tensor, "1 T"]:
        """Return the view, T = num_segments; `fps` changes nothing."""
        _check_video(num_frames)
        bounds = torch.arange(self.num_segments + 1) * num_frames // self.num_segments
        lengths = bounds.diff().clamp(min=1)
        if generator is None:
            offsets = lengths // 2
        else:
            chance = torch.rand(self.num_segments, generator=generator, dtype=torch.float64)
            offsets = (chance * lengths).long()
        return (bounds[:-1] + offsets)[None]


@dataclass(frozen=True)
class Dense:
    """Clips of `num_frames` frames, `stride` apart.

    Evaluation takes `num_views` clips with starts spread evenly from the first frame to the last start that fits (a
    single clip: the middle start); training takes one clip at a random start. A video shorter than a clip is looped
    (frame i modulo its length), as in I3D (arXiv:1705.07750); all its clips start at frame 0.
    """

    num_views: int = 10
    num_frames: int = 16
    stride: int = 2
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for key in ("num_views", "num_frames", "stride"):
            _check_count(key, getattr(self, key))

    def __call__(self, num_frames: int, fps: float | int, generator: Generator | None = None) -> Int[Tensor, "V T"]:
        """Return V = num_views clips, or one with a generator; `fps` changes nothing."""
        _check_video(num_frames)
        offsets = torch.arange(self.num_frames) * self.stride
        last_start = max(0, num_frames - 1 - int(offsets[-1]))
        if generator is None:
            starts = _spread(last_start, self.num_views)
        else:
            starts = torch.randint(last_start + 1, (1,), generator=generator)
        return (starts[:, None] + offsets) % num_frames


def _spread(last: int, count: int) -> Int[Tensor, " count"]:
    """Return `count` integers evenly from 0 to `last`, halves rounded up; the middle where `count` is 1."""
    if count == 1:
        return torch.tensor([(last + 1) // 2])
    # In integers: floor(i * last / gaps + 1/2). A float linspace rounds some halves the wrong way.
    gaps = count - 1
    return (2 * torch.arange(count) * last + gaps) // (2 * gaps)


def _check_count(key: str, value: int) -> None:
    if type(value) is not int or value < 1:
        raise VidclfError(f"sampling.{key}={value}: must be a whole number, 1 or more.")


def _check_video(num_frames: int) -> None:
    if num_frames < 1:
        raise VidclfError(f"The video has {num_frames} frames; a sampling needs at least one.")

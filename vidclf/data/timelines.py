"""The time of one video: frames and seconds, events that contradict each other, windows, and labels at instants."""

import math
import os
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from vidclf.data.decoding import VideoInfo
from vidclf.data.sampling import Rate
from vidclf.system.text import first_five

NEGLIGIBLE_S = 1e-3  # shorter overlaps are due to rounding
ROUNDING = 1e-9
TIME_DIGITS = 4  # of the times of windows: enough for a frame, and short in a name

Seconds = float | int


@runtime_checkable
class Labelled(Protocol):
    """A stretch of a video's time with a label: an event, a segment. `where` it is written is for messages."""

    @property
    def start_s(self) -> Seconds: ...
    @property
    def end_s(self) -> Seconds: ...
    @property
    def label(self) -> str: ...
    @property
    def where(self) -> str: ...


class Stretch(NamedTuple):
    """A stretch of a video's time with one label."""

    start_s: Seconds
    end_s: Seconds
    label: str
    where: str = ""


class Contradiction(NamedTuple):
    """A stretch of a video's time with two labels."""

    start_s: Seconds
    end_s: Seconds
    first: Labelled
    second: Labelled


def settle(
    events: Iterable[Labelled], rank: Callable[[Labelled], Hashable] = lambda event: 0
) -> tuple[list[Stretch], list[Contradiction]]:
    """Return stretches that do not overlap, in order, and where labels contradict each other.

    Args:
        events: of one video; those of one label may overlap.
        rank: where labels differ, the lowest one wins; if two are lowest, they contradict each other.
    """
    stretches: list[Stretch] = []
    contradictions: list[Contradiction] = []
    for start_s, end_s, active in _pieces(events):
        best = min(active, key=rank)  # type: ignore[arg-type]
        rivals = (event for event in active if event.label != best.label and rank(event) == rank(best))
        if end_s - start_s >= NEGLIGIBLE_S and (rival := next(rivals, None)):
            contradictions.append(Contradiction(start_s, end_s, best, rival))
        if stretches and stretches[-1].label == best.label and stretches[-1].end_s == start_s:
            start_s = stretches.pop().start_s
        stretches.append(Stretch(start_s, end_s, best.label))
    return stretches, contradictions


def _pieces(events: Iterable[Labelled]) -> Iterator[tuple[Seconds, Seconds, list[Labelled]]]:
    """Yield each stretch of time in which the same events happen, with these; none where nothing happens."""
    waiting = deque(sorted((e for e in events if e.start_s < e.end_s), key=lambda event: event.start_s))
    times = sorted({time for event in waiting for time in (event.start_s, event.end_s)})
    active: list[Labelled] = []
    for start_s, end_s in pairwise(times):
        active = [event for event in active if event.end_s > start_s]
        while waiting and waiting[0].start_s <= start_s:
            active.append(waiting.popleft())
        if active:
            yield start_s, end_s, active


def describe(contradictions: Mapping[str, Sequence[Contradiction]], root: Path) -> str:
    """Return how many seconds of which videos below `root` have two labels, and where these are written."""
    shown, total_s = list[str](), 0.0
    for path, of_video in contradictions.items():
        for start_s, end_s, first, second in of_video:
            until = "its end" if end_s == np.inf else f"{end_s:g} s"
            labels = f"{first.label}, {first.where}; {second.label}, {second.where}"
            shown.append(f"{os.path.relpath(path, root)} from {start_s:g} s to {until} ({labels})")
            total_s += end_s - start_s
    amount = "Many" if total_s == np.inf else f"{total_s:.3g}"
    return f"{amount} seconds carry two different labels: {first_five(shown)}"


def window_starts(
    info: VideoInfo, window_s: Seconds, stride_s: Seconds, rate_hz: Seconds | None = None
) -> Float[np.ndarray, " W"]:
    """Return when the windows of a video begin, in seconds; none if it is shorter. See `place_windows`."""
    last_s = duration_of(info) - window_s
    if last_s < -ROUNDING:
        return np.empty(0)
    starts_s = place_windows(np.arange(int(last_s / stride_s + ROUNDING) + 1), info.fps, stride_s, rate_hz)
    return np.round(starts_s[starts_s <= last_s + ROUNDING], TIME_DIGITS)


def place_windows(
    numbers: Int[np.ndarray, " W"], fps: Seconds, stride_s: Seconds, rate_hz: Seconds | None = None
) -> Float[np.ndarray, " W"]:
    """Return when windows begin, in seconds and not rounded, by their numbers.

    With `rate_hz`, each begins at the nearest frame that sampling=rate takes of the whole file, unless that takes less
    than a frame in each stride: windows then have no frame in common anyway.
    """
    starts_s = numbers * float(stride_s)
    step = Rate(rate_hz).step(fps) if rate_hz else math.inf
    if step <= stride_s * fps:
        starts_s = np.floor(starts_s * fps / step + 0.5) * step / fps
    return starts_s


def instants(duration_s: Seconds, step_s: Seconds) -> Float[np.ndarray, " N"]:
    """Return the middles of the steps of a grid over a video; the last step may be cut short by half."""
    return (np.arange(max(1, round(duration_s / step_s))) + 0.5) * step_s


def duration_of(info: VideoInfo) -> float:
    """Return the duration of what decodes, in seconds."""
    return info.num_frames / info.fps


def cover(
    stretches: Sequence[Stretch], starts_s: Float[np.ndarray, " W"], length_s: Seconds, labels: Sequence[str]
) -> Float[np.ndarray, "W K"]:
    """Return how many seconds of each window each label covers; the stretches of a label must not overlap."""
    covered = np.zeros((len(starts_s), len(labels)))
    for column, label in enumerate(labels):
        times = np.asarray([time for one in stretches if one.label == label for time in one[:2]], float)
        if len(times):
            lengths = np.diff(times)
            lengths[1::2] = 0  # between two stretches
            total = np.concatenate([[0.0], lengths.cumsum()])  # covered from the first stretch to each time
            covered[:, column] = np.interp(starts_s + length_s, times, total) - np.interp(starts_s, times, total)
    return covered


def labels_at(stretches: Sequence[Stretch], times_s: Float[np.ndarray, " N"], background: str) -> list[str]:
    """Return the label at each time; `background` where there is none."""
    starts = np.asarray([one.start_s for one in stretches], float)
    positions = np.searchsorted(starts, times_s, side="right") - 1
    return [
        stretches[position].label if position >= 0 and time < stretches[position].end_s else background
        for position, time in zip(positions.tolist(), times_s.tolist(), strict=True)
    ]


def lanes(events: Sequence[Labelled], keys: Sequence[Hashable]) -> list[int]:
    """Return a lane, from 0, for each event, so that events of one key and lane do not overlap; sorted by start."""
    ends: dict[Hashable, list[Seconds]] = {}
    chosen = []
    for event, key in zip(events, keys, strict=True):
        of_key = ends.setdefault(key, [])
        lane = next((number for number, end_s in enumerate(of_key) if end_s <= event.start_s), len(of_key))
        of_key[lane : lane + 1] = [event.end_s]
        chosen.append(lane)
    return chosen


def runs(is_on: Bool[np.ndarray, " F"]) -> list[tuple[int, int]]:
    """Return the first frame, and the frame after the last, of each run of frames that are on."""
    changes = np.flatnonzero(np.diff(is_on.astype(np.int8), prepend=0, append=0))
    return list(zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True))


def times_of(info: VideoInfo, frames: Sequence[Seconds]) -> list[float]:
    """Return when decoded frames are shown, in seconds; frames may be fractions."""
    return (_warp(frames, *_axes(info)) / info.fps).tolist()


def frames_of(info: VideoInfo, times_s: Sequence[Seconds]) -> list[float]:
    """Return which decoded frame is shown at each time, as fractions: the inverse of `times_of`."""
    numbers, shown = _axes(info)
    return _warp([time * info.fps for time in times_s], shown, numbers).tolist()


def num_decoded(info: VideoInfo) -> int:
    """Return the number of frames that a video decodes to."""
    return len(info.shown_from) or info.num_frames


def _axes(info: VideoInfo) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers of decoded frames, and their places on the even time line; the last is the video's end."""
    shown = np.asarray([*(info.shown_from or [0]), info.num_frames], float)
    return (np.arange(len(shown), dtype=float) if info.shown_from else shown), shown


def _warp(values: Sequence[Seconds], old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Map values piece by piece from one axis to another; beyond the end, one unit is one unit."""
    points = np.asarray(values, float)
    return np.interp(points, old, new) + np.maximum(points - old[-1], 0)

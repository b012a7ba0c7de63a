"""Which frames of a stream its windows need: known before they come, from the sampling and the frame rate."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from vidclf.contracts import Sampling, VideoViews
from vidclf.data.timelines import TIME_DIGITS, place_windows
from vidclf.features.extract import units_of
from vidclf.prediction.windows import Windows

Unit = tuple[int, ...]  # positions of the frames that the backbone sees at once


class PlannedWindow(NamedTuple):
    """A window: its number, its time, its frames (from position `first` to `stop`), the units of its views."""

    number: int
    start_s: float
    end_s: float
    first: int
    stop: int
    units: list[Unit]
    num_views: int

    @property
    def positions(self) -> set[int]:
        """The positions of the frames that it needs."""
        return {position for unit in self.units for position in unit}


@dataclass(frozen=True)
class Plan:
    """Places windows on the even time line of a stream, as those of a file.

    Args:
        sampling: chooses the frames of a window.
        windows: their length, and the time from one to the next.
        fps: of the time line.
        clip_length: frames that the backbone sees at once.
        base: the position of the first frame.
    """

    sampling: Sampling
    windows: Windows
    fps: float | int
    clip_length: int
    base: int

    def place(self, number: int) -> PlannedWindow:
        """Return a window by its number, from 0."""
        windows = self.windows
        (start_s,) = place_windows(np.asarray([number]), self.fps, windows.stride_s, windows.rate_hz).tolist()
        start_s = round(start_s, TIME_DIGITS)
        end_s = round(start_s + windows.window_s, TIME_DIGITS)
        first = round(start_s * self.fps)
        stop = max(first + 1, round(end_s * self.fps))
        return self._sample(PlannedWindow(number, start_s, end_s, self.base + first, self.base + stop, [], 0))

    def shorten(self, window: PlannedWindow, stop: int) -> PlannedWindow:
        """Return a window that ends before the position `stop`."""
        end_s = round((stop - self.base) / self.fps, TIME_DIGITS)
        return self._sample(window._replace(stop=stop, end_s=end_s))

    def _sample(self, window: PlannedWindow) -> PlannedWindow:
        frames = window.first + self.sampling(window.stop - window.first, self.fps)
        units = units_of(VideoViews(0, -1, torch.arange(len(frames)), frames), self.clip_length).frames
        return window._replace(units=[tuple(unit) for unit in units.tolist()], num_views=len(frames))

    def can_shorten(self) -> bool:
        """Return whether a part of a window needs the same frames as the whole, so that no others need be held."""
        whole = self.place(0)
        parts = {whole.first + max(1, (whole.stop - whole.first) // 2), max(whole.first + 1, whole.stop - 1)}
        return all(
            self.shorten(whole, stop).positions == {position for position in whole.positions if position < stop}
            for stop in parts
        )

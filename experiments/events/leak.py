"""A split that puts windows of one film into all parts, as is often done. It leaks, and exists to show by how much.

vidclf train split=given split._target_=experiments.events.leak.RandomWindows dataset=events ...
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidclf.contracts import Video
from vidclf.data.splits.parts import Split, checked_split


@dataclass
class RandomWindows:
    """The parts that the data set gives, exchanged at random between its windows, so that each keeps its size."""

    val_fraction: float = 0.2  # unused, as `Given` has it
    seed: int = 0

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int]) -> Split:
        parts = np.random.default_rng(self.seed).permutation([video.part for video in videos])
        return checked_split(videos, parts.tolist(), num_views)

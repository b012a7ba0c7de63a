"""Stages for worker processes, in a separate file because a worker imports the file that defines them."""

import os
import signal
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from videos import read_frame_number


@dataclass(frozen=True)
class AsDecoded:
    """Returns the frames as images, repeated for each crop."""

    num_crops: int = 1
    random = False

    def __call__(self, frames: Tensor) -> Tensor:
        return frames.float().repeat_interleave(self.num_crops, dim=0)


@dataclass(frozen=True)
class Mistaken(AsDecoded):
    """A transform with a bug."""

    def __call__(self, frames: Tensor) -> Tensor:
        raise RuntimeError("a mistake in the transform")


@dataclass(frozen=True)
class Deadly(AsDecoded):
    """Kills its process when it sees frame 33."""

    def __call__(self, frames: Tensor) -> Tensor:
        if any(read_frame_number(frame) == 33 for frame in frames.flatten(0, 1)):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(frames)


def noisy(frames: Tensor) -> Tensor:
    """A custom augmentation that draws from torch and numpy."""
    return frames.float() + torch.rand(()) + np.random.uniform()

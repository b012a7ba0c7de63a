"""What worker processes are handed: kept apart, for a worker imports the file that it lies in, and all that imports."""

import os
import signal
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from videos import read_frame_number


@dataclass(frozen=True)
class AsDecoded:
    """Images that are the frames; twice each, where two crops are asked for."""

    num_crops: int = 1
    random = False

    def __call__(self, frames: Tensor) -> Tensor:
        return frames.float().repeat_interleave(self.num_crops, dim=0)


@dataclass(frozen=True)
class Mistaken(AsDecoded):
    """A transform whose code has a mistake."""

    def __call__(self, frames: Tensor) -> Tensor:
        raise RuntimeError("a mistake in the transform")


@dataclass(frozen=True)
class Deadly(AsDecoded):
    """Ends its process by a kill where it sees frame 33."""

    def __call__(self, frames: Tensor) -> Tensor:
        if any(read_frame_number(frame) == 33 for frame in frames.flatten(0, 1)):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(frames)


def noisy(frames: Tensor) -> Tensor:
    """An augmentation of one's own that draws from torch and from numpy."""
    return frames.float() + torch.rand(()) + np.random.uniform()

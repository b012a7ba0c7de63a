"""Random numbers that depend on what they are for, and on nothing else."""

import hashlib
import os
import random

import numpy as np
import torch
from torch import Generator

from vidclf.errors import VidclfError


def generator_for(seed: int, purpose: str, *numbers: int) -> Generator:
    """Return a generator that depends on the seed, what it is for, and all of `numbers` (epoch, video, ...).

    Two purposes share no stream: whoever draws gives one of its own.
    """
    digest = hashlib.sha256(" ".join(map(str, (purpose, seed, *numbers))).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def seed_all(seed: object) -> None:
    """Seed what draws without a generator of its own: Python, NumPy, torch, and the processes that Lightning starts.

    As Lightning's `seed_everything` does it, which takes seconds to import.

    Raises:
        VidclfError: it is no whole number of 32 bits.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise VidclfError(f"seed={seed}: it is a whole number, from 0 to {2**32 - 1}.")
    os.environ["PL_GLOBAL_SEED"], os.environ["PL_SEED_WORKERS"] = str(seed), "1"
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)

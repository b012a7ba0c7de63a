"""Random numbers that depend on the seed and on their purpose alone."""

import hashlib
import os
import random

import numpy as np
import torch
from torch import Generator

from vidclf.errors import VidclfError


def generator_for(seed: int, purpose: str, *numbers: int) -> Generator:
    """Return a generator that depends on the seed, the purpose and all `numbers` (epoch, video, ...).

    Each place that draws names a different purpose, so that no two share a stream.
    """
    digest = hashlib.sha256(" ".join(map(str, (purpose, seed, *numbers))).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def seed_all(seed: object) -> None:
    """Seed Python, NumPy, torch, and the processes that Lightning starts.

    Lightning's `seed_everything` does the same, but takes seconds to import.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise VidclfError(f"seed={seed}: must be a whole number from 0 to {2**32 - 1}.")
    os.environ["PL_GLOBAL_SEED"], os.environ["PL_SEED_WORKERS"] = str(seed), "1"
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)

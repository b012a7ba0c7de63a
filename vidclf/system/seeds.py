"""Random numbers that depend on what they are for, and on nothing else."""

import hashlib

from torch import Generator


def generator_for(seed: int, purpose: str, *numbers: int) -> Generator:
    """Return a generator that depends on the seed, what it is for, and all of `numbers` (epoch, video, ...).

    Two purposes share no stream: whoever draws gives one of its own.
    """
    digest = hashlib.sha256(" ".join(map(str, (purpose, seed, *numbers))).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)

"""Random numbers that depend on what they are for, and on nothing else."""

import numpy as np
from torch import Generator


def generator_for(*numbers: int) -> Generator:
    """Return a generator that depends on all of `numbers` (seed, epoch, video, ...) and nothing else."""
    # Their count too: a SeedSequence of (1,) is that of (1, 0).
    state = np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state >> 1))

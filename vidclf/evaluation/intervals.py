"""Intervals that know that clips of one long video are not independent."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

NUM_RESAMPLES = 2000


def bootstrap_mean(
    values: Float[np.ndarray, " M"], groups: Sequence[object], level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the interval of the mean of `values` by resampling whole groups with replacement.

    The cluster bootstrap with percentiles (Davison and Hinkley, 1997, 3.8). UCF101's independent unit is
    (class, group).

    Args:
        values: one a video, such as 1 where it is named rightly and 0 where not, or a difference of two such.
        groups: whose value it is, one a video.
        level: the share of resamples between the two ends.
        seed: of the resamples.
    """
    _, group = np.unique([str(name) for name in groups], return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    chosen = np.random.default_rng(seed).integers(len(sums), size=(NUM_RESAMPLES, len(sums)))
    means = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

"""Is one run better than another on the same videos, and how sure is that?"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from vidclf.evaluation.intervals import LEVEL, Clusters, Interval

EXACT = 12  # clusters whose flips are all tried
FLIPS = 9999  # of more, drawn by chance; more where many pairs are corrected for
FLIPS_PER_PAIR = 40  # so that the least p, times the pairs, is below 0.05
AT_ONCE = 2000  # flips or resamples and pairs: what fits a processor's cache
NOISE = np.float32(2e-6)  # of sums in another order; less than a video in 100,000


@dataclass(frozen=True)
class Difference:
    """How far the accuracy of run `one` lies above that of run `other`.

    Attributes:
        one: its position.
        other: its position.
        value: the difference.
        interval: 95 %, over videos; None: they are of one group.
        p: how often a difference as large comes out where whole groups swap the two runs by chance.
        corrected: p by Holm, over all pairs.
        num_unlike: videos that one of them alone names rightly.
    """

    one: int
    other: int
    value: float
    interval: Interval | None
    p: float
    corrected: float
    num_unlike: int

    @property
    def is_sure(self) -> bool:
        """Whether it is one, with 5 % of chance that any of all pairs is said to be one by mistake."""
        return self.corrected <= 1 - LEVEL

    @property
    def verdict(self) -> str:
        """What to say of it."""
        if not self.num_unlike:
            return "no difference"
        return ("better" if self.value > 0 else "worse") if self.is_sure else "no sure difference"


def compare_pairs(
    is_correct: Float[np.ndarray, "M R"], weights: Float[np.ndarray, " M"], clusters: Clusters, seed: int = 0
) -> list[Difference]:
    """Return the difference of every two of R runs.

    The interval is the cluster bootstrap's. The test lets whole clusters swap the runs: McNemar's supposes independent
    clips (Obuchowski, Statistics in Medicine 1998; Durkalski et al., 2003). All pairs are corrected for by Holm's.

    Args:
        is_correct: 1 where a run names a video rightly.
        weights: of the videos in the score, which sum to 1.
        clusters: of the videos.
        seed: of the resamples and the flips.
    """
    pairs = list(combinations(range(is_correct.shape[1]), 2))
    if not pairs:
        return []
    one, other = np.asarray(pairs).T
    totals = clusters.total(is_correct * weights[:, None])
    intervals: list[Interval | None] = [None] * len(pairs)
    if len(clusters) > 1:
        resampled = clusters.resample(seed=seed)
        scores = (resampled @ totals) / (resampled @ clusters.total(weights))[:, None]
        intervals = _intervals(scores, one, other)
    values = totals.sum(0)[one] - totals.sum(0)[other]
    ps = _flip(totals, one, other, seed)
    unlike = _count_unlike(is_correct > 0, one, other)
    numbers = zip(pairs, values.tolist(), intervals, ps.tolist(), holm(ps).tolist(), unlike.tolist(), strict=True)
    return [Difference(*pair, *rest) for pair, *rest in numbers]


def holm(ps: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    """Return p values corrected for all of them (Holm, Scandinavian Journal of Statistics 1979)."""
    order = np.argsort(ps, kind="stable")
    corrected = np.empty_like(ps)
    corrected[order] = np.minimum(np.maximum.accumulate(ps[order] * np.arange(len(ps), 0, -1)), 1)
    return corrected


def _flip(totals: Float[np.ndarray, "C R"], one: np.ndarray, other: np.ndarray, seed: int) -> Float[np.ndarray, " P"]:
    """Return the share of sign flips of clusters whose difference is as large as the one found, the found included."""
    num_clusters, num_runs = totals.shape
    found = np.abs(totals.sum(0)[one] - totals.sum(0)[other]).astype(np.float32) - NOISE
    is_exact = num_clusters <= EXACT
    num_flips = 2**num_clusters if is_exact else max(FLIPS, FLIPS_PER_PAIR * len(one) - 1)
    chance, counts = np.random.default_rng(seed), np.zeros(len(one))
    for first in range(0, num_flips, AT_ONCE):
        size = min(AT_ONCE, num_flips - first)
        if is_exact:
            bits = (np.arange(first, first + size)[:, None] >> np.arange(num_clusters)) & 1
        else:
            bits = chance.integers(2, size=(size, num_clusters), dtype=np.int8)
        flipped = np.ascontiguousarray(((2.0 * bits - 1) @ totals).T, dtype=np.float32)  # (R, flips)
        done = 0
        for run in range(num_runs - 1):  # pairs stand in this order
            stop = done + num_runs - 1 - run
            differences = np.abs(flipped[run + 1 :] - flipped[run])
            counts[done:stop] += np.count_nonzero(differences >= found[done:stop, None], axis=1)
            done = stop
    return counts / num_flips if is_exact else (counts + 1) / (num_flips + 1)


def _intervals(scores: Float[np.ndarray, "N R"], one: np.ndarray, other: np.ndarray) -> list[Interval | None]:
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    found = list[Interval | None]()
    for first in range(0, len(one), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        low, high = np.quantile(scores[:, one[some]] - scores[:, other[some]], ends, axis=0)
        found += [Interval(*pair) for pair in zip(low.tolist(), high.tolist(), strict=True)]
    return found


def _count_unlike(is_correct: Bool[np.ndarray, "M R"], one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how many videos only one of each pair names rightly."""
    numbers = is_correct.astype(np.float32)
    both, each = numbers.T @ numbers, numbers.sum(0)
    return (each[one] + each[other] - 2 * both[one, other]).astype(int)

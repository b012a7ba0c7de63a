"""Tests whether one run is better than another on the same videos."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from vidclf.evaluation.intervals import LEVEL, Clusters, Interval

MAX_EXACT_CLUSTERS = 12  # up to which all sign flips are tried
NUM_FLIPS = 9999  # drawn at random for more clusters; more where many pairs are corrected for
FLIPS_PER_PAIR = 40  # so that the smallest p, times the number of pairs, is below 0.05
BLOCK = 2000  # flips, or pairs of resamples, that fit a processor's cache
NOISE = np.float32(2e-6)  # of sums in another order; less than one video in 100,000


@dataclass(frozen=True)
class Difference:
    """By how much the accuracy of one run exceeds that of another.

    Attributes:
        first: position of the run.
        second: position of the run that it is compared with.
        value: the difference.
        interval: 95 %, over videos; None: they are of one group.
        p: how often a difference at least as large occurs when whole groups swap the two runs at random.
        corrected: p after Holm's correction over all pairs.
        num_discordant: videos that exactly one of the two classifies correctly.
    """

    first: int
    second: int
    value: float
    interval: Interval | None
    p: float
    corrected: float
    num_discordant: int

    @property
    def is_significant(self) -> bool:
        """Whether the runs differ, at a family-wise error rate of 5 % over all pairs."""
        return self.corrected <= 1 - LEVEL

    @property
    def verdict(self) -> str:
        """The result in one to three words."""
        if not self.num_discordant:
            return "no difference"
        return ("better" if self.value > 0 else "worse") if self.is_significant else "not significant"


def compare_pairs(
    is_correct: Float[np.ndarray, "M R"], weights: Float[np.ndarray, " M"], clusters: Clusters, seed: int = 0
) -> list[Difference]:
    """Return the difference of every two of R runs, in the order of `combinations`.

    The interval is by the cluster bootstrap. In the permutation test whole clusters swap the runs; McNemar's test
    assumes independent clips (Obuchowski, Statistics in Medicine 1998; Durkalski et al., 2003).
    `weights` of the videos in the score sum to 1.
    """
    pairs = list(combinations(range(is_correct.shape[1]), 2))
    if not pairs:
        return []
    first, second = np.asarray(pairs).T
    totals = clusters.total(is_correct * weights[:, None])
    intervals: list[Interval | None] = [None] * len(pairs)
    if len(clusters) > 1:
        resampled = clusters.resample(seed=seed)
        scores = (resampled @ totals) / (resampled @ clusters.total(weights))[:, None]
        intervals = _intervals(scores, first, second)
    values = totals.sum(0)[first] - totals.sum(0)[second]
    ps = _permutation_test(totals, first, second, seed)
    discordant = _count_discordant(is_correct > 0, first, second)
    columns = (values.tolist(), intervals, ps.tolist(), holm(ps).tolist(), discordant.tolist())
    return [Difference(*pair, *numbers) for pair, *numbers in zip(pairs, *columns, strict=True)]


def holm(ps: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    """Return p values corrected for multiple comparisons (Holm, Scandinavian Journal of Statistics 1979)."""
    order = np.argsort(ps, kind="stable")
    corrected = np.empty_like(ps)
    corrected[order] = np.minimum(np.maximum.accumulate(ps[order] * np.arange(len(ps), 0, -1)), 1)
    return corrected


def _permutation_test(
    totals: Float[np.ndarray, "C R"], first: np.ndarray, second: np.ndarray, seed: int
) -> Float[np.ndarray, " P"]:
    """Return the share of sign flips of clusters with a difference at least as large as the observed one."""
    num_clusters, num_runs = totals.shape
    observed = np.abs(totals.sum(0)[first] - totals.sum(0)[second]).astype(np.float32) - NOISE
    is_exact = num_clusters <= MAX_EXACT_CLUSTERS
    num_flips = 2**num_clusters if is_exact else max(NUM_FLIPS, FLIPS_PER_PAIR * len(first) - 1)
    generator, counts = np.random.default_rng(seed), np.zeros(len(first))
    for start in range(0, num_flips, BLOCK):
        size = min(BLOCK, num_flips - start)
        if is_exact:
            bits = (np.arange(start, start + size)[:, None] >> np.arange(num_clusters)) & 1
        else:
            bits = generator.integers(2, size=(size, num_clusters), dtype=np.int8)
        flipped = np.ascontiguousarray(((2.0 * bits - 1) @ totals).T, dtype=np.float32)  # (R, flips)
        done = 0
        for run in range(num_runs - 1):  # pairs are in this order
            stop = done + num_runs - 1 - run
            differences = np.abs(flipped[run + 1 :] - flipped[run])
            counts[done:stop] += np.count_nonzero(differences >= observed[done:stop, None], axis=1)
            done = stop
    return counts / num_flips if is_exact else (counts + 1) / (num_flips + 1)  # the observed one counts as a flip


def _intervals(scores: Float[np.ndarray, "N R"], first: np.ndarray, second: np.ndarray) -> list[Interval | None]:
    intervals = list[Interval | None]()
    for start in range(0, len(first), BLOCK):
        block = slice(start, start + BLOCK)
        differences = scores[:, first[block]] - scores[:, second[block]]
        low, high = np.quantile(differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        intervals += [Interval(*ends) for ends in zip(low.tolist(), high.tolist(), strict=True)]
    return intervals


def _count_discordant(is_correct: Bool[np.ndarray, "M R"], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how many videos exactly one run of each pair classifies correctly."""
    numbers = is_correct.astype(np.float32)
    both, each = numbers.T @ numbers, numbers.sum(0)
    return (each[first] + each[second] - 2 * both[first, second]).astype(int)

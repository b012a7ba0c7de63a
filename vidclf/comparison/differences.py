"""Tests whether one setting is better than another on the same videos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np
from jaxtyping import Float, Int

from vidclf.evaluation.intervals import LEVEL, Clusters, Interval
from vidclf.evaluation.paired import interval_of_difference, sign_flip_test

RESOLUTION = 100  # of the test, in units of the lightest video, where videos weigh differently


@dataclass(frozen=True)
class Difference:
    """By how much the accuracy of one setting exceeds that of another.

    Attributes:
        first: position of the setting.
        second: position of the setting that it is compared with.
        value: the difference.
        interval: at least 95 %, and as wide as Holm's correction wants; None: the videos are of one group.
        p: how often a difference at least as large occurs when whole groups swap the two settings at random.
        corrected: p after Holm's correction over all pairs.
        num_discordant: videos that one of the two classifies correctly more often.
        is_identical: whether all predictions are the same; then the interval is [0, 0].
    """

    first: int
    second: int
    value: float
    interval: Interval | None
    p: float
    corrected: float
    num_discordant: int
    is_identical: bool

    @property
    def is_significant(self) -> bool:
        """Return whether the settings differ, with a family-wise error rate of 5 %: the interval excludes 0."""
        return self.corrected <= 1 - LEVEL

    @property
    def verdict(self) -> str:
        """The result in one or two words."""
        if self.is_identical:
            return "identical"
        return ("better" if self.value > 0 else "worse") if self.is_significant else "not significant"


@dataclass(frozen=True, eq=False)
class _Pair:
    """The gains of the first of two settings over the second, by group: multiples of `unit`."""

    gains: Float[np.ndarray, " C"]
    unit: float
    num_discordant: int
    is_identical: bool


def compare_pairs(
    predicted: Int[np.ndarray, "M R"],
    labels: Int[np.ndarray, " M"],
    weights: Float[np.ndarray, " M"],
    clusters: Clusters,
    settings: Sequence[Mapping[str, int]],
    positions: Sequence[tuple[int, int]],
) -> list[Difference]:
    """Return the differences of pairs of settings.

    Args:
        predicted: the class that each of R runs predicts for each video.
        labels: of the videos.
        weights: of the videos in the score; their mean is 1.
        clusters: of the videos.
        settings: the columns of each setting's runs, by seed. Two settings are compared by the seeds that both have,
            or by all if they share none.
        positions: the two settings of each pair.
    """
    pairs = [_pair(predicted, labels, weights, clusters, settings[i], settings[j]) for i, j in positions]
    ps = np.array([sign_flip_test(pair.gains, pair.unit) for pair in pairs])
    differences = []
    for (first, second), pair, p, factor in zip(positions, pairs, ps.tolist(), holm_factors(ps).tolist(), strict=True):
        level = 1 - (1 - LEVEL) / factor
        interval = interval_of_difference(pair.gains, clusters.total(weights), pair.unit, level)
        if pair.is_identical:
            interval = Interval(0, 0)
        found = float(pair.gains.sum() / len(labels)), interval, p, min(1.0, p * factor)
        differences.append(Difference(first, second, *found, pair.num_discordant, pair.is_identical))
    return differences


def holm_factors(ps: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    """Return the factors that correct p values for several comparisons (Holm, Scandinavian Journal of Statistics 1979).

    They lie between 1 and the number of comparisons; a corrected p above 1 means 1.
    """
    ps = np.maximum(ps, np.finfo(float).tiny)
    order = np.argsort(ps, kind="stable")
    factors = np.empty_like(ps)
    factors[order] = np.maximum.accumulate(ps[order] * np.arange(len(ps), 0, -1)) / ps[order]
    return factors


def _pair(
    predicted: Int[np.ndarray, "M R"],
    labels: Int[np.ndarray, " M"],
    weights: Float[np.ndarray, " M"],
    clusters: Clusters,
    first: Mapping[str, int],
    second: Mapping[str, int],
) -> _Pair:
    seeds = sorted(first.keys() & second.keys())
    of_first = predicted[:, [first[seed] for seed in seeds or first]]
    of_second = predicted[:, [second[seed] for seed in seeds or second]]
    first_correct, second_correct = ((of_setting == labels[:, None]).mean(1) for of_setting in (of_first, of_second))
    gains = first_correct - second_correct
    unit = float(weights.min()) / lcm(of_first.shape[1], of_second.shape[1])
    if np.ptp(weights) > 1e-9 * unit:
        unit /= RESOLUTION
    is_identical = of_first.shape == of_second.shape and bool((of_first == of_second).all())
    return _Pair(clusters.total(gains * weights), unit, int(np.count_nonzero(gains)), is_identical)

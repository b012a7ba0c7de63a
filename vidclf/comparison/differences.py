"""Tests whether one setting is better than another on the same videos."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import lcm

import numpy as np
from jaxtyping import Float, Shaped

from vidclf.evaluation.intervals import LEVEL, Clusters, Interval
from vidclf.evaluation.paired import interval_of_difference, sign_flip_test

RESOLUTION = 100  # of the test, in units of the lightest video, where videos weigh differently


@dataclass(frozen=True, eq=False)
class Predictions:
    """The classes that a setting's models predict for M videos, one model for each of R seeds.

    Attributes:
        seeds: of the models, sorted.
        predicted: (M, R).
        labels: of the videos.
        weights: of the videos in the score; their mean is 1.
        clusters: of the videos.
    """

    seeds: Sequence[str]
    predicted: Shaped[np.ndarray, "M R"]
    labels: Shaped[np.ndarray, " M"]
    weights: Float[np.ndarray, " M"]
    clusters: Clusters

    @cached_property
    def shares(self) -> Float[np.ndarray, " M"]:
        """The share of the seeds whose model classifies each video correctly."""
        return (self.predicted == self.labels[:, None]).mean(1)

    def only(self, seeds: Sequence[str]) -> "Predictions":
        """Return the predictions of some of the seeds."""
        if seeds == self.seeds:
            return self
        columns = [self.seeds.index(seed) for seed in seeds]
        return Predictions(seeds, self.predicted[:, columns], self.labels, self.weights, self.clusters)


@dataclass(frozen=True, eq=False)
class Difference:
    """By how much the accuracy of one setting exceeds that of another.

    Attributes:
        gains: of the first over the second, by group: multiples of `unit`.
        sizes: of the groups, in videos.
        unit: of the gains.
        p: how often a difference at least as large occurs when whole groups swap the two settings at random.
        num_discordant: videos that one of the two classifies correctly more often.
        is_identical: whether all predictions are the same; then the interval is [0, 0].
        factor: by which Holm's correction over all pairs multiplies p.
    """

    gains: Float[np.ndarray, " C"]
    sizes: Float[np.ndarray, " C"]
    unit: float
    p: float
    num_discordant: int
    is_identical: bool
    factor: float = 1

    @property
    def value(self) -> float:
        """The difference."""
        return float(self.gains.sum() / self.sizes.sum())

    @cached_property
    def interval(self) -> Interval | None:
        """At least 95 %, and as wide as Holm's correction wants; None: the videos are of one group."""
        if self.is_identical:
            return Interval(0, 0)
        return interval_of_difference(self.gains, self.sizes, self.unit, level=1 - (1 - LEVEL) / self.factor)

    @property
    def corrected(self) -> float:
        """The p after Holm's correction over all pairs."""
        return min(1.0, self.p * self.factor)

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


def compare_pairs(pairs: Sequence[tuple[Predictions, Predictions]]) -> list[Difference]:
    """Return the difference of each pair of settings, both on the same videos.

    Two settings are compared by the seeds that both have, or by all if they share none.
    """
    differences = [_difference(first, second) for first, second in pairs]
    factors = holm_factors(np.array([difference.p for difference in differences])).tolist()
    return [replace(difference, factor=factor) for difference, factor in zip(differences, factors, strict=True)]


def holm_factors(ps: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    """Return the factors that correct p values for several comparisons (Holm, Scandinavian Journal of Statistics 1979).

    They lie between 1 and the number of comparisons; a corrected p above 1 means 1.
    """
    ps = np.maximum(ps, np.finfo(float).tiny)
    order = np.argsort(ps, kind="stable")
    factors = np.empty_like(ps)
    factors[order] = np.maximum.accumulate(ps[order] * np.arange(len(ps), 0, -1)) / ps[order]
    return factors


def _difference(first: Predictions, second: Predictions) -> Difference:
    if seeds := [seed for seed in first.seeds if seed in second.seeds]:
        first, second = first.only(seeds), second.only(seeds)
    gains, weights, clusters = first.shares - second.shares, first.weights, first.clusters
    unit = float(weights.min()) / lcm(len(first.seeds), len(second.seeds))
    if np.ptp(weights) > 1e-9 * unit:
        unit /= RESOLUTION
    by_group, num_discordant = clusters.total(gains * weights), int(np.count_nonzero(gains))
    is_identical = np.array_equal(first.predicted, second.predicted)
    p = sign_flip_test(by_group, unit)
    return Difference(by_group, clusters.total(weights), unit, p, num_discordant, is_identical)

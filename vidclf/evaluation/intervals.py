"""Intervals (95 %) that know that clips of one long video, or of one person, are not independent."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

LEVEL = 0.95
NUM_RESAMPLES = 2000
FEWEST_CLUSTERS = 10  # an interval over fewer is rough: the clusters say little of how much clusters differ


Numbers = np.ndarray | np.floating | float


class Interval(NamedTuple):
    """Where an interval begins and ends."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Clusters:
    """Which videos hang together.

    Attributes:
        of_video: the cluster of each video, counted from 0.
        strata: of each cluster, what it is drawn again within: its class, where every cluster lies inside one.
    """

    of_video: Int[np.ndarray, " M"]
    strata: Int[np.ndarray, " C"]

    @classmethod
    def of(cls, units: Sequence[Hashable], labels: Sequence[int]) -> "Clusters":
        """Return the clusters of videos by their `unit` (see `Video`) and label.

        Classes with a single cluster are one stratum: drawn again alone, a cluster would seem not to vary.
        """
        numbers: dict[Hashable, int] = {}
        of_video = np.asarray([numbers.setdefault(unit, len(numbers)) for unit in units], dtype=np.int64)
        inside = {*zip(of_video.tolist(), labels, strict=True)}
        if len(inside) > len(numbers):
            return cls(of_video, np.zeros(len(numbers), dtype=np.int64))
        strata = np.asarray([label for _, label in sorted(inside)], dtype=np.int64)
        names, counts = np.unique(strata, return_counts=True)
        return cls(of_video, np.where(np.isin(strata, names[counts == 1]), -1, strata))

    def __len__(self) -> int:
        return len(self.strata)

    @property
    def are_few(self) -> bool:
        """Whether an interval over them is rough."""
        return len(self) < FEWEST_CLUSTERS

    @property
    def why_none(self) -> str:
        """Why there is no interval; empty: there is one."""
        told = "all videos are of one group, and nothing shows how much another group would differ"
        return "" if len(self) > 1 else told

    def total(self, values: Float[np.ndarray, "M *columns"]) -> Float[np.ndarray, "C *columns"]:
        """Return the sums of the videos' values over each cluster."""
        order = np.argsort(self.of_video, kind="stable")
        starts = np.searchsorted(self.of_video[order], np.arange(len(self)))
        return np.add.reduceat(values[order].astype(float), starts, axis=0)

    def resample(self, num: int = NUM_RESAMPLES, seed: int = 0) -> Float[np.ndarray, "num C"]:
        """Return how much each cluster counts in each resample.

        Of each stratum's n clusters n - 1 are drawn with replacement and count n / (n - 1) times: n of n would give
        intervals that are too short by (n - 1) / n, and a class has few (Rao and Wu, JASA 1988; the cluster bootstrap
        is Davison and Hinkley's, 1997, 3.8, and Field and Welsh's, JRSS-B 2007).
        """
        chance = np.random.default_rng(seed)
        weights = np.ones((num, len(self)))
        for stratum in np.unique(self.strata):
            own = np.flatnonzero(self.strata == stratum)
            if len(own) > 1:
                drawn = chance.multinomial(len(own) - 1, np.full(len(own), 1 / len(own)), size=num)
                weights[:, own] = drawn * (len(own) / (len(own) - 1))
        return weights


def interval_of_accuracy(
    is_correct: Float[np.ndarray, " M"], clusters: Clusters, parts: Int[np.ndarray, " M"] | None = None
) -> Interval | None:
    """Return the interval of the share of videos that are right; None over one cluster.

    Args:
        is_correct: 1 or 0 a video, or a mean of such.
        clusters: of the videos.
        parts: where given, the interval is of the mean of the accuracies of these parts, classes or splits.
    """
    if len(clusters) < 2:
        return None
    weights = np.ones(len(is_correct))
    if parts is not None:
        _, part, sizes = np.unique(parts, return_inverse=True, return_counts=True)
        weights = (len(is_correct) / len(sizes) / sizes)[part]  # their mean is 1
    low, high = korn_graubard(clusters.total(is_correct * weights), clusters.total(weights))
    return Interval(float(low), float(high))


def korn_graubard(
    num_right: Float[np.ndarray, "*draws C"], num_videos: Float[np.ndarray, "*draws C"]
) -> tuple[Numbers, Numbers]:
    """Return the ends of the interval of an accuracy, of each cluster's number of right videos and of videos.

    Clopper and Pearson's, for as many independent videos as would be as sure (Korn and Graubard, Survey Methodology
    1998). A percentile bootstrap says too little near 1: see experiments/intervals.
    """
    total, num_clusters = num_videos.sum(-1), num_videos.shape[-1]
    accuracy = num_right.sum(-1) / total
    residuals = num_right - accuracy[..., None] * num_videos
    variance = num_clusters / (num_clusters - 1) * (residuals**2).sum(-1) / total**2
    return _clopper_pearson(accuracy, _effective_size(accuracy, variance, total, num_clusters))


def _effective_size(accuracy: Numbers, variance: Numbers, num_videos: Numbers, num_clusters: int) -> Numbers:
    spread = accuracy * (1 - accuracy)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.minimum(spread / variance, num_videos)
    tail = (1 + LEVEL) / 2
    size = size * (stats.norm.ppf(tail) / stats.t.ppf(tail, num_clusters - 1)) ** 2
    return np.where(spread < 1e-12, num_clusters, size)  # all right or all wrong: nothing varies


def _clopper_pearson(accuracy: Numbers, size: Numbers) -> tuple[Numbers, Numbers]:
    tail, right = (1 - LEVEL) / 2, accuracy * size
    wrong = size - right
    low = stats.beta.ppf(tail, np.maximum(right, 1e-9), wrong + 1)
    high = stats.beta.ppf(1 - tail, right + 1, np.maximum(wrong, 1e-9))
    return np.where(right < 1e-9, 0.0, low), np.where(wrong < 1e-9, 1.0, high)


def bootstrap_mean(values: Float[np.ndarray, " M"], clusters: Clusters) -> Interval | None:
    """Return the interval of the mean of `values`, one a video, by the cluster bootstrap; None over one cluster."""
    if len(clusters) < 2:
        return None
    weights = clusters.resample()
    means = (weights @ clusters.total(values)) / (weights @ clusters.total(np.ones(len(values))))
    return percentiles(means)


def percentiles(resampled: Float[np.ndarray, " R"]) -> Interval:
    """Return the ends between which the middle 95 % of the resampled scores lie."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))

"""95 % intervals for videos that are not independent: clips of one long video, or of one person."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

LEVEL = 0.95
NUM_RESAMPLES = 2000
MIN_CLUSTERS = 10  # fewer clusters say little about how much clusters differ, so the interval is rough

Numbers = np.ndarray | np.floating | float


class Interval(NamedTuple):
    """The ends of an interval."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Clusters:
    """Which videos depend on each other.

    Attributes:
        of_video: the cluster of each video, counted from 0.
        strata: the stratum that each cluster is resampled within: its class if all clusters lie inside one class.
    """

    of_video: Int[np.ndarray, " M"]
    strata: Int[np.ndarray, " C"]

    @classmethod
    def of(cls, units: Sequence[Hashable], labels: Sequence[int]) -> "Clusters":
        """Return the clusters of videos by their `unit` (see `Video`) and label.

        Classes with a single cluster share one stratum: resampled alone, a cluster would seem not to vary.
        """
        numbers: dict[Hashable, int] = {}
        of_video = np.asarray([numbers.setdefault(unit, len(numbers)) for unit in units], dtype=np.int64)
        pairs = {*zip(of_video.tolist(), labels, strict=True)}
        if len(pairs) > len(numbers):  # a cluster has videos of several classes
            return cls(of_video, np.zeros(len(numbers), dtype=np.int64))
        strata = np.asarray([label for _, label in sorted(pairs)], dtype=np.int64)
        names, counts = np.unique(strata, return_counts=True)
        return cls(of_video, np.where(np.isin(strata, names[counts == 1]), -1, strata))

    def __len__(self) -> int:
        return len(self.strata)

    @property
    def are_few(self) -> bool:
        """Whether an interval over them is rough."""
        return len(self) < MIN_CLUSTERS

    @property
    def why_no_interval(self) -> str:
        """The reason why no interval can be computed; empty if one can."""
        reason = "all videos are of one group, and nothing shows how much another group would differ"
        return "" if len(self) > 1 else reason

    def total(self, values: Float[np.ndarray, "M *columns"]) -> Float[np.ndarray, "C *columns"]:
        """Return the sum of the videos' values in each cluster."""
        order = np.argsort(self.of_video, kind="stable")
        starts = np.searchsorted(self.of_video[order], np.arange(len(self)))
        return np.add.reduceat(values[order].astype(float), starts, axis=0)

    def resample(self, num: int = NUM_RESAMPLES, seed: int = 0) -> Float[np.ndarray, "num C"]:
        """Return the weight of each cluster in each resample.

        From each stratum of n clusters, n - 1 are drawn with replacement and weighted by n / (n - 1). Drawing n would
        give intervals that are too short by (n - 1) / n, and a class has few clusters (Rao and Wu, JASA 1988; for the
        cluster bootstrap see Davison and Hinkley 1997, 3.8, and Field and Welsh, JRSS-B 2007).
        """
        generator = np.random.default_rng(seed)
        weights = np.ones((num, len(self)))
        for stratum in np.unique(self.strata):
            members = np.flatnonzero(self.strata == stratum)
            if (n := len(members)) > 1:
                weights[:, members] = generator.multinomial(n - 1, np.full(n, 1 / n), size=num) * (n / (n - 1))
        return weights


def interval_of_accuracy(
    is_correct: Float[np.ndarray, " M"], clusters: Clusters, subsets: Int[np.ndarray, " M"] | None = None
) -> Interval | None:
    """Return the interval of the share of correct videos; None for a single cluster.

    With `subsets`, the class or split of each video, it is the interval of the mean of their accuracies.
    """
    if len(clusters) < 2:
        return None
    weights = np.ones(len(is_correct))
    if subsets is not None:
        _, subset, sizes = np.unique(subsets, return_inverse=True, return_counts=True)
        weights = (len(is_correct) / len(sizes) / sizes)[subset]  # their mean is 1
    low, high = korn_graubard(clusters.total(is_correct * weights), clusters.total(weights))
    return Interval(float(low), float(high))


def korn_graubard(
    num_correct: Float[np.ndarray, "*draws C"], num_videos: Float[np.ndarray, "*draws C"]
) -> tuple[Numbers, Numbers]:
    """Return the ends of the interval of an accuracy, from each cluster's number of correct videos and of videos.

    It is Clopper and Pearson's interval for the number of independent videos that would give the same variance (Korn
    and Graubard, Survey Methodology 1998). A percentile bootstrap is too short near 1: see experiments/intervals.
    """
    total, num_clusters = num_videos.sum(-1), num_videos.shape[-1]
    accuracy = num_correct.sum(-1) / total
    residuals = num_correct - accuracy[..., None] * num_videos
    variance = num_clusters / (num_clusters - 1) * (residuals**2).sum(-1) / total**2
    return _clopper_pearson(accuracy, _effective_size(accuracy, variance, total, num_clusters))


def _effective_size(accuracy: Numbers, variance: Numbers, num_videos: Numbers, num_clusters: int) -> Numbers:
    spread = accuracy * (1 - accuracy)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.minimum(spread / variance, num_videos)
    tail = (1 + LEVEL) / 2
    size = size * (stats.norm.ppf(tail) / stats.t.ppf(tail, num_clusters - 1)) ** 2
    return np.where(spread < 1e-12, num_clusters, size)  # all correct or none: nothing varies


def _clopper_pearson(accuracy: Numbers, size: Numbers) -> tuple[Numbers, Numbers]:
    tail, correct = (1 - LEVEL) / 2, accuracy * size
    incorrect = size - correct
    low = stats.beta.ppf(tail, np.maximum(correct, 1e-9), incorrect + 1)
    high = stats.beta.ppf(1 - tail, correct + 1, np.maximum(incorrect, 1e-9))
    return np.where(correct < 1e-9, 0.0, low), np.where(incorrect < 1e-9, 1.0, high)


def bootstrap_mean(values: Float[np.ndarray, " M"], clusters: Clusters) -> Interval | None:
    """Return the interval of the mean of the videos' values by the cluster bootstrap; None for a single cluster."""
    if len(clusters) < 2:
        return None
    weights = clusters.resample()
    return percentiles((weights @ clusters.total(values)) / (weights @ clusters.total(np.ones(len(values)))))


def percentiles(resampled: Float[np.ndarray, " R"]) -> Interval:
    """Return the ends of the middle 95 % of resampled scores."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))

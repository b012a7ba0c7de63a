"""95 % intervals for videos that are not independent: clips of one long video, or of one person."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

LEVEL = 0.95
MIN_CLUSTERS = 10  # fewer clusters say little about how much clusters differ, so the interval is rough

Numbers = np.ndarray | np.floating | float


class Interval(NamedTuple):
    """The ends of an interval."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Clusters:
    """Tells which videos depend on each other: `of_video` is the cluster of each video, counted from 0."""

    of_video: Int[np.ndarray, " M"]

    @classmethod
    def of(cls, units: Sequence[Hashable]) -> "Clusters":
        """Return the clusters of videos by their `unit` (see `Video`)."""
        numbers: dict[Hashable, int] = {}
        return cls(np.asarray([numbers.setdefault(unit, len(numbers)) for unit in units], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def sizes(self) -> Float[np.ndarray, " C"]:
        """The number of videos in each cluster."""
        return np.bincount(self.of_video).astype(float)

    @property
    def are_few(self) -> bool:
        """Return whether an interval over them is rough."""
        return len(self) == 0 or bool(effective_number(self.sizes) < MIN_CLUSTERS)

    @property
    def warning(self) -> str:
        """The reason why there is no interval, or why it is rough; empty if it can be relied on."""
        if len(self) == 1:
            return (
                "There is no interval: all videos are of one group, and nothing shows how much another group would "
                "differ."
            )
        if not self.are_few:
            return ""
        sizes = "" if np.ptp(self.sizes) == 0 else f" of unequal size, worth {effective_number(self.sizes):.1f} equal"
        return (
            f"The intervals are rough: the videos are of {len(self)} groups{sizes}, and {MIN_CLUSTERS} or more are "
            "needed to know how much groups differ."
        )

    def total(self, values: Float[np.ndarray, "M *columns"]) -> Float[np.ndarray, "C *columns"]:
        """Return the sum of the videos' values in each cluster."""
        order = np.argsort(self.of_video, kind="stable")
        starts = np.searchsorted(self.of_video[order], np.arange(len(self)))
        return np.add.reduceat(values[order].astype(float), starts, axis=0)


def effective_number(sizes: np.ndarray) -> Numbers:
    """Return how many clusters of equal size would say as much as clusters of these (Kish, Survey Sampling 1965)."""
    return sizes.sum(-1) ** 2 / (sizes**2).sum(-1)


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
    num_correct: Float[np.ndarray, "*draws C"], num_videos: Float[np.ndarray, "*draws C"], level: float = LEVEL
) -> tuple[Numbers, Numbers]:
    """Return the ends of the interval of an accuracy, from each cluster's number of correct videos and of videos.

    It is Clopper and Pearson's interval for the number of independent videos that would give the same variance (Korn
    and Graubard, Survey Methodology 1998), with two changes that experiments/intervals supports. Clusters are counted
    by their effective number. And a run with errors is never more surely good than one without: the lower end is at
    most that of all correct, the upper end at least that of none correct.
    """
    total, num_clusters = num_videos.sum(-1), num_videos.shape[-1]
    accuracy, tail = num_correct.sum(-1) / total, (1 - level) / 2
    residuals = num_correct - accuracy[..., None] * num_videos
    variance = num_clusters / (num_clusters - 1) * (residuals**2).sum(-1) / total**2
    effective = effective_number(num_videos)
    low, high = _clopper_pearson(accuracy, _effective_size(accuracy, variance, total, effective, tail), tail)
    all_correct = tail ** (1 / effective)
    return np.minimum(low, all_correct), np.maximum(high, 1 - all_correct)


def _effective_size(
    accuracy: Numbers, variance: Numbers, num_videos: Numbers, num_clusters: Numbers, tail: float
) -> Numbers:
    spread = accuracy * (1 - accuracy)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.minimum(spread / variance, num_videos)
    degrees = np.maximum(num_clusters - 1, 1)
    size = size * (stats.norm.isf(tail) / stats.t.isf(tail, degrees)) ** 2
    return np.where(spread < 1e-12, num_clusters, size)  # all correct or none: nothing varies


def _clopper_pearson(accuracy: Numbers, size: Numbers, tail: float) -> tuple[Numbers, Numbers]:
    correct = accuracy * size
    incorrect = size - correct
    low = stats.beta.ppf(tail, np.maximum(correct, 1e-9), incorrect + 1)
    high = stats.beta.ppf(1 - tail, correct + 1, np.maximum(incorrect, 1e-9))
    return np.where(correct < 1e-9, 0.0, low), np.where(incorrect < 1e-9, 1.0, high)


def interval_of_positive_mean(values: Float[np.ndarray, " M"], clusters: Clusters) -> Interval | None:
    """Return the interval of the mean of positive values such as losses; None for a single cluster, or a mean of 0.

    It is Student's, of the mean's logarithm: losses are skewed.
    """
    totals, sizes, mean = clusters.total(values), clusters.sizes, values.mean()
    if len(clusters) < 2 or mean <= 0:
        return None
    variance = len(sizes) / (len(sizes) - 1) * ((totals - mean * sizes) ** 2).sum() / len(values) ** 2
    degrees = max(effective_number(sizes) - 1, 1)
    factor = np.exp(stats.t.isf((1 - LEVEL) / 2, degrees) * np.sqrt(variance) / mean)
    return Interval(float(mean / factor), float(mean * factor))

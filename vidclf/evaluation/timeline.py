"""Timelines: from the probabilities of windows to the label at every instant, and their scores with intervals.

A timeline is an array of class indices, one for each step of a grid over a file.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import uniform_filter1d
from sklearn.metrics import average_precision_score

from vidclf.contracts import Video
from vidclf.data.timelines import Stretch, instants, labels_at
from vidclf.evaluation.intervals import LEVEL, Interval
from vidclf.evaluation.segments import Counts, Numbers, bouts_of, count, scores_of

NUM_DRAWS = 1000
MAX_RANKS = 2000
SMALLEST_WEIGHT = 1e-6  # at the ends of a window, so that every instant in it counts
SMOOTH_S, MIN_BOUT_S = (0.0, 0.5, 1.0, 2.0, 4.0), (0.0, 0.5, 1.0, 2.0)  # that are tried on val

Labels = Int[np.ndarray, " N"]


@dataclass(frozen=True, eq=False)
class FileTimeline:
    """The timeline of one file.

    Attributes:
        path: of the file.
        name: of the file, as in the names of its windows; files in several folders may have one file name.
        group: of the file.
        times_s: the instants, the middles of steps.
        truth: the true label at each instant; -1: none, which is not scored.
        probabilities: of each class at each instant, before smoothing.
    """

    path: Path
    name: str
    group: Hashable
    times_s: Float[np.ndarray, " N"]
    truth: Labels
    probabilities: Float[np.ndarray, "N K"]

    def count(self, predicted: Labels, background: int | None = None) -> "Counts":
        """Return the counts of a predicted timeline."""
        known = self.truth >= 0
        return count(self.truth[known], predicted[known], self.probabilities.shape[1], background)


def timelines_of(
    probabilities: Float[np.ndarray, "M K"],
    windows: Sequence[Video],
    truths: Mapping[str, Sequence[Stretch]],
    class_names: Sequence[str],
    background: str | None,
    step_s: float | int,
) -> list[FileTimeline]:
    """Return the timeline of each file, up to the end of its last window.

    Args:
        probabilities: of the windows.
        windows: segments of files.
        truths: the labels of each file, by its path.
        class_names: in label order; other labels are background.
        background: the label where there is none; None: such instants have no label.
        step_s: between instants.
    """
    of_file: dict[Path, list[int]] = {}
    for position, window in enumerate(windows):
        of_file.setdefault(window.path, []).append(position)
    label_of = {name: label for label, name in enumerate(class_names)}
    timelines = []
    for path, positions in of_file.items():
        starts_s, ends_s = (
            np.asarray([getattr(windows[n], key) for n in positions], float) for key in ("start_s", "end_s")
        )
        times_s = instants(float(ends_s.max()), step_s)
        truth = [label_of.get(name, -1) for name in labels_at(truths[str(path)], times_s, background or "")]
        averaged = average_windows(probabilities[positions], starts_s, ends_s, times_s)
        first = windows[positions[0]]
        name = first.name.rpartition("#")[0]
        timelines.append(FileTimeline(path, name, first.unit, times_s, np.asarray(truth, int), averaged))
    return timelines


def score_timelines(
    timelines: Sequence[FileTimeline], labels: Sequence[Int[np.ndarray, " _"]], background: int | None = None
) -> Numbers:
    """Return the scores of predicted labels, and `<score>_low` and `<score>_high`, their intervals over groups."""
    counts = count_files(timelines, labels, background)
    intervals = intervals_over_groups(
        [timeline.group for timeline in timelines], lambda weights: scores_of(counts.total(weights))
    )
    ends = {f"{name}_{end}": value for name, one in intervals.items() for end, value in one._asdict().items()}
    return {**scores_of(counts.total()), **ends}


def count_files(
    timelines: Sequence[FileTimeline], labels: Sequence[Int[np.ndarray, " _"]], background: int | None = None
) -> Counts:
    """Return the counts of the files' predicted labels, stacked."""
    return Counts.stack([one.count(predicted, background) for one, predicted in zip(timelines, labels, strict=True)])


class RankedInstants:
    """The instants of several files in order of a class's probability: their average precision in any mixture of files.

    Mixtures are for intervals: where there are more than `MAX_RANKS` distinct probabilities, neighbours share a rank.

    Attributes:
        value: the exact average precision of all files.
    """

    def __init__(self, timelines: Sequence[FileTimeline], label: int) -> None:
        known = [one.truth >= 0 for one in timelines]
        probabilities = [one.probabilities[where, label] for one, where in zip(timelines, known, strict=True)]
        is_there = np.concatenate([one.truth[where] == label for one, where in zip(timelines, known, strict=True)])
        pooled = np.concatenate(probabilities)
        self.value = float(average_precision_score(is_there, pooled)) if is_there.any() else float("nan")
        ranks = np.unique(pooled)
        if len(ranks) > MAX_RANKS:
            ranks = np.unique(np.quantile(ranks, np.linspace(0, 1, MAX_RANKS), method="lower"))
        self.counts = np.empty((len(timelines), 2, len(ranks)))  # of each file: instants of other classes, and of this
        for one, where, of_file, counts in zip(timelines, known, probabilities, self.counts, strict=True):
            rank = np.searchsorted(ranks, of_file, side="right") - 1
            for is_label in (0, 1):
                chosen = rank[(one.truth[where] == label) == is_label]
                counts[is_label] = np.bincount(chosen, minlength=len(ranks))[::-1]

    def average_precision(self, weights: Sequence[float]) -> float:
        """Return the sum of precisions, each times the recall that its rank adds; NaN if the class is not there.

        scikit-learn gives the same, and would sort all instants anew for each of a thousand mixtures.
        """
        negatives, positives = np.tensordot(np.asarray(weights), self.counts, 1)
        found, reached = positives.cumsum(), (positives + negatives).cumsum()
        return float((found / np.maximum(reached, 1) * positives).sum() / found[-1]) if found[-1] else float("nan")


def average_windows(
    probabilities: Float[np.ndarray, "W K"],
    starts_s: Float[np.ndarray, " W"],
    ends_s: Float[np.ndarray, " W"],
    times_s: Float[np.ndarray, " N"],
) -> Float[np.ndarray, "N K"]:
    """Return the mean probabilities of the windows that cover each instant; where none does, the nearest instant's.

    A window weighs 1 in its middle and falls to 0 at its ends. If all weighed the same, half of the windows on each
    side of a change would tie, and the change be found up to half a window too late; so it is found within half a
    stride.
    """
    sums = np.zeros((len(times_s), probabilities.shape[1] + 1))
    rows = np.column_stack([probabilities, np.ones(len(probabilities))])
    for row, start_s, end_s in zip(rows, starts_s, ends_s, strict=True):
        covered = slice(*np.searchsorted(times_s, [start_s, end_s]))
        weights = 1 - np.abs((2 * times_s[covered] - start_s - end_s) / (end_s - start_s)) + SMALLEST_WEIGHT
        sums[covered] += weights[:, None] * row
    has_window = np.flatnonzero(sums[:, -1])
    return (sums[:, :-1] / np.maximum(sums[:, -1:], SMALLEST_WEIGHT))[_nearest(has_window, len(times_s))]


def smooth(probabilities: Float[np.ndarray, "N K"], num_steps: int) -> Float[np.ndarray, "N K"]:
    """Return the mean over `num_steps` steps around each; the ends are continued."""
    return uniform_filter1d(probabilities, num_steps, axis=0, mode="nearest") if num_steps > 1 else probabilities


def drop_short(labels: Labels, min_steps: int) -> Labels:
    """Give instants in bouts of fewer than `min_steps` the label of the nearest instant in a longer one, if any."""
    kept = [np.arange(bout.first, bout.stop) for bout in bouts_of(labels) if bout.stop - bout.first >= min_steps]
    return labels[_nearest(np.concatenate(kept), len(labels))] if kept else labels


def _nearest(chosen: Int[np.ndarray, " M"], count: int) -> Int[np.ndarray, " N"]:
    """Return the nearest of the chosen positions (sorted) to each of `count` positions; of two, the one before."""
    middles = (chosen[:-1] + chosen[1:]) // 2 + 1
    return chosen[np.searchsorted(middles, np.arange(count), side="right")]


def intervals_over_groups(
    groups: Sequence[Hashable], score: Callable[[Sequence[float]], Numbers], seed: int = 0, draws: int = NUM_DRAWS
) -> dict[str, Interval]:
    """Return the 95 % interval of each score by a cluster bootstrap; {} for a single group.

    Args:
        groups: of each file.
        score: from how often each file is taken to its scores.
        seed: of the draws.
        draws: how many; in each, as many groups are drawn, with replacement, as there are.
    """
    numbers: dict[Hashable, int] = {}
    of_file = np.asarray([numbers.setdefault(group, len(numbers)) for group in groups], int)
    if len(numbers) < 2:
        return {}
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), draws)
    scores = [score(weights[of_file].astype(float).tolist()) for weights in drawn]
    tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    return {name: Interval(*np.nanquantile([one[name] for one in scores], tails).tolist()) for name in scores[0]}


def choose_cleaning(
    timelines: Sequence[FileTimeline], step_s: float | int, background: int | None = None
) -> tuple[float, float]:
    """Return (smooth_s, min_bout_s) with the highest segment F1 at 50 % overlap; of equal ones, the smallest."""

    def f1(choice: tuple[float, float]) -> float:
        labels = [clean(one.probabilities, *choice, step_s) for one in timelines]
        return scores_of(count_files(timelines, labels, background).total())["segment_f1_50"]

    return max(product(SMOOTH_S, MIN_BOUT_S), key=f1)


def clean(
    probabilities: Float[np.ndarray, "N K"], smooth_s: float | int, min_bout_s: float | int, step_s: float | int
) -> Labels:
    """Return the most probable label at each instant, after smoothing, without short bouts."""
    labels = smooth(probabilities, max(1, round(smooth_s / step_s))).argmax(axis=1)
    return drop_short(labels, round(min_bout_s / step_s))

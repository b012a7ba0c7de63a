"""Timelines and their scores: from the probabilities of windows to the label at every instant, bouts, and how right.

A timeline is an array of class indices, one for each step of a grid over a file. A bout (or segment) is a run of equal
labels. Scores are computed from counts that add up over files, so that an interval draws whole groups of files.
Sources: Lea et al., "Temporal convolutional networks for action segmentation and detection", CVPR 2017 (edit score,
segment F1); Farha and Gall, "MS-TCN", CVPR 2019 (both as they are reported since).
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import uniform_filter1d

from vidclf.evaluation.intervals import LEVEL, Interval

OVERLAPS = (0.1, 0.25, 0.5)  # of a predicted and a true segment: intersection over union
NUM_DRAWS = 1000
SMALLEST_WEIGHT = 1e-6  # at the ends of a window, so that every instant in it counts
SMOOTH_S, MIN_BOUT_S = (0.0, 0.5, 1.0, 2.0, 4.0), (0.0, 0.5, 1.0, 2.0)  # that are tried on val

Labels = Int[np.ndarray, " N"]
Numbers = dict[str, float]


class Bout(NamedTuple):
    """A run of one label, from step `first` up to but without step `stop`."""

    first: int
    stop: int
    label: int


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


def bouts_of(labels: Labels) -> list[Bout]:
    """Return the runs of equal labels, in order."""
    starts = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)] if len(labels) else [0]
    return [Bout(first, stop, int(labels[first])) for first, stop in pairwise(starts)]


def edit_score(truth: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    """Return 1 - d / n: d is the edit distance of two sequences of segment labels, n the length of the longer."""
    row = list(range(len(predicted) + 1))
    for count, label in enumerate(truth, start=1):
        before, row[0] = row[0], count
        for column, other in enumerate(predicted, start=1):
            before, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, before + (label != other))
    return 1 - row[-1] / max(len(truth), len(predicted), 1)


def match_segments(truth: Sequence[Bout], predicted: Sequence[Bout], overlap: float) -> tuple[int, int, int]:
    """Return the numbers of hits, false alarms and misses.

    Each predicted segment is compared with the true segment of its label that it overlaps most (intersection over
    union). It is a hit if that is at least `overlap` and no earlier one has hit it.
    """
    hit: set[int] = set()
    by_label: dict[int, list[int]] = {}
    for number, bout in enumerate(truth):
        by_label.setdefault(bout.label, []).append(number)
    for bout in predicted:
        shares = [(_overlap(truth[number], bout), -number) for number in by_label.get(bout.label, [])]
        share, number = max(shares, default=(0.0, 0))
        if share >= overlap and -number not in hit:
            hit.add(-number)
    return len(hit), len(predicted) - len(hit), len(truth) - len(hit)


def _overlap(one: Bout, other: Bout) -> float:
    common = min(one.stop, other.stop) - max(one.first, other.first)
    return max(0, common) / (max(one.stop, other.stop) - min(one.first, other.first))


@dataclass
class Counts:
    """What the scores of some timelines follow from; counts of several files add up.

    Attributes:
        confusion: the steps of each true and predicted class, (K, K).
        segments: hits, false alarms and misses at each of `OVERLAPS`, (3, 3).
        edit: the sum of the files' edit scores, and the number of files, (2,).
        bouts: the number of true and of predicted bouts of each class, (2, K).
    """

    confusion: Float[np.ndarray, "K K"]
    segments: Float[np.ndarray, "3 3"]
    edit: Float[np.ndarray, " 2"]
    bouts: Float[np.ndarray, "2 K"]

    @classmethod
    def total(cls, counts: Sequence["Counts"], weights: Sequence[float] | None = None) -> "Counts":
        """Return the sum of counts, each taken `weights` times."""
        taken = np.ones(len(counts)) if weights is None else np.asarray(weights, float)
        stacks = (np.stack([getattr(one, field.name) for one in counts]) for field in fields(cls))
        return cls(*(np.tensordot(taken, stack, 1) for stack in stacks))


def count(truth: Labels, predicted: Labels, num_classes: int, background: int | None = None) -> Counts:
    """Return the counts of one file; segments of the background count for no score of segments."""
    confusion = np.zeros((num_classes, num_classes))
    np.add.at(confusion, (truth, predicted), 1)
    every = [bouts_of(labels) for labels in (truth, predicted)]
    bouts = np.stack([np.bincount([bout.label for bout in one], minlength=num_classes) for one in every]).astype(float)
    true, found = ([bout for bout in one if bout.label != background] for one in every)
    segments = np.asarray([match_segments(true, found, overlap) for overlap in OVERLAPS], float)
    edit = edit_score([bout.label for bout in true], [bout.label for bout in found])
    return Counts(confusion, segments, np.asarray([edit, 1.0]), bouts)


def scores_of(counts: Counts) -> Numbers:
    """Return the scores that counts give, over all files and classes; a class that is not in the truth has no F1."""
    true, predicted, right = counts.confusion.sum(1), counts.confusion.sum(0), counts.confusion.diagonal()
    f1 = 2 * right / np.maximum(true + predicted, 1)
    hits, alarms, misses = counts.segments.T
    segment_f1 = 2 * hits / np.maximum(2 * hits + alarms + misses, 1)
    return {
        "frame_accuracy": float(right.sum() / max(true.sum(), 1)),
        "frame_macro_f1": float(f1[true > 0].mean()) if true.any() else 0.0,
        **{
            f"segment_f1_{overlap:.0%}".rstrip("%"): float(f1) for overlap, f1 in zip(OVERLAPS, segment_f1, strict=True)
        },
        "edit": float(counts.edit[0] / max(counts.edit[1], 1)),
    }


def rows_of_classes(counts: Counts, class_names: Sequence[str], step_s: float | int) -> list[dict[str, object]]:
    """Return precision, recall, F1, bouts and the time budget of each class."""
    true, predicted, right = counts.confusion.sum(1), counts.confusion.sum(0), counts.confusion.diagonal()
    rows: list[dict[str, object]] = []
    for label, name in enumerate(class_names):
        num_true, num_predicted = counts.bouts[:, label]
        row = {"class": name, "precision": right[label] / max(predicted[label], 1)}
        row |= {"recall": right[label] / max(true[label], 1)}
        row |= {"f1": 2 * right[label] / max(true[label] + predicted[label], 1)}
        row |= {"true_s": true[label] * step_s, "predicted_s": predicted[label] * step_s}
        row |= {"true_bouts": int(num_true), "predicted_bouts": int(num_predicted)}
        row |= {
            "true_bout_s": row["true_s"] / max(num_true, 1),
            "predicted_bout_s": row["predicted_s"] / max(num_predicted, 1),
        }
        rows.append(row)
    return rows


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
    probabilities: Sequence[Float[np.ndarray, "_ K"]],
    truths: Sequence[Labels],
    step_s: float | int,
    background: int | None = None,
) -> tuple[float, float]:
    """Return (smooth_s, min_bout_s) with the highest segment F1 at 50 % overlap; of equal ones, the smallest."""

    def f1(choice: tuple[float, float]) -> float:
        timelines = [clean(one, *choice, step_s) for one in probabilities]
        num_classes = probabilities[0].shape[1]
        pairs = zip(truths, timelines, strict=True)
        return scores_of(Counts.total([count(*pair, num_classes, background) for pair in pairs]))["segment_f1_50"]

    return max(product(SMOOTH_S, MIN_BOUT_S), key=f1)


def clean(
    probabilities: Float[np.ndarray, "N K"], smooth_s: float | int, min_bout_s: float | int, step_s: float | int
) -> Labels:
    """Return the most probable label at each instant, after smoothing, without short bouts."""
    labels = smooth(probabilities, max(1, round(smooth_s / step_s))).argmax(axis=1)
    return drop_short(labels, round(min_bout_s / step_s))

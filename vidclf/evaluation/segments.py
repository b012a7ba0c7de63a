"""How right a timeline is: of its instants, and of its segments, also called bouts: runs of one label.

Scores follow from counts that add up over files, so that an interval can draw whole groups of files.
Sources: Lea et al., "Temporal convolutional networks for action segmentation and detection", CVPR 2017 (edit score,
segment F1); Farha and Gall, "MS-TCN", CVPR 2019 (both as they are reported since).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

OVERLAPS = (0.1, 0.25, 0.5)  # of a predicted and a true segment: intersection over union

Labels = Int[np.ndarray, " N"]
Numbers = dict[str, float]


class Bout(NamedTuple):
    """A run of one label, from step `first` up to but without step `stop`."""

    first: int
    stop: int
    label: int


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
        if share >= overlap:
            hit.add(-number)
    return len(hit), len(predicted) - len(hit), len(truth) - len(hit)


def _overlap(one: Bout, other: Bout) -> float:
    common = min(one.stop, other.stop) - max(one.first, other.first)
    return max(0, common) / (max(one.stop, other.stop) - min(one.first, other.first))


@dataclass
class Counts:
    """The counts that the scores of timelines follow from: of one file, of several files stacked, or their total.

    Attributes:
        confusion: the steps of each true and predicted class, (K, K).
        segments: hits, false alarms and misses at each of `OVERLAPS`, (3, 3).
        edit: the sum of the files' edit scores, and the number of files, (2,).
        bouts: the number of true and of predicted bouts of each class, (2, K).
    """

    confusion: Float[np.ndarray, "*files K K"]
    segments: Float[np.ndarray, "*files 3 3"]
    edit: Float[np.ndarray, "*files 2"]
    bouts: Float[np.ndarray, "*files 2 K"]

    @classmethod
    def stack(cls, counts: Sequence["Counts"]) -> "Counts":
        """Return the counts of several files with the files as the first dimension."""
        return cls(*(np.stack([getattr(one, field.name) for one in counts]) for field in fields(cls)))

    def total(self, weights: Sequence[float] | None = None) -> "Counts":
        """Return the sum over the first dimension, each file taken `weights` times."""
        taken = np.ones(len(self.edit)) if weights is None else np.asarray(weights, float)
        return Counts(*(np.tensordot(taken, getattr(self, field.name), 1) for field in fields(self)))


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

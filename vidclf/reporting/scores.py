"""The numbers of a report that no file of a run holds, each with its interval over groups."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from vidclf.evaluation.intervals import Clusters, korn_graubard
from vidclf.reporting.results import Results

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
MAX_DURATIONS = 5  # stretches of duration, with as many videos each


class Score(NamedTuple):
    """A share with its 95 % interval; None: it is not defined, or the videos are of one group."""

    value: float | None
    low: float | None = None
    high: float | None = None


def ratio(hits: Shaped[np.ndarray, " M"], counted: Shaped[np.ndarray, " M"], clusters: Clusters) -> Score:
    """Return sum of `hits` over sum of `counted`, with Korn and Graubard's interval over groups."""
    used = counted > 0
    if not used.any():
        return Score(None)
    value = float(hits[used].sum() / counted[used].sum())
    groups = Clusters.of(clusters.of_video[used].tolist())
    if len(groups) < 2:
        return Score(value)
    low, high = korn_graubard(groups.total(hits[used].astype(float)), groups.total(counted[used].astype(float)))
    return Score(value, float(low), float(high))


def accuracy(results: Results, used: Shaped[np.ndarray, " M"]) -> Score:
    """Return the accuracy on some videos."""
    return ratio(results.is_correct * used, used.astype(float), results.clusters)


def class_scores(results: Results) -> list[dict[str, Any]]:
    """Return precision, recall and F1 of each class, and its numbers of videos and predictions."""
    rows = []
    for label, name in enumerate(results.names):
        true, predicted = (column == label for column in (results.labels, results.predicted))
        hits, both = true & predicted, true.astype(int) + predicted
        row = {"name": name, "videos": int(true.sum()), "predicted": int(predicted.sum())}
        row["groups"] = len({*results.clusters.of_video[true].tolist()})
        for score, (hit, counted) in {
            "precision": (hits, predicted),
            "recall": (hits, true),
            "f1": (2 * hits, both),
        }.items():
            row[score] = ratio(hit, counted, results.clusters)
        rows.append(row)
    return rows


def confusion(results: Results) -> list[tuple[int, int, int, float]]:
    """Return (label, predicted class, number of videos, their share of the label's) where there are any."""
    pairs = np.stack([results.labels, results.predicted], axis=1)
    cells, counts = np.unique(pairs, axis=0, return_counts=True)
    totals = np.bincount(results.labels, minlength=len(results.names))
    return [
        (int(label), int(predicted), int(count), float(count / totals[label]))
        for (label, predicted), count in zip(cells, counts, strict=True)
    ]


def group_scores(results: Results) -> list[tuple[str, int, float]]:
    """Return each group's name, number of videos and accuracy, the lowest accuracy first."""
    rows = []
    totals = results.clusters.total(np.stack([np.ones(len(results.labels)), results.is_correct], axis=1))
    firsts = np.unique(results.clusters.of_video, return_index=True)[1]
    for first, (count, num_correct) in zip(firsts, totals, strict=True):
        label, group = results.scored.units[first]
        rows.append((f"{label}/{group}" if label else group, int(count), float(num_correct / count)))
    return sorted(rows, key=lambda row: (row[2], -row[1], row[0]))


def coverage(results: Results, confidences: Float[np.ndarray, " M"]) -> list[tuple[float, float, Score]]:
    """Return each threshold, the share of videos that reach it, and their accuracy."""
    reached = [(threshold, confidences >= threshold) for threshold in THRESHOLDS]
    return [(threshold, float(used.mean()), accuracy(results, used)) for threshold, used in reached if used.any()]


def durations(results: Results, seconds: Float[np.ndarray, " M"]) -> list[tuple[float, float, int, Score]]:
    """Return shortest and longest duration, number and accuracy of stretches of equally many videos; nan: not known."""
    known = np.sort(seconds[~np.isnan(seconds)])
    edges = np.unique(np.quantile(known, np.linspace(0, 1, MAX_DURATIONS + 1))) if len(known) else np.empty(0)
    rows = []
    for low, high in pairwise(edges):
        used = (seconds >= low) & ((seconds < high) | ((seconds == high) & (high == edges[-1])))
        rows.append((float(low), float(high), int(used.sum()), accuracy(results, used)))
    return [row for row in rows if row[2]]

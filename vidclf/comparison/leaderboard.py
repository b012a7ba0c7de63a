"""Runs side by side: what differs in their configurations, what came out, and how sure the differences are."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vidclf.comparison.differences import Difference, compare_pairs
from vidclf.comparison.scored import Scored
from vidclf.comparison.settings import settings_of, varying_settings
from vidclf.errors import VidclfError
from vidclf.evaluation.intervals import Clusters, Interval, interval_of_accuracy
from vidclf.system.text import first_five

SPLIT, SEED = "split.number", "seed"


@dataclass(frozen=True)
class Entry:
    """A run, or runs that differ in the number of their split alone: cross-validation, or UCF101's protocol.

    Attributes:
        name: of the run, or of the first of them, and how many more.
        runs: by split number; "" where the data set's split has none.
        choices: what differs from other entries, by key.
        metrics: the means over the splits.
        interval: of top1, over videos; None: they are of one group.
    """

    name: str
    runs: Mapping[str, Scored]
    choices: Mapping[str, str]
    metrics: Mapping[str, float]
    interval: Interval | None


@dataclass(frozen=True)
class Seeds:
    """Runs of one setting: what chance in training does, and what the choice of videos does, told apart.

    Attributes:
        choices: of the setting, by key.
        top1s: of each seed.
        interval: of their mean, over videos, for these trained models.
    """

    choices: Mapping[str, str]
    top1s: Sequence[float]
    interval: Interval | None

    @property
    def mean(self) -> float:
        """Of the seeds' top1."""
        return float(np.mean(self.top1s))

    @property
    def deviation(self) -> float:
        """Of the seeds' top1, as of a sample."""
        return float(np.std(self.top1s, ddof=1))


@dataclass(frozen=True)
class Leaderboard:
    """What came out, the best first.

    Attributes:
        entries: sorted by top1.
        keys: of the choices that differ among entries.
        differences: of every two entries, by their positions.
        seeds: settings that were trained with several.
        splits: the numbers of the splits that each entry has; [""]: one without a number.
        clusters: of all their videos.
        num_videos: how many those are; of several splits, a video counts in each that tests it.
        tested_twice: how many videos more than one split tests.
        left_out: why entries are missing.
    """

    entries: Sequence[Entry]
    keys: Sequence[str]
    differences: Sequence[Difference]
    seeds: Sequence[Seeds]
    splits: Sequence[str]
    clusters: Clusters
    num_videos: int
    tested_twice: int
    left_out: Sequence[str]


def build_leaderboard(scored: Sequence[Scored], pool_splits: bool) -> Leaderboard:
    """Return runs side by side.

    Args:
        scored: the runs.
        pool_splits: whether runs that differ in the number of their split alone are one entry, as in a sweep.

    Raises:
        VidclfError: they were scored on different videos, or on videos of other content under the same names.
    """
    choices = [settings_of(one.config) for one in scored]
    keys = varying_settings(choices)
    chosen = [{key: one[key] for key in keys if key in one} for one in choices]
    numbers = [one.get(SPLIT, "") if SPLIT in keys else "" for one in choices]
    of_number: dict[str, Scored] = {}
    for one, number in zip(scored, numbers, strict=True):
        check_same_videos(of_number.setdefault(number, one), one)
    groups = _group(scored, chosen, numbers)
    splits = sorted(of_number, key=lambda number: (len(number), number))
    whole = [(own, runs) for own, runs in groups if len(runs) == len(splits)]
    if len(splits) > 1 and not (whole and pool_splits):
        told = ", ".join(f"{one.folder.name} has split.number={number}" for number, one in of_number.items())
        how = "The mean over splits is of a sweep: give its folder."
        if pool_splits:
            how = f"No setting has all of {', '.join(splits)}: train each on all of them."
        raise VidclfError(f"The runs were scored on different videos, and cannot be compared: {told}. {how}")
    left_out = [
        f"{runs[next(iter(runs))].folder.name}: it has no split.number={', '.join(n for n in splits if n not in runs)}"
        for own, runs in groups
        if len(runs) < len(splits)
    ]
    return _ranked(whole, [key for key in keys if key != SPLIT], splits, left_out)


def check_same_videos(one: Scored, other: Scored) -> None:
    """Raise VidclfError, saying how they differ, unless two runs were scored on the same videos."""
    names = f"{one.folder} and {other.folder}"
    if {*one.class_names} != {*other.class_names}:
        only = [sorted({*a.class_names} - {*b.class_names}) for a, b in ((one, other), (other, one))]
        raise VidclfError(
            f"{names} know different classes, and cannot be compared: only the first has {first_five(only[0])}; only "
            f"the second {first_five(only[1])}."
        )
    if {*one.videos} != {*other.videos}:
        only = [sorted({*a.videos} - {*b.videos}) for a, b in ((one, other), (other, one))]
        raise VidclfError(
            f"{names} were scored on different videos, and cannot be compared: {len(only[0])} that only the first has "
            f"({first_five(only[0])}), {len(only[1])} that only the second has ({first_five(only[1])}). Evaluate both "
            "on one split of the same data."
        )
    known = dict(zip(other.videos, zip(other.contents, other.labels, other.units, strict=True), strict=True))
    told = list(zip(one.videos, zip(one.contents, one.labels, one.units, strict=True), strict=True))
    for position, what in enumerate(("content", "label", "group")):
        unlike = [video for video, about in told if about[position] != known[video][position]]
        if unlike:
            raise VidclfError(
                f"{names} were scored on different videos, and cannot be compared: {len(unlike)} of {len(told)} have "
                f"another {what} under the same name: {first_five(unlike)}. Evaluate both on the same data."
            )


def _group(
    scored: Sequence[Scored], chosen: Sequence[Mapping[str, str]], numbers: Sequence[str]
) -> list[tuple[dict[str, str], dict[str, Scored]]]:
    """Return (choices, runs by split number): runs whose choices are equal but for that number belong together."""
    groups: dict[tuple[object, int], tuple[dict[str, str], dict[str, Scored]]] = {}
    seen: Counter[tuple[object, str]] = Counter()
    for one, own, number in zip(scored, chosen, numbers, strict=True):
        setting = {key: value for key, value in own.items() if key != SPLIT}
        key = tuple(sorted(setting.items()))
        repeat = seen[key, number]
        seen[key, number] += 1
        groups.setdefault((key, repeat), (setting, {}))[1][number] = one
    return list(groups.values())


def _ranked(
    groups: Sequence[tuple[dict[str, str], dict[str, Scored]]],
    keys: Sequence[str],
    splits: Sequence[str],
    left_out: Sequence[str],
) -> Leaderboard:
    first = groups[0][1]
    parts = np.repeat(np.arange(len(splits)), [len(first[number].videos) for number in splits])
    weights = 1 / len(splits) / np.bincount(parts)[parts]
    units = [unit for number in splits for unit in first[number].units]
    classes = {name: label for label, name in enumerate(first[splits[0]].class_names)}
    clusters = Clusters.of(units, [classes[label] for number in splits for label in first[number].labels])
    tested = Counter(video for number in splits for video in first[number].videos)
    is_correct = np.stack([_is_correct(runs, first, splits) for _, runs in groups], axis=1)
    order = sorted(range(len(groups)), key=lambda row: -float(is_correct[:, row] @ weights))
    names = _names([groups[row][1][splits[0]] for row in order])
    entries = []
    for row, name in zip(order, names, strict=True):
        choices, runs = groups[row]
        means = {key: float(np.mean([runs[number].metrics[key] for number in splits])) for key in _shared(runs)}
        more = f" and {len(splits) - 1} more" if len(splits) > 1 else ""
        entries.append(
            Entry(name + more, runs, choices, means, interval_of_accuracy(is_correct[:, row], clusters, parts))
        )
    ranked = is_correct[:, order]
    return Leaderboard(
        entries,
        keys,
        compare_pairs(ranked, weights, clusters),
        _seeds(entries, ranked, weights, parts, clusters),
        splits,
        clusters,
        len(parts),
        sum(count > 1 for count in tested.values()),
        left_out,
    )


def _is_correct(runs: Mapping[str, Scored], first: Mapping[str, Scored], splits: Sequence[str]) -> np.ndarray:
    """Return 1 or 0 for the videos of all splits, in the order of the `first` runs'."""
    columns = []
    for number in splits:
        known = dict(zip(runs[number].videos, runs[number].is_correct, strict=True))
        columns += [float(known[video]) for video in first[number].videos]
    return np.asarray(columns)


def _seeds(
    entries: Sequence[Entry],
    is_correct: Float[np.ndarray, "M R"],
    weights: Float[np.ndarray, " M"],
    parts: np.ndarray,
    clusters: Clusters,
) -> list[Seeds]:
    of_setting: dict[tuple[tuple[str, str], ...], list[int]] = defaultdict(list)
    for row, entry in enumerate(entries):
        of_setting[tuple((key, value) for key, value in entry.choices.items() if key != SEED)].append(row)
    found = []
    for setting, rows in of_setting.items():
        if len({entries[row].choices.get(SEED) for row in rows}) > 1:
            top1s = (weights @ is_correct[:, rows]).tolist()
            found.append(
                Seeds(dict(setting), top1s, interval_of_accuracy(is_correct[:, rows].mean(1), clusters, parts))
            )
    return sorted(found, key=lambda seeds: -seeds.mean)


def _shared(runs: Mapping[str, Scored]) -> list[str]:
    """Return the metrics that all runs have."""
    first, *others = (one.metrics for one in runs.values())
    return [key for key in first if all(key in other for other in others)]


def _names(scored: Sequence[Scored]) -> list[str]:
    """Return the folders' names from where they part."""
    folders = [str(one.folder) for one in scored]
    if len({*folders}) == 1:
        return [one.folder.name for one in scored]
    return [os.path.relpath(folder, os.path.commonpath(folders)) for folder in folders]

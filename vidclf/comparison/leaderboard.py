"""Ranks runs: the settings that differ, their scores, and the significance of their differences."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from vidclf.comparison.differences import Difference, compare_pairs
from vidclf.comparison.scored import ScoredRun
from vidclf.comparison.settings import settings_of, varying_settings
from vidclf.errors import VidclfError
from vidclf.evaluation.intervals import Clusters, Interval, interval_of_accuracy
from vidclf.system.text import first_five

SPLIT, SEED = "split.number", "seed"


@dataclass(frozen=True)
class Entry:
    """A run, or runs that differ only in their split number (cross-validation, or UCF101's protocol).

    Attributes:
        name: of the run, or of the first of them and how many more.
        runs: one for each split.
        choices: settings that differ between entries, by key.
        metrics: the means over the splits.
        interval: of top1, over videos; None: they are of one group.
    """

    name: str
    runs: Sequence[ScoredRun]
    choices: Mapping[str, str]
    metrics: Mapping[str, float]
    interval: Interval | None


@dataclass(frozen=True)
class Setting:
    """Entries that differ only in their seed: the variation of training, apart from that of videos.

    Attributes:
        name: of the entry, or the choices and the number of seeds.
        choices: the common choices, by key.
        rows: the entries' positions, by seed.
        top1s: of each seed.
        interval: of their mean, over videos, for these trained models.
    """

    name: str
    choices: Mapping[str, str]
    rows: Mapping[str, int]
    top1s: Sequence[float]
    interval: Interval | None

    @property
    def mean(self) -> float:
        """The mean top1 of the seeds."""
        return float(np.mean(self.top1s))

    @property
    def deviation(self) -> float:
        """The sample standard deviation of the seeds' top1."""
        return float(np.std(self.top1s, ddof=1))


@dataclass(frozen=True)
class Leaderboard:
    """Entries, the best first.

    Attributes:
        entries: sorted by top1.
        keys: of the settings that differ between entries.
        settings: the best first.
        differences: of every two settings, by their positions.
        splits: the split numbers of every entry; [""]: a split without a number.
        clusters: of all their videos.
        num_videos: a video counts once for each split that tests it.
        tested_twice: how many videos more than one split tests.
        left_out: why entries are missing.
    """

    entries: Sequence[Entry]
    keys: Sequence[str]
    settings: Sequence[Setting]
    differences: Sequence[Difference]
    splits: Sequence[str]
    clusters: Clusters
    num_videos: int
    tested_twice: int
    left_out: Sequence[str]

    @property
    def seeds(self) -> list[Setting]:
        """The settings that were trained with several seeds."""
        return [setting for setting in self.settings if len(setting.rows) > 1]


def build_leaderboard(scored: Sequence[ScoredRun], pool_splits: bool) -> Leaderboard:
    """Return the leaderboard of runs; `pool_splits` makes runs that differ only in their split number one entry.

    Raises:
        VidclfError: the runs were scored on different videos, or on videos with other content under the same names.
    """
    configured = [settings_of(run.config) for run in scored]
    keys = varying_settings(configured)
    choices = [{key: settings[key] for key in keys if key in settings} for settings in configured]
    by_number: dict[str, ScoredRun] = {}
    for run, chosen in zip(scored, choices, strict=True):
        check_same_videos(by_number.setdefault(chosen.get(SPLIT, ""), run), run)
    splits = sorted(by_number, key=lambda number: (len(number), number))
    complete, left_out = list[tuple[dict[str, str], list[ScoredRun]]](), []
    for common, positions in _join(choices, SPLIT):
        if missing := [number for number in splits if number not in positions]:
            first = scored[min(positions.values())]
            left_out.append(f"{first.folder.name}: it has no split.number={', '.join(missing)}")
        else:
            complete.append((common, [scored[positions[number]] for number in splits]))
    if len(splits) > 1 and not (complete and pool_splits):
        examples = ", ".join(f"{run.folder.name} has split.number={number}" for number, run in by_number.items())
        remedy = "The mean over splits is of a sweep: give its folder."
        if pool_splits:
            remedy = f"No setting has all of {', '.join(splits)}: train each on all of them."
        raise VidclfError(f"The runs were scored on different videos, and cannot be compared: {examples}. {remedy}")
    return _rank(complete, [key for key in keys if key != SPLIT], splits, left_out)


def check_same_videos(first: ScoredRun, second: ScoredRun) -> None:
    """Raise VidclfError, naming the differences, unless two runs were scored on the same videos."""
    names = f"{first.folder} and {second.folder}"
    for what, a, b in (
        ("know different classes", {*first.class_names}, {*second.class_names}),
        ("were scored on different videos", {*first.videos}, {*second.videos}),
    ):
        if a != b:
            raise VidclfError(
                f"{names} {what}, and cannot be compared: {len(a - b)} that only the first has "
                f"({first_five(sorted(a - b))}), {len(b - a)} that only the second has ({first_five(sorted(b - a))}). "
                "Evaluate both on one split of the same data."
            )
    for what in ("contents", "labels", "units"):
        known = dict(zip(second.videos, getattr(second, what), strict=True))
        values = zip(first.videos, getattr(first, what), strict=True)
        differing = [video for video, value in values if value != known[video]]
        if differing:
            raise VidclfError(
                f"{names} were scored on different videos, and cannot be compared: {len(differing)} of {len(known)} "
                f"have other {what.replace('units', 'groups')} under the same name: {first_five(differing)}. Evaluate "
                "both on the same data."
            )


def _join(choices: Sequence[Mapping[str, str]], apart: str) -> list[tuple[dict[str, str], dict[str, int]]]:
    """Join what differs in the setting `apart` alone: return the common choices, and the positions by its value.

    What has the choices and the value of another stays apart from it.
    """
    joined: dict[tuple[object, int], tuple[dict[str, str], dict[str, int]]] = {}
    seen: Counter[tuple[object, str]] = Counter()
    for position, chosen in enumerate(choices):
        common = {key: value for key, value in chosen.items() if key != apart}
        key, value = tuple(sorted(common.items())), chosen.get(apart, "")
        joined.setdefault((key, seen[key, value]), (common, {}))[1][value] = position
        seen[key, value] += 1
    return list(joined.values())


def _rank(
    candidates: Sequence[tuple[dict[str, str], list[ScoredRun]]],
    keys: Sequence[str],
    splits: Sequence[str],
    left_out: Sequence[str],
) -> Leaderboard:
    """Return the leaderboard of candidates: their choices, and a run for each split."""
    reference = candidates[0][1]  # their videos are everybody's, in this order
    split_of_video = np.repeat(np.arange(len(splits)), [len(run.videos) for run in reference])
    weights = len(split_of_video) / len(splits) / np.bincount(split_of_video)[split_of_video]  # their mean is 1
    classes = {name: label for label, name in enumerate(reference[0].class_names)}
    clusters = Clusters.of([unit for run in reference for unit in run.units])
    labels = np.array([classes[label] for run in reference for label in run.labels])
    predicted = np.stack([_predictions(runs, reference, classes) for _, runs in candidates], axis=1)
    order = np.argsort(-weights @ (predicted == labels[:, None]), kind="stable")
    candidates, predicted = [candidates[row] for row in order], predicted[:, order]
    is_correct = (predicted == labels[:, None]).astype(float)
    entries = []
    for row, ((choices, runs), name) in enumerate(zip(candidates, _names(candidates), strict=True)):
        common = [key for key in runs[0].metrics if all(key in run.metrics for run in runs)]
        means = {key: float(np.mean([run.metrics[key] for run in runs])) for key in common}
        interval = interval_of_accuracy(is_correct[:, row], clusters, split_of_video)
        entries.append(Entry(name, runs, choices, means, interval))
    settings = _join_seeds(entries, is_correct, weights, split_of_video, clusters)
    pairs = list(combinations(range(len(settings)), 2))
    different = [(i, j) for i, j in pairs if settings[i].choices != settings[j].choices]
    rows = [setting.rows for setting in settings]
    tested = Counter(video for run in reference for video in run.videos)
    return Leaderboard(
        entries,
        keys,
        settings,
        compare_pairs(predicted, labels, weights, clusters, rows, different or pairs),
        splits,
        clusters,
        len(split_of_video),
        sum(count > 1 for count in tested.values()),
        left_out,
    )


def _predictions(
    runs: Sequence[ScoredRun], reference: Sequence[ScoredRun], classes: Mapping[str, int]
) -> Int[np.ndarray, " M"]:
    """Return the class predicted for each video of all splits, in the order of the reference's."""
    predicted = []
    for run, known in zip(runs, reference, strict=True):
        by_video = dict(zip(run.videos, run.predicted, strict=True))
        predicted += [classes[by_video[video]] for video in known.videos]
    return np.array(predicted)


def _join_seeds(
    entries: Sequence[Entry],
    is_correct: Float[np.ndarray, "M R"],
    weights: Float[np.ndarray, " M"],
    split_of_video: np.ndarray,
    clusters: Clusters,
) -> list[Setting]:
    """Return the settings of the entries, the best first."""
    settings = []
    for choices, rows in _join([entry.choices for entry in entries], SEED):
        name, columns = entries[min(rows.values())].name, is_correct[:, [*rows.values()]]
        if len(rows) > 1:
            name = ", ".join(f"{key}={value}" for key, value in choices.items()) or name
            name = f"{name} (mean of {len(rows)} seeds)"
        interval = interval_of_accuracy(columns.mean(1), clusters, split_of_video)
        settings.append(Setting(name, choices, rows, (weights @ columns / len(weights)).tolist(), interval))
    return sorted(settings, key=lambda setting: -setting.mean)


def _names(candidates: Sequence[tuple[dict[str, str], list[ScoredRun]]]) -> list[str]:
    """Return the folders' names below their common folder, and how many more splits each entry has."""
    folders = [runs[0].folder for _, runs in candidates]
    num_more = len(candidates[0][1]) - 1
    more = f" and {num_more} more" if num_more else ""
    if len({*folders}) == 1:
        return [folder.name + more for folder in folders]
    common = os.path.commonpath(folders)
    return [os.path.relpath(folder, common) + more for folder in folders]

"""Ranks runs: the settings that differ, their scores, and the significance of their differences."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

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
        runs: by split number; "" if the data set's split has none.
        choices: settings that differ between entries, by key.
        metrics: the means over the splits.
        interval: of top1, over videos; None: they are of one group.
    """

    name: str
    runs: Mapping[str, ScoredRun]
    choices: Mapping[str, str]
    metrics: Mapping[str, float]
    interval: Interval | None


@dataclass(frozen=True)
class SeedSummary:
    """Runs that differ only in their seed: the variation of training, apart from that of videos.

    Attributes:
        choices: the common settings, by key.
        top1s: of each seed.
        interval: of their mean, over videos, for these trained models.
    """

    choices: Mapping[str, str]
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
        differences: of every two entries, by their positions.
        seeds: settings that were trained with several seeds.
        splits: the split numbers of every entry; [""]: a split without a number.
        clusters: of all their videos.
        num_videos: a video counts once for each split that tests it.
        tested_twice: how many videos more than one split tests.
        left_out: why entries are missing.
    """

    entries: Sequence[Entry]
    keys: Sequence[str]
    differences: Sequence[Difference]
    seeds: Sequence[SeedSummary]
    splits: Sequence[str]
    clusters: Clusters
    num_videos: int
    tested_twice: int
    left_out: Sequence[str]


@dataclass(frozen=True)
class _Setting:
    """The runs of one setting, by split number."""

    choices: Mapping[str, str]
    runs: dict[str, ScoredRun]


def build_leaderboard(scored: Sequence[ScoredRun], pool_splits: bool) -> Leaderboard:
    """Return the leaderboard of runs; `pool_splits` makes runs that differ only in their split number one entry.

    Raises:
        VidclfError: the runs were scored on different videos, or on videos with other content under the same names.
    """
    configured = [settings_of(run.config) for run in scored]
    keys = varying_settings(configured)
    choices = [{key: settings[key] for key in keys if key in settings} for settings in configured]
    numbers = [settings.get(SPLIT, "") if SPLIT in keys else "" for settings in configured]
    by_number: dict[str, ScoredRun] = {}
    for run, number in zip(scored, numbers, strict=True):
        check_same_videos(by_number.setdefault(number, run), run)
    settings = _group_by_setting(scored, choices, numbers)
    splits = sorted(by_number, key=lambda number: (len(number), number))
    complete = [setting for setting in settings if len(setting.runs) == len(splits)]
    if len(splits) > 1 and not (complete and pool_splits):
        examples = ", ".join(f"{run.folder.name} has split.number={number}" for number, run in by_number.items())
        remedy = "The mean over splits is of a sweep: give its folder."
        if pool_splits:
            remedy = f"No setting has all of {', '.join(splits)}: train each on all of them."
        raise VidclfError(f"The runs were scored on different videos, and cannot be compared: {examples}. {remedy}")
    left_out = []
    for setting in settings:
        if missing := [number for number in splits if number not in setting.runs]:
            folder = next(iter(setting.runs.values())).folder
            left_out.append(f"{folder.name}: it has no split.number={', '.join(missing)}")
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


def _group_by_setting(
    scored: Sequence[ScoredRun], choices: Sequence[Mapping[str, str]], numbers: Sequence[str]
) -> list[_Setting]:
    """Return the runs whose choices are equal except for the split number together; repeated runs stay apart."""
    groups: dict[tuple[object, int], _Setting] = {}
    seen: Counter[tuple[object, str]] = Counter()
    for run, chosen, number in zip(scored, choices, numbers, strict=True):
        setting = {key: value for key, value in chosen.items() if key != SPLIT}
        key = tuple(sorted(setting.items()))
        repeat = seen[key, number]
        seen[key, number] += 1
        groups.setdefault((key, repeat), _Setting(setting, {})).runs[number] = run
    return list(groups.values())


def _rank(
    settings: Sequence[_Setting], keys: Sequence[str], splits: Sequence[str], left_out: Sequence[str]
) -> Leaderboard:
    reference = [settings[0].runs[number] for number in splits]  # their videos are everybody's, in this order
    split_of_video = np.repeat(np.arange(len(splits)), [len(run.videos) for run in reference])
    weights = 1 / len(splits) / np.bincount(split_of_video)[split_of_video]
    classes = {name: label for label, name in enumerate(reference[0].class_names)}
    units = [unit for run in reference for unit in run.units]
    clusters = Clusters.of(units, [classes[label] for run in reference for label in run.labels])
    is_correct = np.stack([_is_correct(setting.runs, reference, splits) for setting in settings], axis=1)
    order = sorted(range(len(settings)), key=lambda row: -float(is_correct[:, row] @ weights))
    settings, is_correct = [settings[row] for row in order], is_correct[:, order]
    entries = []
    for row, (setting, name) in enumerate(zip(settings, _names(settings, splits), strict=True)):
        metrics = [setting.runs[number].metrics for number in splits]
        common = [key for key in metrics[0] if all(key in of_split for of_split in metrics)]
        means = {key: float(np.mean([of_split[key] for of_split in metrics])) for key in common}
        interval = interval_of_accuracy(is_correct[:, row], clusters, split_of_video)
        entries.append(Entry(name, setting.runs, setting.choices, means, interval))
    tested = Counter(video for run in reference for video in run.videos)
    return Leaderboard(
        entries,
        keys,
        compare_pairs(is_correct, weights, clusters),
        _summarize_seeds(entries, is_correct, weights, split_of_video, clusters),
        splits,
        clusters,
        len(split_of_video),
        sum(count > 1 for count in tested.values()),
        left_out,
    )


def _is_correct(
    runs: Mapping[str, ScoredRun], reference: Sequence[ScoredRun], splits: Sequence[str]
) -> Float[np.ndarray, " M"]:
    """Return 1 or 0 for the videos of all splits, in the order of the reference's."""
    columns = []
    for number, run in zip(splits, reference, strict=True):
        by_video = dict(zip(runs[number].videos, runs[number].is_correct, strict=True))
        columns += [float(by_video[video]) for video in run.videos]
    return np.asarray(columns)


def _summarize_seeds(
    entries: Sequence[Entry],
    is_correct: Float[np.ndarray, "M R"],
    weights: Float[np.ndarray, " M"],
    split_of_video: np.ndarray,
    clusters: Clusters,
) -> list[SeedSummary]:
    rows_of_setting: dict[tuple[tuple[str, str], ...], list[int]] = defaultdict(list)
    for row, entry in enumerate(entries):
        rows_of_setting[tuple((key, value) for key, value in entry.choices.items() if key != SEED)].append(row)
    summaries = []
    for setting, rows in rows_of_setting.items():
        if len({entries[row].choices.get(SEED) for row in rows}) > 1:
            top1s = (weights @ is_correct[:, rows]).tolist()
            interval = interval_of_accuracy(is_correct[:, rows].mean(1), clusters, split_of_video)
            summaries.append(SeedSummary(dict(setting), top1s, interval))
    return sorted(summaries, key=lambda summary: -summary.mean)


def _names(settings: Sequence[_Setting], splits: Sequence[str]) -> list[str]:
    """Return the folders' names below their common folder, and how many more splits each entry has."""
    folders = [setting.runs[splits[0]].folder for setting in settings]
    more = f" and {len(splits) - 1} more" if len(splits) > 1 else ""
    if len({*folders}) == 1:
        return [folder.name + more for folder in folders]
    common = os.path.commonpath(folders)
    return [os.path.relpath(folder, common) + more for folder in folders]

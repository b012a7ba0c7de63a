"""Ranks settings: runs that differ only in their seed are one. Pairs are of settings on the same videos."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple, TypeVar

import numpy as np

from vidclf.comparison.differences import Difference, Predictions, compare_pairs
from vidclf.comparison.scored import ScoredRun
from vidclf.comparison.settings import settings_of, varying_settings
from vidclf.evaluation.intervals import Clusters, Interval, interval_of_accuracy
from vidclf.system.text import first_five

Item = TypeVar("Item")

SPLIT, SEED = "split.number", "seed"


@dataclass(frozen=True)
class Videos:
    """The videos that a setting is scored on, those of all its splits, one after the other. Equal: they can be paired.

    Attributes:
        classes: sorted.
        contents: see `ScoredRun`.
        labels: class names.
        groups: of the videos, counted from 0.
        splits: the position of each video's split.
    """

    classes: tuple[str, ...]
    contents: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[int, ...]
    splits: tuple[int, ...]

    @classmethod
    def of(cls, runs: Sequence[ScoredRun]) -> "Videos":
        """Return the videos of the runs, one run for each split."""
        return cls(
            tuple(sorted({name for run in runs for name in run.class_names})),
            tuple(content for run in runs for content in run.contents),
            tuple(label for run in runs for label in run.labels),
            tuple(Clusters.of([unit for run in runs for unit in run.units]).of_video.tolist()),
            tuple(split for split, run in enumerate(runs) for _ in run.videos),
        )

    @property
    def num_repeated(self) -> int:
        """The number of videos that several splits test."""
        splits = Counter({*zip(self.contents, self.splits, strict=True)})
        return sum(count > 1 for count in Counter(content for content, _ in splits).values())


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs that differ only in their seed and their split's number.

    Attributes:
        name: the choices, or the folder of a single run.
        choices: settings that differ between all settings, by key.
        runs: one for each seed and split; the splits of one seed beside each other.
        top1s: of each seed.
        metrics: the means over the runs.
        interval: of top1, over videos, for these trained models; None: they are of one group.
        videos: that each seed is scored on.
        predictions: for them.
    """

    name: str
    choices: Mapping[str, str]
    runs: Sequence[ScoredRun]
    top1s: Sequence[float]
    metrics: Mapping[str, float]
    interval: Interval | None
    videos: Videos
    predictions: Predictions

    @property
    def num_splits(self) -> int:
        """The number of splits that each seed is scored on."""
        return len(self.runs) // len(self.top1s)

    @property
    def video_names(self) -> list[str]:
        """The videos' names in the first seed's runs."""
        return [name for run in self.runs[: self.num_splits] for name in run.videos]

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation of the seeds' top1: chance in training, which the interval leaves out."""
        return float(np.std(self.top1s, ddof=1)) if len(self.top1s) > 1 else None


class Pair(NamedTuple):
    """Two settings, and by how much the first is better."""

    first: Setting
    second: Setting
    difference: Difference


@dataclass(frozen=True)
class Leaderboard:
    """Settings, the best first.

    Attributes:
        settings: sorted by top1.
        keys: of what differs between them, and their short names.
        pairs: of settings on the same videos, the most significant first.
    """

    settings: Sequence[Setting]
    keys: Mapping[str, str]
    pairs: Sequence[Pair]


def build_leaderboard(scored: Sequence[ScoredRun], pool_seeds: bool = True) -> Leaderboard:
    """Return the leaderboard of runs; pool those that differ only in their split's number, or only in their seed."""
    configured = [settings_of(run.config) for run in scored]
    varied = varying_settings(configured)
    choices = [{key: settings[key] for key in varied if key in settings} for settings in configured]
    seed = SEED if pool_seeds else ""
    by_videos: dict[Videos, list[tuple[dict[str, str], list[ScoredRun]]]] = {}
    for common, by_split in _join([*zip(choices, scored, strict=True)], SPLIT):
        runs = [by_split[number] for number in sorted(by_split, key=lambda number: (len(number), number))]
        by_videos.setdefault(Videos.of(runs), []).append((common, runs))
    settings = [
        _pool(common, by_seed, videos)
        for videos, entries in by_videos.items()
        for common, by_seed in _join(entries, seed)
    ]
    keys = short_names([key for key in varied if key not in (SPLIT, seed)])
    settings = _name(sorted(settings, key=lambda setting: -setting.metrics["top1"]), keys)
    pairs = [(a, b) for a, b in combinations(settings, 2) if a.videos is b.videos]
    pairs = [(a, b) for a, b in pairs if a.choices != b.choices] or pairs  # runs that are repeats of one another
    differences = compare_pairs([(a.predictions, b.predictions) for a, b in pairs])
    compared = [Pair(*pair, difference) for pair, difference in zip(pairs, differences, strict=True)]
    compared.sort(key=lambda pair: (pair.difference.corrected, -abs(pair.difference.value)))
    return Leaderboard(settings, keys, compared)


def why_not_paired(first: Setting, second: Setting) -> str:
    """Return how the videos of the second setting differ from those of the first."""
    a, b, names = first.videos, second.videos, second.video_names
    if a.classes != b.classes:
        return f"only one of them knows the classes {first_five(sorted({*a.classes} ^ {*b.classes}))}"
    if a.contents != b.contents:
        known = {*a.contents}
        missing = [name for name, content in zip(names, b.contents, strict=True) if content not in known]
        lacks = f", which lacks {first_five(missing)}" if missing else ""
        return f"{len(names) - len(missing)} of its {len(names)} videos are among the other's {len(a.contents)}{lacks}"
    pairs = zip(names, a.labels, b.labels, strict=True)
    if differing := [name for name, label, other in pairs if label != other]:
        return f"{len(differing)} videos have another label: {first_five(differing)}"
    return "the same videos are in other groups or splits"


def _join(items: Sequence[tuple[Mapping[str, str], Item]], apart: str) -> list[tuple[dict[str, str], dict[str, Item]]]:
    """Join what differs in the setting `apart` alone: return the common choices, and the items by its value.

    What has the choices and the value of another stays apart from it.
    """
    joined: dict[tuple[object, int], tuple[dict[str, str], dict[str, Item]]] = {}
    seen: Counter[tuple[object, str]] = Counter()
    for chosen, item in items:
        common = {key: value for key, value in chosen.items() if key != apart}
        key, value = tuple(sorted(common.items())), chosen.get(apart, "")
        joined.setdefault((key, seen[key, value]), (common, {}))[1][value] = item
        seen[key, value] += 1
    return list(joined.values())


def _pool(choices: Mapping[str, str], by_seed: Mapping[str, Sequence[ScoredRun]], videos: Videos) -> Setting:
    """Return the setting of runs: one for each split, for each seed."""
    splits, classes = np.array(videos.splits), {name: label for label, name in enumerate(videos.classes)}
    weights = len(splits) / (splits[-1] + 1) / np.bincount(splits)[splits]  # their mean is 1
    clusters, labels = Clusters(np.array(videos.groups)), np.array([classes[label] for label in videos.labels])
    seeds = sorted(by_seed)
    predicted = np.array([[classes[name] for run in by_seed[seed] for name in run.predicted] for seed in seeds]).T
    predictions = Predictions(seeds, predicted, labels, weights, clusters)
    runs = [run for seed in seeds for run in by_seed[seed]]
    common = [key for key in runs[0].metrics if all(key in run.metrics for run in runs)]
    metrics = {key: float(np.mean([run.metrics[key] for run in runs])) for key in common}
    top1s = [float(np.mean([run.metrics["top1"] for run in by_seed[seed]])) for seed in seeds]
    interval = interval_of_accuracy(predictions.shares, clusters, splits)
    return Setting("", choices, runs, top1s, metrics, interval, videos, predictions)


def _name(settings: Sequence[Setting], keys: Mapping[str, str]) -> list[Setting]:
    """Name a setting of several runs by its choices, and others by their folder below the common one."""
    common = os.path.commonpath([run.folder.parent for setting in settings for run in setting.runs])
    names = [text_of(setting.choices, keys) if len(setting.runs) > 1 else "" for setting in settings]
    named = []
    for setting, name in zip(settings, names, strict=True):
        if not name or names.count(name) > 1:
            num_more = len(setting.runs) - 1
            name = os.path.relpath(setting.runs[0].folder, common) + (f" and {num_more} more" if num_more else "")
        named.append(replace(setting, name=name))
    return named


def text_of(choices: Mapping[str, str], keys: Mapping[str, str]) -> str:
    """Return choices as on the command line, by their short names."""
    return ", ".join(f"{keys[key]}={value}" for key, value in choices.items())


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last part of each dotted key, or the whole key where several end alike."""
    ends = [key.rpartition(".")[2] for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}

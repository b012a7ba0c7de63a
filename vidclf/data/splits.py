"""Put every view of every video into train, val or test, by labels and groups.

A split raises VidclfError where a group is in two parts, or a class has too few groups to be in every part.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from vidclf.contracts import PARTS, OfficialParts, Video
from vidclf.errors import VidclfError
from vidclf.system.seeds import generator_for
from vidclf.system.terminal import say
from vidclf.system.text import first_five

NUM_DRAWS = 10  # of groups; the draw nearest to the fractions is taken
TOLERANCE = 0.02  # a draw of shared groups whose fractions miss by no more in any class is taken at once
NO_VIDEOS = "There are no videos to split. Check the data set's paths and dataset.classes."


@dataclass(frozen=True)
class Split:
    """The part of every view: the part of its video, except the `val_views` of train videos.

    All sequences are in the order of the videos.

    Attributes:
        names: `<class>/<file>` of each video.
        parts: "train", "val" or "test" for each video.
        num_views: of each video.
        val_views: train video -> its views that are in val; empty unless validation is by frame.
        num_missing: number of videos that an official test list names and that are missing.
    """

    names: Sequence[str]
    parts: Sequence[str]
    num_views: Sequence[int]
    val_views: Mapping[int, frozenset[int]] = field(default_factory=dict)
    num_missing: int = 0

    def views_of(self, part: str) -> list[tuple[int, list[int]]]:
        """Return (video, its views) of `part`, in order, without videos that have no view in it."""
        if part not in PARTS:
            raise VidclfError(f"{part} is not a part of a split; allowed are {', '.join(PARTS)}.")
        all_views = [(video, self._views(video, part)) for video in range(len(self.names))]
        return [(video, views) for video, views in all_views if views]

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of all names and parts.

        The order of the videos does not change it; their numbers of views do so only if validation is by frame.
        """
        rows = [
            f"{name}\t{part}\t{sorted(self.val_views.get(video, ()))}\n"
            for video, (name, part) in enumerate(zip(self.names, self.parts, strict=True))
        ]
        return hashlib.sha256("".join(sorted(rows)).encode("utf-8", "surrogateescape")).hexdigest()

    def rows(self) -> list[tuple[str, str]]:
        """Return (name, part) of every video, `train+val` if its views are in both."""
        return [(name, self._part_of_video(video)) for video, name in enumerate(self.names)]

    def _views(self, video: int, part: str) -> list[int]:
        val = self.val_views.get(video, frozenset())
        views = range(self.num_views[video])
        if part == self.parts[video]:
            return [view for view in views if view not in val]
        return sorted(val) if part == "val" else []

    def _part_of_video(self, video: int) -> str:
        return "+".join(part for part in PARTS if self._views(video, part)) or self.parts[video]


class Official:
    """A data set's official split, with val taken from its train videos.

    Args:
        number: of the split, counted from 1.
        validation: "group" holds back whole groups, stratified by class. "frame_level" holds back views, so that train
            and val share videos; its score is too high, and it exists to show by how much.
        val_fraction: of each class's train videos, as nearly as whole groups allow (by frame: of the train views).
        seed: of the draw.
        lists: the folder of the official lists, for data sets that read them.
    """

    official = True  # called with the data set's `OfficialParts`

    def __init__(
        self,
        number: int = 1,
        validation: str = "group",
        val_fraction: float = 0.2,
        seed: int = 0,
        lists: str | Path | None = None,
    ) -> None:
        if validation not in ("group", "frame_level"):
            raise VidclfError(f"split.validation={validation}: must be group or frame_level.")
        check_fraction("val_fraction", val_fraction)
        self.number, self.validation, self.val_fraction, self.seed = number, validation, val_fraction, seed
        self.lists = None if lists is None else Path(lists).expanduser()

    @property
    def per_view(self) -> bool:
        """Return whether single views have a part, which forbids a random sampling."""
        return self.validation == "frame_level"

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int], official: OfficialParts) -> Split:
        if not videos:
            raise VidclfError(NO_VIDEOS)
        parts = list(official.parts)
        val_views: dict[int, frozenset[int]] = {}
        if self.per_view:
            val_views = hold_views_back(videos, parts, num_views, self.val_fraction, self.seed)
        else:
            for video in hold_groups_back(videos, parts, self.val_fraction, self.seed):
                parts[video] = "val"
        if not official.groups_may_cross:
            check_groups_are_whole(videos, parts)
        elif crossing := crossing_groups(videos, parts):
            shown = first_five([f"{group} of {name} ({' and '.join(parts)})" for group, name, parts in crossing])
            say(
                f"split=official: split {self.number} puts {len(crossing)} group(s) into two parts: {shown}. Videos of "
                "a group are not independent, so the score is somewhat too high; split=grouped keeps them together."
            )
        split = Split([video.name for video in videos], parts, list(num_views), val_views, official.num_missing)
        check_every_class(videos, split)
        return split


class Grouped:
    """Whole groups drawn for test and val, a share of each class; the resulting fractions are reported.

    Args:
        test_fraction: of the videos, as nearly as whole groups allow.
        val_fraction: likewise; of all videos, not of those that remain.
        seed: of the draw.
    """

    def __init__(self, test_fraction: float = 0.2, val_fraction: float = 0.2, seed: int = 0) -> None:
        check_fraction("test_fraction", test_fraction)
        check_fraction("val_fraction", val_fraction)
        if test_fraction + val_fraction >= 1:
            raise VidclfError("split.test_fraction and split.val_fraction leave nothing to train on. Lower one.")
        self.test_fraction, self.val_fraction, self.seed = test_fraction, val_fraction, seed

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int]) -> Split:
        parts = ["train"] * len(videos)
        for video in hold_groups_back(videos, parts, self.test_fraction, self.seed, "test"):
            parts[video] = "test"
        split = _finish(videos, parts, num_views, self.val_fraction / (1 - self.test_fraction), self.seed)
        check_every_class(videos, split, "test")
        return split


class KFold:
    """Cross-validation: fold `number` of `folds` is test. Each fold has about the same share of each class's groups.

    Args:
        number: 1 to `folds`; `study=kfold` is cross-validation.
        folds: how many.
        val_fraction: of what is not tested.
        seed: of the draw.
    """

    def __init__(self, number: int = 1, folds: int = 5, val_fraction: float = 0.2, seed: int = 0) -> None:
        check_fraction("val_fraction", val_fraction)
        if not (isinstance(folds, int) and folds >= 2):
            raise VidclfError(f"split.folds={folds}: must be a whole number, 2 or more.")
        if number not in range(1, folds + 1):
            raise VidclfError(f"split.number={number}: must be from 1 to split.folds={folds}.")
        self.number, self.folds, self.val_fraction, self.seed = number, folds, val_fraction, seed

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int]) -> Split:
        why = f"split.folds={self.folds} needs one or more in each fold"
        _require_groups(videos, range(len(videos)), self.folds, why)
        test = _complete_folds(videos, self.folds, self.seed)[self.number - 1]
        parts = ["test" if index in test else "train" for index in range(len(videos))]
        return _finish(videos, parts, num_views, self.val_fraction, self.seed)


class Given:
    """The parts that the data set gives; if it has no val part, val is drawn from the groups of train.

    Args:
        val_fraction: of the train videos, if val is drawn.
        seed: of the draw.
    """

    def __init__(self, val_fraction: float = 0.2, seed: int = 0) -> None:
        check_fraction("val_fraction", val_fraction)
        self.val_fraction, self.seed = val_fraction, seed

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int]) -> Split:
        parts = [video.part or "" for video in videos]
        without = [video.name for video, part in zip(videos, parts, strict=True) if part not in PARTS]
        if without:
            raise VidclfError(
                f"split=given: {len(without)} of {len(videos)} videos have no part (train, val, test) in the data set: "
                f"{first_five(without)}. Add a column split to its manifest, or choose split=grouped or split=kfold."
            )
        check_groups_are_whole(videos, parts)
        return _finish(videos, parts, num_views, 0.0 if "val" in parts else self.val_fraction, self.seed)


def check_fraction(name: str, fraction: object) -> None:
    """Raise if a fraction is not above 0 and at most a half."""
    if not isinstance(fraction, int | float) or not 0 < fraction <= 0.5:
        raise VidclfError(f"split.{name}={fraction}: must be above 0 and at most 0.5.")


def hold_groups_back(
    videos: Sequence[Video], parts: Sequence[str], fraction: float, seed: int, part: str = "val"
) -> list[int]:
    """Return the train videos for val or test: about `fraction` of each class's videos, in whole groups, at least one.

    Each class is drawn from `seed` and its label alone, so that no class changes the draw of another. If a group has
    videos of several classes, all classes are drawn at once.
    """
    needed = 2 if part == "val" else 3
    train = [index for index, current_part in enumerate(parts) if current_part == "train"]
    why = "val needs one" if part == "val" else "val and test need one each"
    _require_groups(videos, train, needed, why)
    if any(len(labels) > 1 for labels in _labels_of_units(videos, train).values()):
        return _nearest_fold(videos, train, fraction, needed - 1, (seed, needed))
    members: dict[int, list[int]] = {video.label: [] for video in videos}
    for index in train:
        members[videos[index].label].append(index)
    held: list[int] = []
    for label, indices in members.items():
        seeds = (seed, label) if part == "val" else (seed, label, 1)
        drawn = _draw_groups([videos[index].group for index in indices], fraction, needed - 1, _random_state(*seeds))
        held += [index for index in indices if videos[index].group in drawn]
    return held


def hold_views_back(
    videos: Sequence[Video], parts: Sequence[str], num_views: Sequence[int], fraction: float, seed: int
) -> dict[int, frozenset[int]]:
    """Return the views of each train video that are in val: `fraction` of all views, stratified by class."""
    warnings.warn(
        "split.validation=frame_level puts views of one video into both train and val. Validation then measures how "
        "well train videos are remembered, and is too high; test is not affected. Choose a model with "
        "split.validation=group.",
        stacklevel=3,
    )
    train = [i for i, part in enumerate(parts) if part == "train"]
    views = [(i, view) for i in train for view in range(num_views[i])]
    labels = [videos[i].label for i, _ in views]
    try:
        _, val = train_test_split(views, test_size=fraction, stratify=labels, random_state=_random_state(seed))
    except ValueError as error:
        raise VidclfError(
            f"{len(views)} train views are too few to take {fraction:.0%} of every class for val ({error}). Add "
            "videos, or raise split.val_fraction or the number of views."
        ) from error
    held: dict[int, set[int]] = {}
    for video, view in val:
        held.setdefault(video, set()).add(view)
    return {video: frozenset(val_views) for video, val_views in sorted(held.items())}


def check_groups_are_whole(videos: Sequence[Video], parts: Sequence[str]) -> None:
    """Raise if videos of one unit, (class, group) or shared group, are in two parts."""
    for group, name, (first, second, *_) in crossing_groups(videos, parts):
        raise VidclfError(
            f"Group {group} of {name} is in both {first} and {second}. Its clips are not independent (same source "
            "video, person or place), so the score would be too high. Correct the lists."
        )


def crossing_groups(videos: Sequence[Video], parts: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """Return (group, its class or "all classes", its parts) of each group that is in two parts or more."""
    units: dict[tuple[int, str], dict[str, Video]] = {}
    for video, part in zip(videos, parts, strict=True):
        if part in PARTS:  # official lists may leave videos unused
            units.setdefault(video.unit, {}).setdefault(part, video)
    return [
        (group, "all classes" if label < 0 else _class_name(next(iter(parts_of.values()))), list(parts_of))
        for (label, group), parts_of in units.items()
        if len(parts_of) > 1
    ]


def check_every_class(videos: Sequence[Video], split: Split, *parts: str) -> None:
    """Raise if a class has no view in one of `parts`, by default train and val."""
    for part in parts or ("train", "val"):
        labels = {videos[i].label for i, _ in split.views_of(part)}
        absent = [name for label, name in _class_names(videos).items() if label not in labels]
        if absent:
            raise VidclfError(
                f"{len(absent)} class(es) have no {part} video: {first_five(absent)}. Add videos, change "
                "split.seed or the fractions of the split, or choose other dataset.classes."
            )


def say_fractions(videos: Sequence[Video], parts: Sequence[str]) -> None:
    """Report how many videos and groups each part has, and its share of the classes."""
    totals = Counter(video.label for video in videos)
    texts = []
    for part in PARTS:
        chosen = [video for video, part_of_video in zip(videos, parts, strict=True) if part_of_video == part]
        counts = Counter(video.label for video in chosen)
        shares = [counts[label] / total for label, total in totals.items()]
        texts.append(
            f"{part} {len(chosen) / len(videos):.0%} ({len(chosen)} videos of {len({video.unit for video in chosen})} "
            f"groups, {min(shares):.0%} to {max(shares):.0%} of a class)"
        )
    say(f"Split: {', '.join(texts)}.")


def _finish(
    videos: Sequence[Video], parts: list[str], num_views: Sequence[int], val_fraction: float, seed: int
) -> Split:
    """Hold back `val_fraction` of train for val if it is above 0, check the split, report and return it."""
    if val_fraction:
        for video in hold_groups_back(videos, parts, val_fraction, seed):
            parts[video] = "val"
    check_groups_are_whole(videos, parts)
    split = Split([video.name for video in videos], parts, list(num_views))
    check_every_class(videos, split)
    say_fractions(videos, parts)
    return split


def _require_groups(videos: Sequence[Video], chosen: Sequence[int], needed: int, why: str) -> None:
    if not videos:
        raise VidclfError(NO_VIDEOS)
    groups = _groups_of_classes(videos, chosen)
    scarce = [name for label, name in _class_names(videos).items() if len(groups[label]) < needed]
    if scarce:
        count = {2: "two", 3: "three"}.get(needed, needed)
        raise VidclfError(
            f"{len(scarce)} class(es) have fewer than {count} groups of train videos, and {why}: "
            f"{first_five(scarce)}. Add videos of more groups, or choose other dataset.classes."
        )


def _labels_of_units(videos: Sequence[Video], chosen: Sequence[int]) -> dict[tuple[int, str], set[int]]:
    labels: dict[tuple[int, str], set[int]] = {}
    for index in chosen:
        labels.setdefault(videos[index].unit, set()).add(videos[index].label)
    return labels


def _draw_groups(groups: Sequence[str], fraction: float, num_left: int, random_state: int) -> set[str]:
    """Return groups with about `fraction` of a class's videos: one or more, so that `num_left` or more remain.

    The first draw of `fraction` of the groups stands if its share of the videos is near. If none is near, because sizes
    differ, it is the nearest of several draws, of any number of groups.
    """
    sizes, random = Counter(groups), np.random.RandomState(random_state)
    names, most = sorted(sizes), len(sizes) - num_left
    orders = [[names[position] for position in random.permutation(len(names))] for _ in range(NUM_DRAWS)]
    draws = [order[: min(max(1, round(fraction * len(names))), most)] for order in orders]
    for order in orders:
        totals = np.cumsum([sizes[name] for name in order[:most]])
        draws.append(order[: 1 + int(np.abs(totals - fraction * len(groups)).argmin())])

    def error_of(draw: Sequence[str]) -> float:
        return round(abs(sum(sizes[name] for name in draw) / len(groups) - fraction), 9)

    near = [draw for draw in draws if error_of(draw) <= min(0.1, fraction / 2)]
    return {*(near[0] if near else min(draws, key=error_of))}


def _complete_folds(videos: Sequence[Video], num_folds: int, seed: int) -> list[set[int]]:
    """Return the folds of the first draw that puts every class into each fold, and two of its groups outside."""
    indices = range(len(videos))
    folds = _balanced_folds(videos, indices, num_folds, _random_state(seed))
    for draw in range(NUM_DRAWS):
        lacking = {label for fold in folds for label in _lacking(videos, indices, fold, num_left=2)}
        if not lacking:
            return folds
        folds = _covering_folds(videos, indices, num_folds, _random_state(seed, draw))
    names = first_five([name for label, name in _class_names(videos).items() if label in lacking])
    raise VidclfError(
        f"split.folds={num_folds}: {names} cannot be in every fold and leave two groups to train and validate on. "
        "Add videos of more groups, or change split.folds."
    )


def _balanced_folds(
    videos: Sequence[Video], chosen: Sequence[int], num_folds: int, random_state: int
) -> list[set[int]]:
    """Divide the `chosen` videos into folds of whole groups, with every class spread over all folds."""
    labels = [videos[index].label for index in chosen]
    numbers = {unit: number for number, unit in enumerate(_labels_of_units(videos, chosen))}
    units = [numbers[videos[index].unit] for index in chosen]
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=random_state)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # it may have fewer groups than folds
        return [{chosen[row] for row in held} for _, held in splitter.split(chosen, labels, units)]


def _covering_folds(
    videos: Sequence[Video], chosen: Sequence[int], num_folds: int, random_state: int
) -> list[set[int]]:
    """Divide the `chosen` videos into folds: each group goes to the fold that most needs its classes, in any order."""
    members: dict[tuple[int, str], list[int]] = {}
    for index in chosen:
        members.setdefault(videos[index].unit, []).append(index)
    labels = [{videos[index].label for index in indices} for indices in members.values()]
    units, num_units = list(members.values()), Counter(label for of_unit in labels for label in of_unit)
    folds: list[set[int]] = [set() for _ in range(num_folds)]
    present: list[set[int]] = [set() for _ in range(num_folds)]  # classes in each fold
    for unit in np.random.RandomState(random_state).permutation(len(units)):
        needs = [sum(1 / num_units[label] for label in labels[unit] - classes) for classes in present]
        neediest = max(range(num_folds), key=lambda fold: (needs[fold], -len(folds[fold])))
        folds[neediest] |= {*units[unit]}
        present[neediest] |= labels[unit]
    return folds


def _lacking(videos: Sequence[Video], chosen: Sequence[int], fold: set[int], num_left: int) -> set[int]:
    """Return the classes without a video in the fold, or with fewer than `num_left` groups outside it."""
    inside, outside = (_groups_of_classes(videos, part) for part in (fold, {*chosen} - fold))
    return {label for label in inside if not inside[label] or len(outside[label]) < num_left}


def _groups_of_classes(videos: Sequence[Video], chosen: Iterable[int]) -> dict[int, set[str]]:
    groups: dict[int, set[str]] = {video.label: set() for video in videos}
    for index in chosen:
        groups[videos[index].label].add(videos[index].group)
    return groups


def _nearest_fold(
    videos: Sequence[Video], train: Sequence[int], fraction: float, num_left: int, seeds: tuple[int, int]
) -> list[int]:
    """Return the fold nearest to `fraction` of every class, of several draws, that leaves `num_left` groups of each."""
    totals = Counter(videos[index].label for index in train)
    num_folds = min(max(2, round(1 / fraction)), len(_labels_of_units(videos, train)), max(totals.values()))

    def error_of(fold: set[int]) -> tuple[int, float]:
        """Return how many classes lack groups, and the largest deviation from `fraction`."""
        counts = Counter(videos[index].label for index in fold)
        deviation = max(abs(counts[label] / total - fraction) for label, total in totals.items())
        return len(_lacking(videos, train, fold, num_left)), deviation

    best: tuple[tuple[int, float], set[int]] = (len(totals) + 1, 1.0), set()
    # Larger folds if no small one has all classes.
    for folds, divide in product(range(num_folds, 1, -1), (_balanced_folds, _covering_folds)):
        for draw in range(NUM_DRAWS):
            for fold in divide(videos, train, folds, _random_state(*seeds, draw)):
                best = min(best, (error_of(fold), fold), key=lambda pair: pair[0])
            if best[0] <= (0, TOLERANCE):
                break
        if not best[0][0]:
            break
    return sorted(best[1])


def _class_name(video: Video) -> str:
    return video.class_name or video.name.partition("/")[0]


def _class_names(videos: Sequence[Video]) -> dict[int, str]:
    return {video.label: _class_name(video) for video in videos}


def _random_state(seed: int, *numbers: int) -> int:
    """Return a random state for scikit-learn."""
    return generator_for(seed, "split", *numbers).initial_seed() % 2**32

"""Who trains, who chooses, who tests: a part for every (video, view), from labels and groups alone."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold, train_test_split

from vidclf.contracts import PARTS, OfficialParts, Video
from vidclf.errors import VidclfError
from vidclf.system.seeds import generator_for
from vidclf.system.terminal import say
from vidclf.system.text import first_five

DRAWS = 10  # of shared groups, of which the one nearest to the fractions is taken
NEAR = 0.02  # a draw that no class misses by more is taken at once


@dataclass(frozen=True)
class Split:
    """The part of every view: that of its video, but for the `val_views` of a train video.

    All sequences are in the order of the videos that were split.

    Attributes:
        names: of the videos, `<class>/<file>`.
        parts: of the videos, "train", "val" or "test".
        num_views: of each video.
        val_views: train video -> its views that validate; empty unless validation is by frame.
        num_missing: how many videos an official test list names that are not there.
    """

    names: Sequence[str]
    parts: Sequence[str]
    num_views: Sequence[int]
    val_views: Mapping[int, frozenset[int]] = field(default_factory=dict)
    num_missing: int = 0

    def views_of(self, part: str) -> list[tuple[int, list[int]]]:
        """Return (video, its views) of `part`, in order, without the videos that have none there."""
        if part not in PARTS:
            raise VidclfError(f"{part} is no part of a split; there are {', '.join(PARTS)}.")
        views = [(video, self._views(video, part)) for video in range(len(self.names))]
        return [(video, own) for video, own in views if own]

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of all names and parts.

        Neither the order of the videos nor, where whole videos validate, their numbers of views change it.
        """
        rows = [
            f"{name}\t{part}\t{sorted(self.val_views.get(video, ()))}\n"
            for video, (name, part) in enumerate(zip(self.names, self.parts, strict=True))
        ]
        return hashlib.sha256("".join(sorted(rows)).encode("utf-8", "surrogateescape")).hexdigest()

    def rows(self) -> list[tuple[str, str]]:
        """Return (name, part) of every video, `train+val` where its views stand on both."""
        return [(name, self._part_of_video(video)) for video, name in enumerate(self.names)]

    def _views(self, video: int, part: str) -> list[int]:
        val = self.val_views.get(video, frozenset())
        views = range(self.num_views[video])
        if part == self.parts[video]:
            return [view for view in views if view not in val]
        return sorted(val) if part == "val" else []

    def _part_of_video(self, video: int) -> str:
        if video not in self.val_views:
            return self.parts[video]
        return "+".join(part for part in PARTS if self._views(video, part))


class Official:
    """A data set's official split, with validation taken from its train videos.

    Args:
        number: of the split, counted from 1.
        validation: "group" holds whole (class, group)s back, stratified by class. "frame_level" holds views back, so
            that one video trains and validates; it overestimates, and is here to show by how much.
        val_fraction: of the train groups of each class, rounded (by frame: of the train views); at most a half.
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
            raise VidclfError(f"split.validation={validation}: it must be group or frame_level.")
        check_fraction("val_fraction", val_fraction)
        self.number, self.validation, self.val_fraction, self.seed = number, validation, val_fraction, seed
        self.lists = None if lists is None else Path(lists).expanduser()

    @property
    def per_view(self) -> bool:
        """Whether single views are given a part, so that the sampling must be one without chance."""
        return self.validation == "frame_level"

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int], *official: OfficialParts) -> Split:
        """Return the split of `videos`, which have `num_views` views each.

        Raises:
            VidclfError: there are no videos, a group would stand in two parts, or a class would have nothing to train
                or to validate on.
        """
        if not videos:
            raise VidclfError("There are no videos to split; check dataset.root and dataset.classes.")
        (known,) = official
        parts = list(known.parts)
        val_views: dict[int, frozenset[int]] = {}
        if self.per_view:
            val_views = hold_views_back(videos, parts, num_views, self.val_fraction, self.seed)
        else:
            for video in hold_groups_back(videos, parts, self.val_fraction, self.seed):
                parts[video] = "val"
        if known.groups_may_cross:
            self._say_crossing_groups(videos, parts)
        else:
            check_groups_are_whole(videos, parts)
        split = Split([video.name for video in videos], parts, list(num_views), val_views, known.num_missing)
        check_every_class(videos, split)
        return split

    def _say_crossing_groups(self, videos: Sequence[Video], parts: Sequence[str]) -> None:
        crossing = crossing_groups(videos, parts)
        if crossing:
            named = first_five([f"{group} of {name} ({' and '.join(parts)})" for group, name, parts in crossing])
            say(
                f"split=official: split {self.number} puts {len(crossing)} group(s) into two parts: {named}. Videos of "
                "one group are not independent, so its score is somewhat too high; split=grouped keeps them together."
            )


class Grouped:
    """Groups are drawn for test and val, whole, of each class its share; the fractions that came out are said.

    Args:
        test_fraction: of the groups; of the videos, where groups are shared among classes.
        val_fraction: likewise, of all of them.
        seed: of the draw.
    """

    def __init__(self, test_fraction: float = 0.2, val_fraction: float = 0.2, seed: int = 0) -> None:
        check_fraction("test_fraction", test_fraction)
        check_fraction("val_fraction", val_fraction)
        if test_fraction + val_fraction >= 1:
            raise VidclfError("split.test_fraction and split.val_fraction leave nothing to train on; lower one.")
        self.test_fraction, self.val_fraction, self.seed = test_fraction, val_fraction, seed

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int]) -> Split:
        """Return the split of `videos`.

        Raises:
            VidclfError: a class has too few groups.
        """
        parts = ["train"] * len(videos)
        for video in hold_groups_back(videos, parts, self.test_fraction, self.seed, "test"):
            parts[video] = "test"
        left = self.val_fraction / (1 - self.test_fraction)
        split = _finished(videos, parts, num_views, left, self.seed)
        check_every_class(videos, split, "test")
        return split


class KFold:
    """Fold `number` of `folds` tests: of each class about one in `folds` groups, whole, and every video once.

    Args:
        number: 1 to `folds`; `study=kfold` is cross-validation.
        folds: how many.
        val_fraction: of what is not tested.
        seed: of the draw.
    """

    def __init__(self, number: int = 1, folds: int = 5, val_fraction: float = 0.2, seed: int = 0) -> None:
        check_fraction("val_fraction", val_fraction)
        if not (isinstance(folds, int) and folds >= 2):
            raise VidclfError(f"split.folds={folds}: it must be 2 or more.")
        if number not in range(1, folds + 1):
            raise VidclfError(f"split.number={number}: it must be 1 to split.folds={folds}.")
        self.number, self.folds, self.val_fraction, self.seed = number, folds, val_fraction, seed

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int]) -> Split:
        """Return the split of `videos`.

        Raises:
            VidclfError: a class has fewer groups than there are folds.
        """
        everyone = range(len(videos))
        _require_groups(videos, everyone, self.folds, f"split.folds={self.folds} puts one or more in each fold")
        tested = _folds(videos, everyone, self.folds, _chance(self.seed))[self.number - 1]
        parts = ["test" if video in tested else "train" for video in everyone]
        return _finished(videos, parts, num_views, self.val_fraction, self.seed)


class Given:
    """The parts that the data set gives; where it names none for val, whole groups of train validate.

    Args:
        val_fraction: of the train groups, where the data set says train and test alone.
        seed: of that draw.
    """

    def __init__(self, val_fraction: float = 0.2, seed: int = 0) -> None:
        check_fraction("val_fraction", val_fraction)
        self.val_fraction, self.seed = val_fraction, seed

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int]) -> Split:
        """Return the split of `videos`.

        Raises:
            VidclfError: a video has no part, or a group two.
        """
        parts = [video.part or "" for video in videos]
        without = [video.name for video, part in zip(videos, parts, strict=True) if part not in PARTS]
        if without:
            raise VidclfError(
                f"split=given: the data set says of {len(without)} of {len(videos)} videos no part (train, val, test): "
                f"{first_five(without)}. Add a column split to its manifest, or choose split=grouped or split=kfold."
            )
        check_groups_are_whole(videos, parts)
        return _finished(videos, parts, num_views, 0.0 if "val" in parts else self.val_fraction, self.seed)


def check_fraction(name: str, fraction: object) -> None:
    """Raise where a share of the train videos is none, or more than a half."""
    if not isinstance(fraction, int | float) or not 0 < fraction <= 0.5:
        raise VidclfError(f"split.{name}={fraction}: it must be above 0 and at most 0.5.")


def hold_groups_back(
    videos: Sequence[Video], parts: Sequence[str], fraction: float, seed: int, part: str = "val"
) -> list[int]:
    """Return the train videos that validate, or test: of each class about `fraction` of its groups, whole, or one.

    A class is drawn from `seed` and its label alone, so that a rare one changes nothing of what the others give; but
    where a group has videos of several classes, all are drawn at once, and `fraction` is of the videos.
    """
    needed = 2 if part == "val" else 3
    train = [index for index, its_part in enumerate(parts) if its_part == "train"]
    taking = "validation takes one" if part == "val" else "validation and test take one each"
    _require_groups(videos, train, needed, taking)
    if any(len(labels) > 1 for labels in _labels_of_units(videos, train).values()):
        return _nearest_fold(videos, train, fraction, needed - 1, (seed, needed))
    members: dict[int, list[int]] = {video.label: [] for video in videos}
    for index in train:
        members[videos[index].label].append(index)
    held: list[int] = []
    for label, own in members.items():
        groups = [videos[index].group for index in own]
        num_groups = len(set(groups))
        count = min(max(1, round(fraction * num_groups)), num_groups - (needed - 1))
        chance = _chance(seed, label) if part == "val" else _chance(seed, label, 1)
        _, val = next(GroupShuffleSplit(1, test_size=count, random_state=chance).split(own, groups=groups))
        held += [own[index] for index in val]
    return held


def hold_views_back(
    videos: Sequence[Video], parts: Sequence[str], num_views: Sequence[int], fraction: float, seed: int
) -> dict[int, frozenset[int]]:
    """Return for each train video the views that validate: `fraction` of all views, stratified by class."""
    warnings.warn(
        "split.validation=frame_level puts views of one video on both parts of train and val. Validation "
        "then measures how well train videos are recognised again and comes out too high; test is not "
        "touched. Choose a model with split.validation=group.",
        stacklevel=3,
    )
    train = [i for i, part in enumerate(parts) if part == "train"]
    views = [(i, view) for i in train for view in range(num_views[i])]
    labels = [videos[i].label for i, _ in views]
    try:
        _, val = train_test_split(views, test_size=fraction, stratify=labels, random_state=_chance(seed))
    except ValueError as error:
        raise VidclfError(
            f"{len(views)} train views are too few to take {fraction:.0%} of every class for validation "
            f"({error}). Add videos, or raise split.val_fraction or the number of views."
        ) from error
    held: dict[int, set[int]] = {}
    for video, view in val:
        held.setdefault(video, set()).add(view)
    return {video: frozenset(own) for video, own in sorted(held.items())}


def check_groups_are_whole(videos: Sequence[Video], parts: Sequence[str]) -> None:
    """Raise where videos of one unit, (class, group) or shared group, stand on two parts."""
    for group, name, (first, second, *_) in crossing_groups(videos, parts):
        raise VidclfError(
            f"Group {group} of {name} stands in {first} and in {second}. Its clips are not independent (one long "
            "video, one person, one place), so a score would measure memory; mend the lists."
        )


def crossing_groups(videos: Sequence[Video], parts: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """Return (group, its class or all of them, its parts) of each that stands on two parts or more."""
    units: dict[tuple[int, str], dict[str, Video]] = {}
    for video, part in zip(videos, parts, strict=True):
        if part in PARTS:  # an official list may leave videos out
            units.setdefault(video.unit, {}).setdefault(part, video)
    return [
        (group, "all classes" if label < 0 else _class_name(next(iter(parts_of.values()))), list(parts_of))
        for (label, group), parts_of in units.items()
        if len(parts_of) > 1
    ]


def check_every_class(videos: Sequence[Video], split: Split, *parts: str) -> None:
    """Raise where a class has no view on one of `parts`: of train and val, where none is named."""
    for part in parts or ("train", "val"):
        there = {videos[i].label for i, _ in split.views_of(part)}
        absent = [name for label, name in _class_names(videos).items() if label not in there]
        if absent:
            raise VidclfError(
                f"{len(absent)} class(es) have no {part} video: {first_five(absent)}. Add videos, change "
                "split.seed or the fractions of the split, or leave the class(es) out: dataset.classes."
            )


def say_fractions(videos: Sequence[Video], parts: Sequence[str]) -> None:
    """Say how many videos and groups each part has, and how much that is of a class."""
    totals = Counter(video.label for video in videos)
    said = []
    for part in PARTS:
        own = [video for video, its_part in zip(videos, parts, strict=True) if its_part == part]
        shares = [count / totals[label] for label, count in Counter(video.label for video in own).items()]
        shares += [0.0] * (len(totals) - len(shares))
        said.append(
            f"{part} {len(own) / len(videos):.0%} ({len(own)} videos of {len({video.unit for video in own})} groups, "
            f"{min(shares):.0%} to {max(shares):.0%} of a class)"
        )
    say(f"Split: {', '.join(said)}.")


def _finished(
    videos: Sequence[Video], parts: list[str], num_views: Sequence[int], val_fraction: float, seed: int
) -> Split:
    """Return the split, a `val_fraction` of train held back for val, if it is above 0; say what came out."""
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
        raise VidclfError("There are no videos to split; check the data set's paths and dataset.classes.")
    groups: dict[int, set[str]] = {video.label: set() for video in videos}
    for index in chosen:
        groups[videos[index].label].add(videos[index].group)
    scarce = [name for label, name in _class_names(videos).items() if len(groups[label]) < needed]
    if scarce:
        count = {2: "two", 3: "three"}.get(needed, needed)
        raise VidclfError(
            f"{len(scarce)} class(es) have fewer than {count} groups of train videos, and {why}: "
            f"{first_five(scarce)}. Add videos of other groups, or leave the class(es) out: dataset.classes."
        )


def _labels_of_units(videos: Sequence[Video], chosen: Sequence[int]) -> dict[tuple[int, str], set[int]]:
    labels: dict[tuple[int, str], set[int]] = {}
    for index in chosen:
        labels.setdefault(videos[index].unit, set()).add(videos[index].label)
    return labels


def _folds(videos: Sequence[Video], chosen: Sequence[int], num_folds: int, chance: int) -> list[set[int]]:
    """Return the videos of each of `num_folds` folds of those `chosen`: whole groups, every class spread over all."""
    labels = [videos[index].label for index in chosen]
    numbers = {unit: number for number, unit in enumerate(_labels_of_units(videos, chosen))}
    units = [numbers[videos[index].unit] for index in chosen]
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=chance)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # its groups are fewer than the folds
        return [{chosen[row] for row in held} for _, held in splitter.split(chosen, labels, units)]


def _nearest_fold(
    videos: Sequence[Video], train: Sequence[int], fraction: float, to_be_left: int, chance: tuple[int, int]
) -> list[int]:
    """Return the fold, of several draws, that holds nearest to `fraction` of every class and leaves it enough."""
    totals = Counter(videos[index].label for index in train)
    num_folds = min(max(2, round(1 / fraction)), len(_labels_of_units(videos, train)), max(totals.values()))

    def misses(held: set[int]) -> tuple[int, float]:
        own = Counter(videos[index].label for index in held)
        left: dict[int, set[str]] = {label: set() for label in totals}
        for index in train:
            if index not in held:
                left[videos[index].label].add(videos[index].group)
        without = sum(not own[label] or len(left[label]) < to_be_left for label in totals)
        return without, max(abs(own[label] / total - fraction) for label, total in totals.items())

    best: tuple[tuple[int, float], set[int]] = (len(totals) + 1, 1.0), set()
    for folds in range(num_folds, 1, -1):  # larger ones, where no small one has all classes
        for draw in range(DRAWS):
            for held in _folds(videos, train, folds, _chance(*chance, draw)):
                best = min(best, (misses(held), held), key=lambda one: one[0])
            if best[0] <= (0, NEAR):
                break
        if not best[0][0]:
            break
    return sorted(best[1])


def _class_name(video: Video) -> str:
    return video.class_name or video.name.partition("/")[0]


def _class_names(videos: Sequence[Video]) -> dict[int, str]:
    return {video.label: _class_name(video) for video in videos}


def _chance(seed: int, *numbers: int) -> int:
    """Return a random state as scikit-learn takes it."""
    return generator_for(seed, "split", *numbers).initial_seed() % 2**32

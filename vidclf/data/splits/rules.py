"""The split rules of `split=`: official, grouped, kfold, given; and a rule that keeps fewer groups to train on."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import ClassVar

from sklearn.model_selection import train_test_split

from vidclf.contracts import DEFAULTS, PARTS, OfficialParts, SplitRule, Video, optional
from vidclf.data.splits.drawing import (
    NO_VIDEOS,
    complete_folds,
    hold_groups_back,
    keep_groups,
    random_state,
    require_groups,
)
from vidclf.data.splits.parts import Split, check_groups_are_whole, checked_split, crossing_groups, say_fractions
from vidclf.errors import VidclfError
from vidclf.system.terminal import say
from vidclf.system.text import first_five


@dataclass
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

    number: int = 1
    validation: str = "group"
    val_fraction: float = 0.2
    seed: int = 0
    lists: str | Path | None = None
    official: ClassVar[bool] = True  # called with the data set's `OfficialParts`

    def __post_init__(self) -> None:
        if self.validation not in ("group", "frame_level"):
            raise VidclfError(f"split.validation={self.validation}: must be group or frame_level.")
        _check_fraction("val_fraction", self.val_fraction)
        self.lists = None if self.lists is None else Path(self.lists).expanduser()

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
            val_views = _hold_views_back(videos, parts, num_views, self.val_fraction, self.seed)
        else:
            parts = hold_groups_back(videos, parts, self.val_fraction, self.seed)
        if not official.groups_may_cross:
            check_groups_are_whole(videos, parts)
        elif crossing := crossing_groups(videos, parts):
            shown = first_five([f"{group} of {name} ({' and '.join(parts)})" for group, name, parts in crossing])
            say(
                f"split=official: split {self.number} puts {len(crossing)} group(s) into two parts: {shown}. Videos of "
                "a group are not independent, so the score is somewhat too high; split=grouped keeps them together."
            )
        return checked_split(videos, parts, num_views, val_views, official.num_missing)


@dataclass
class Grouped:
    """Whole groups drawn for test and val, a share of each class; the resulting fractions are reported.

    Args:
        test_fraction: of the videos, as nearly as whole groups allow.
        val_fraction: likewise; of all videos, not of those that remain.
        seed: of the draw.
    """

    test_fraction: float = 0.2
    val_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        _check_fraction("test_fraction", self.test_fraction)
        _check_fraction("val_fraction", self.val_fraction)
        if self.test_fraction + self.val_fraction >= 1:
            raise VidclfError("split.test_fraction and split.val_fraction leave nothing to train on. Lower one.")

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int]) -> Split:
        parts = hold_groups_back(videos, ["train"] * len(videos), self.test_fraction, self.seed, "test")
        fraction = self.val_fraction / (1 - self.test_fraction)
        return _with_val(videos, parts, num_views, fraction, self.seed, ("train", "val", "test"))


@dataclass
class KFold:
    """Cross-validation: fold `number` of `folds` is test. Each fold has about the same share of each class's groups.

    Args:
        number: 1 to `folds`; `study=kfold` is cross-validation.
        folds: how many.
        val_fraction: of what is not tested.
        seed: of the draw.
    """

    number: int = 1
    folds: int = 5
    val_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        _check_fraction("val_fraction", self.val_fraction)
        if not (isinstance(self.folds, int) and self.folds >= 2):
            raise VidclfError(f"split.folds={self.folds}: must be a whole number, 2 or more.")
        if self.number not in range(1, self.folds + 1):
            raise VidclfError(f"split.number={self.number}: must be from 1 to split.folds={self.folds}.")

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int]) -> Split:
        why = f"split.folds={self.folds} needs one or more in each fold"
        require_groups(videos, range(len(videos)), self.folds, why)
        test = complete_folds(videos, self.folds, self.seed)[self.number - 1]
        parts = ["test" if index in test else "train" for index in range(len(videos))]
        return _with_val(videos, parts, num_views, self.val_fraction, self.seed)


@dataclass
class Given:
    """The parts that the data set gives; if it has no val part, val is drawn from the groups of train.

    Args:
        val_fraction: of the train videos, if val is drawn.
        seed: of the draw.
    """

    val_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        _check_fraction("val_fraction", self.val_fraction)

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int]) -> Split:
        parts = [video.part or "" for video in videos]
        without = [video.name for video, part in zip(videos, parts, strict=True) if part not in PARTS]
        if without:
            raise VidclfError(
                f"split=given: {len(without)} of {len(videos)} videos have no part (train, val, test) in the data set: "
                f"{first_five(without)}. Add a column split to its manifest, or choose split=grouped or split=kfold."
            )
        check_groups_are_whole(videos, parts)
        return _with_val(videos, parts, num_views, 0.0 if "val" in parts else self.val_fraction, self.seed)


@dataclass
class FewerGroups:
    """Another rule's split, of which training uses some groups of each class: see `train_groups`.

    Args:
        rule: the other rule, whose optional members it has.
        num_groups: of each class, at most; the rest are unused.
        seed: of the draw; of one seed, more groups include those of fewer.
    """

    rule: SplitRule
    num_groups: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name in DEFAULTS[SplitRule]:
            setattr(self, name, optional(self.rule, SplitRule, name))

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int], *official: OfficialParts) -> Split:
        split = self.rule(videos, num_views, *official)
        return replace(split, parts=keep_groups(videos, split.parts, self.num_groups, self.seed))


def _check_fraction(name: str, fraction: object) -> None:
    if not isinstance(fraction, int | float) or not 0 < fraction <= 0.5:
        raise VidclfError(f"split.{name}={fraction}: must be above 0 and at most 0.5.")


def _with_val(
    videos: Sequence[Video],
    parts: Sequence[str],
    num_views: Sequence[int],
    fraction: float,
    seed: int,
    required: Sequence[str] = ("train", "val"),
) -> Split:
    """Hold back `fraction` of train for val if it is above 0; check the split, report and return it."""
    parts = hold_groups_back(videos, parts, fraction, seed) if fraction else parts
    check_groups_are_whole(videos, parts)
    split = checked_split(videos, parts, num_views, required=required)
    say_fractions(videos, parts)
    return split


def _hold_views_back(
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
        _, val = train_test_split(views, test_size=fraction, stratify=labels, random_state=random_state(seed))
    except ValueError as error:
        raise VidclfError(
            f"{len(views)} train views are too few to take {fraction:.0%} of every class for val ({error}). Add "
            "videos, or raise split.val_fraction or the number of views."
        ) from error
    return {video: frozenset(view for _, view in held) for video, held in groupby(sorted(val), itemgetter(0))}

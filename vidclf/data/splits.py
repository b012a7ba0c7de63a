"""Who trains, who chooses, who tests: a side for every (video, view), from labels and groups alone."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sklearn.model_selection import GroupShuffleSplit, train_test_split

from vidclf.contracts import PARTS, Video, first_five
from vidclf.errors import VidclfError
from vidclf.system.seeds import generator_for


@dataclass(frozen=True)
class Split:
    """The side of every view: that of its video, but for the `val_views` of a train video.

    All sequences are in the order of the videos that were split.

    Attributes:
        names: of the videos, `<class>/<file>`.
        sides: of the videos, "train", "val" or "test".
        num_views: of each video.
        val_views: train video -> its views that validate; empty unless validation is by frame.
    """

    names: Sequence[str]
    sides: Sequence[str]
    num_views: Sequence[int]
    val_views: Mapping[int, frozenset[int]] = field(default_factory=dict)

    def views_of(self, side: str) -> list[tuple[int, list[int]]]:
        """Return (video, its views) of `side`, in order, without the videos that have none there."""
        if side not in PARTS:
            raise VidclfError(f"{side} is no side of a split; there are {', '.join(PARTS)}.")
        views = [(video, self._views(video, side)) for video in range(len(self.names))]
        return [(video, own) for video, own in views if own]

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of all names and sides.

        Neither the order of the videos nor, where whole videos validate, their numbers of views change it.
        """
        rows = [
            f"{name}\t{side}\t{sorted(self.val_views.get(video, ()))}\n"
            for video, (name, side) in enumerate(zip(self.names, self.sides, strict=True))
        ]
        return hashlib.sha256("".join(sorted(rows)).encode("utf-8", "surrogateescape")).hexdigest()

    def rows(self) -> list[tuple[str, str]]:
        """Return (name, side) of every video, `train+val` where its views stand on both."""
        return [(name, self._side_of_video(video)) for video, name in enumerate(self.names)]

    def _views(self, video: int, side: str) -> list[int]:
        val = self.val_views.get(video, frozenset())
        views = range(self.num_views[video])
        if side == self.sides[video]:
            return [view for view in views if view not in val]
        return sorted(val) if side == "val" else []

    def _side_of_video(self, video: int) -> str:
        if video not in self.val_views:
            return self.sides[video]
        return "+".join(side for side in PARTS if self._views(video, side))


def hold_groups_back(videos: Sequence[Video], sides: Sequence[str], fraction: float, seed: int) -> list[int]:
    """Return the train videos that validate: of each class about `fraction` of its groups, whole, and at least one.

    A class is drawn from `seed` and its label alone, so that a rare one changes nothing of what the others give.
    """
    members: dict[int, list[int]] = {video.label: [] for video in videos}
    for index, (video, side) in enumerate(zip(videos, sides, strict=True)):
        if side == "train":
            members[video.label].append(index)
    groups = {label: [videos[index].group for index in own] for label, own in members.items()}
    scarce = [name for label, name in _class_names(videos).items() if len(set(groups[label])) < 2]
    if scarce:
        raise VidclfError(
            f"{len(scarce)} class(es) have fewer than two groups of train videos, and validation takes one: "
            f"{first_five(scarce)}. Add videos of other groups, or leave the class(es) out: dataset.classes."
        )
    held: list[int] = []
    for label, own in members.items():
        num_groups = len(set(groups[label]))
        count = min(max(1, round(fraction * num_groups)), num_groups - 1)
        splitter = GroupShuffleSplit(1, test_size=count, random_state=_chance(seed, label))
        _, val = next(splitter.split(own, groups=groups[label]))
        held += [own[index] for index in val]
    return held


def hold_views_back(
    videos: Sequence[Video], sides: Sequence[str], num_views: Sequence[int], fraction: float, seed: int
) -> dict[int, frozenset[int]]:
    """Return for each train video the views that validate: `fraction` of all views, stratified by class."""
    warnings.warn(
        "split.validation=frame_level puts views of one video on both sides of train and val. Validation "
        "then measures how well train videos are recognised again and comes out too high; test is not "
        "touched. Choose a model with split.validation=group.",
        stacklevel=3,
    )
    train = [i for i, side in enumerate(sides) if side == "train"]
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


def check_groups_are_whole(videos: Sequence[Video], sides: Sequence[str]) -> None:
    """Raise where videos of one (class, group) stand on two sides."""
    side_of: dict[tuple[int, str], str] = {}
    for video, side in zip(videos, sides, strict=True):
        other = side_of.setdefault(_class_and_group(video), side)
        if side != other:
            raise VidclfError(
                f"Group {video.group} of {_class_name(video)} stands in {other} and in {side}. Its clips "
                "are cut from one long video, so a score would measure memory; mend the lists."
            )


def check_every_class(videos: Sequence[Video], split: Split) -> None:
    """Raise where a class has no train or no validation view."""
    for side in ("train", "val"):
        there = {videos[i].label for i, _ in split.views_of(side)}
        absent = [name for label, name in _class_names(videos).items() if label not in there]
        if absent:
            raise VidclfError(
                f"{len(absent)} class(es) have no {side} video: {first_five(absent)}. Add videos, change "
                "split.seed or split.val_fraction, or leave the class(es) out: dataset.classes."
            )


def _class_and_group(video: Video) -> tuple[int, str]:
    return video.label, video.group


def _class_name(video: Video) -> str:
    return video.name.partition("/")[0]


def _class_names(videos: Sequence[Video]) -> dict[int, str]:
    return {video.label: _class_name(video) for video in videos}


def _chance(seed: int, *numbers: int) -> int:
    """Return a random state as scikit-learn takes it."""
    return generator_for(seed, "split", *numbers).initial_seed() % 2**32

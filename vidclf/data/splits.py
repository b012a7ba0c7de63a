"""Who trains, who chooses, who tests: a side for every (video, view), from labels and groups alone."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from vidclf.contracts import Video, first_five
from vidclf.data.datasets.ucf101 import read_list
from vidclf.errors import VidclfError

SIDES = ("train", "val", "test")


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
        if side not in SIDES:
            raise VidclfError(f"{side} is no side of a split; there are {', '.join(SIDES)}.")
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
        return "+".join(side for side in SIDES if self._views(video, side))


class Official:
    """UCF101's official split `number`, with validation carved from its train videos.

    It tests on the videos of testlist0`number`.txt in `lists`; without `lists`, on groups 1-7, 8-14 or 15-21
    of every class, which are the same videos. The unit of independence is (class, group): a group is one long
    video of its class, cut into clips.

    Args:
        number: 1, 2 or 3.
        validation: "group" holds whole (class, group)s back, stratified by class. "frame_level" holds views
            back, so that one video trains and validates; it overestimates, and is here to show by how much.
        val_fraction: of the train videos (by frame: of their views), at most a half. Whole groups meet it
            only about.
        seed: of the draw.
        lists: the folder of the official lists.
    """

    def __init__(
        self,
        number: int = 1,
        validation: str = "group",
        val_fraction: float = 0.2,
        seed: int = 0,
        lists: str | Path | None = None,
    ) -> None:
        if number not in (1, 2, 3):
            raise VidclfError(f"split.number={number}: it must be 1, 2 or 3.")
        if validation not in ("group", "frame_level"):
            raise VidclfError(f"split.validation={validation}: it must be group or frame_level.")
        if not isinstance(val_fraction, int | float) or not 0 < val_fraction <= 0.5:
            raise VidclfError(f"split.val_fraction={val_fraction}: it must be above 0 and at most 0.5.")
        self.number = number
        self.validation = validation
        self.val_fraction = val_fraction
        self.seed = seed
        self.lists = None if lists is None else Path(lists).expanduser()

    @property
    def per_view(self) -> bool:
        """Whether single views are given a side, so that the sampling must be one without chance."""
        return self.validation == "frame_level"

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int]) -> Split:
        """Return the split of `videos`, which have `num_views` views each.

        Raises:
            VidclfError: there are no videos, a (class, group) would stand on two sides, a class would have
                nothing to train or to validate on, or `lists` do not say where a video belongs.
        """
        if not videos:
            raise VidclfError("There are no videos to split; check dataset.root and dataset.classes.")
        if self.lists is None:
            test = [is_test_group(video, self.number) for video in videos]
        else:
            test = in_test_list(videos, self.number, self.lists)
        sides = ["test" if tested else "train" for tested in test]
        val_views: dict[int, frozenset[int]] = {}
        if self.per_view:
            val_views = hold_views_back(videos, sides, num_views, self.val_fraction, self.seed)
        else:
            for video in hold_groups_back(videos, sides, self.val_fraction, self.seed):
                sides[video] = "val"
        check_groups_are_whole(videos, sides)
        split = Split([video.name for video in videos], sides, list(num_views), val_views)
        check_every_class(videos, split)
        return split


def is_test_group(video: Video, number: int) -> bool:
    """Return whether the official split `number` tests on the video's group: one of seven."""
    digits = video.group.removeprefix("g")
    if not digits.isdecimal():
        raise VidclfError(f"{video.name}: its group is {video.group!r}; split=official needs g01, g02, ...")
    return 7 * (number - 1) < int(digits) <= 7 * number


def in_test_list(videos: Sequence[Video], number: int, lists: Path) -> list[bool]:
    """Return for each video whether the lists of split `number` test on it."""
    names = {}
    for side in ("train", "test"):
        path = lists / f"{side}list{number:02d}.txt"
        if not path.is_file():
            raise VidclfError(
                f"{path}: there is no such file. split.number={number} needs it; choose another "
                "number, or leave dataset.lists out to split by group numbers."
            )
        names[side] = set(read_list(path))
    wrong = [v.name for v in videos if (v.name in names["train"]) == (v.name in names["test"])]
    if wrong:
        raise VidclfError(
            f"{len(wrong)} of {len(videos)} videos are not in exactly one of trainlist{number:02d}.txt and "
            f"testlist{number:02d}.txt in {lists}: {first_five(wrong)}. Mend the lists or remove the videos."
        )
    return [video.name in names["test"] for video in videos]


def hold_groups_back(videos: Sequence[Video], sides: Sequence[str], fraction: float, seed: int) -> list[int]:
    """Return the train videos that validate: whole (class, group)s, about `fraction` of every class."""
    train = [i for i, side in enumerate(sides) if side == "train"]
    labels = [videos[i].label for i in train]
    groups = [_class_and_group(videos[i]) for i in train]
    groups_of_class = Counter(label for label, _ in set(groups))
    scarce = [name for label, name in _class_names(videos).items() if groups_of_class[label] < 2]
    if scarce:
        raise VidclfError(
            f"{len(scarce)} class(es) have fewer than two groups of train videos, and validation takes one: "
            f"{first_five(scarce)}. Add videos of other groups, or leave the class(es) out: dataset.classes."
        )
    # With more folds than groups, a fold would hold nothing of some class.
    folds = min(round(1 / fraction), *groups_of_class.values())
    keys = [f"{label}/{group}" for label, group in groups]
    _, val = next(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, keys))
    return [train[i] for i in val]


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
        _, val = train_test_split(views, test_size=fraction, stratify=labels, random_state=seed)
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

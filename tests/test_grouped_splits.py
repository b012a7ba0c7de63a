"""Splits for any data set: whole groups drawn, in folds, or given; shared groups are in one part for all classes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sklearn.model_selection import GroupShuffleSplit

from vidclf.contracts import PARTS, Video
from vidclf.data.splits import Given, Grouped, KFold, Split
from vidclf.data.splits.drawing import random_state
from vidclf.data.splits.parts import say_fractions
from vidclf.errors import VidclfError


def videos_of(people: dict[str, Sequence[int]], shared: bool = True, clips: int = 2) -> list[Video]:
    """`clips` videos of each person in each of their classes."""
    return [
        Video(Path(f"Class{label}/{person}_{clip}.mp4"), label, person, shared=shared)
        for person, labels in people.items()
        for label in labels
        for clip in range(clips)
    ]


EVERYONE = {f"p{number:02d}": (0, 1, 2) for number in range(20)}
# Real data are not in balance: some do one thing only, one class is rare.
UNEVEN = {f"p{number:02d}": (0, 1) if number % 3 else (0,) for number in range(30)} | {
    f"p{number:02d}": (1, 2) for number in range(30, 37)
}


def split_of(split: Any, videos: list[Video]) -> Split:
    return split(videos, [1] * len(videos))


def units_of(videos: list[Video], split: Split) -> dict[str, set[tuple[int, str]]]:
    return {part: {videos[i].unit for i, _ in split.views_of(part)} for part in PARTS}


@pytest.mark.parametrize("people", [EVERYONE, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("make", [Grouped, KFold], ids=["grouped", "kfold"])
def test_no_group_is_in_two_parts_and_every_class_is_in_all(make: Any, shared: bool, people: dict):
    videos = videos_of(people, shared)
    for seed in range(3):
        split = split_of(make(seed=seed), videos)
        units = units_of(videos, split)
        assert sum(map(len, units.values())) == len(set.union(*units.values()))
        assert all({videos[i].label for i, _ in split.views_of(part)} == {0, 1, 2} for part in PARTS)


@pytest.mark.parametrize("people", [EVERYONE, UNEVEN], ids=["even", "uneven"])
def test_shared_groups_give_about_the_requested_fractions(people: dict):
    videos = videos_of(people)
    split = split_of(Grouped(test_fraction=0.25, val_fraction=0.15), videos)
    for part, fraction in (("test", 0.25), ("val", 0.15)):
        counts = Counter(videos[i].label for i, _ in split.views_of(part))
        totals = Counter(video.label for video in videos)
        assert all(abs(counts[label] / totals[label] - fraction) < 0.15 for label in totals)
        assert abs(sum(counts.values()) / len(videos) - fraction) < 0.06


def test_groups_of_a_class_are_drawn_class_by_class():
    videos = videos_of(EVERYONE, shared=False)
    units = units_of(videos, split_of(Grouped(), videos))
    assert {part: Counter(label for label, _ in groups) for part, groups in units.items()} == {
        "train": {0: 12, 1: 12, 2: 12},
        "val": {0: 4, 1: 4, 2: 4},
        "test": {0: 4, 1: 4, 2: 4},
    }
    tested = [{group for label, group in units["test"] if label == k} for k in range(3)]
    assert tested[0] != tested[1]  # not the same names in all classes


def test_a_larger_fold_is_drawn_if_a_small_one_lacks_a_class():
    """A fifth of these six people is one, who has two of the three classes."""
    people = {"a": (0, 1), "b": (1, 2), "c": (2, 0), "d": (0, 1), "e": (1, 2), "f": (2, 0)}
    videos = videos_of(people)
    for seed in range(5):
        units = units_of(videos, split_of(Grouped(seed=seed), videos))
        assert {part: len(groups) for part, groups in units.items()} == dict.fromkeys(PARTS, 2)


def test_a_seed_is_a_split():
    videos = videos_of(UNEVEN)
    prints = [split_of(Grouped(seed=seed), videos).fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_groups_are_drawn_by_their_videos():
    """One group has most of the videos of its class: counted as one group of ten, it would make test 6 or 66 %."""
    sizes = {f"g{number}": 1 + number for number in range(9)} | {"giant": 60}
    videos = [
        Video(Path(f"Class{label}/{group}_{clip}.mp4"), label, group)
        for label in range(3)
        for group, size in sizes.items()
        for clip in range(size)
    ]
    for seed in range(10):
        split = split_of(Grouped(seed=seed), videos)
        for part in ("val", "test"):
            counts = Counter(videos[i].label for i, _ in split.views_of(part))
            assert all(0.1 <= counts[label] / 105 <= 0.3 for label in range(3)), (seed, part)


def test_groups_of_one_size_are_drawn_as_scikit_learn_shuffles_them():
    videos = videos_of({f"p{number:02d}": (0,) for number in range(20)}, shared=False)
    splitter = GroupShuffleSplit(1, test_size=4, random_state=random_state(0, 0, 1))
    _, rows = next(splitter.split(videos, groups=[video.group for video in videos]))
    assert {i for i, _ in split_of(Grouped(), videos).views_of("test")} == {*rows.tolist()}


@pytest.mark.parametrize("split", [Grouped, KFold])
@pytest.mark.parametrize("shared", [True, False])
def test_another_seed_is_another_test_part(split: Any, shared: bool):
    videos = videos_of(EVERYONE, shared)
    tests = [{i for i, _ in split_of(split(seed=seed), videos).views_of("test")} for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]


# scikit-learn's folds leave a class out of one of them, and need not.
INCOMPLETE = {"p0": (0, 1), "p1": (1,), "p2": (0, 1), "p3": (0,), "p4": (0, 1), "p5": (1,), "p6": (0, 1)}


def test_every_class_is_in_every_fold_where_that_can_be():
    clips = {0: (1, 0, 2, 1, 1, 0, 2), 1: (2, 2, 1, 0, 2, 1, 2)}
    videos = [
        Video(Path(f"c{label}/{person}/v{clip}.mp4"), label, person, shared=True)
        for label, numbers in clips.items()
        for person, number in zip(INCOMPLETE, numbers, strict=True)
        for clip in range(number)
    ]
    for seed in range(5):
        for number in range(1, 6):
            split = split_of(KFold(number, seed=seed), videos)
            assert all({videos[i].label for i, _ in split.views_of(part)} == {0, 1} for part in PARTS)


def test_folds_that_cannot_have_every_class_are_refused_in_the_first():
    """Four persons in three folds: two are alone in theirs, and only d has every class."""
    videos = videos_of({"a": (0, 1), "b": (0, 2), "c": (1, 2), "d": (0, 1, 2)})
    for number in (1, 2, 3):
        with pytest.raises(
            VidclfError, match=r"split\.folds=3: Class\d.* cannot be in every fold and leave two groups"
        ):
            split_of(KFold(number, folds=3), videos)


@pytest.mark.parametrize("shared", [True, False])
def test_every_video_is_in_test_in_exactly_one_fold(shared: bool):
    videos = videos_of(UNEVEN, shared)
    splits = [split_of(KFold(number, folds=5), videos) for number in range(1, 6)]
    assert Counter(i for split in splits for i, _ in split.views_of("test")) == dict.fromkeys(range(len(videos)), 1)


def test_the_fractions_are_reported(capsys: pytest.CaptureFixture):
    videos = videos_of(EVERYONE)
    split_of(Grouped(), videos)
    said = capsys.readouterr().err
    assert "Split: train 60% (72 videos of 12 groups, 60% to 60% of a class), val 20% (24 videos of 4 groups" in said
    say_fractions(videos[:1], ["train"])
    assert "Split: train 100% (1 video of 1 group, " in capsys.readouterr().err


def with_parts(videos: list[Video], part_of: dict[str, str | None]) -> list[Video]:
    return [Video(v.path, v.label, v.group, part_of.get(v.group, "train"), shared=v.shared) for v in videos]


def test_given_parts_are_kept_and_val_is_drawn_if_missing():
    videos = videos_of(EVERYONE)
    given = with_parts(videos, {"p00": "test", "p01": "val"})
    assert dict(split_of(Given(), given).rows()) == {video.name: video.part for video in given}
    carved = split_of(Given(val_fraction=0.25), with_parts(videos, {"p00": "test"}))
    assert Counter(part for _, part in carved.rows()) == {"train": 84, "val": 30, "test": 6}  # 5 of 19 people


def test_a_missing_part_is_refused():
    videos = with_parts(videos_of(EVERYONE), {"p03": None})
    with pytest.raises(VidclfError, match=r"6 of 120 videos have no part .*: Class0/p03_0\.mp4.*split=grouped"):
        split_of(Given(), videos)


def test_a_shared_group_in_two_parts_of_a_given_split_is_refused():
    parts = {0: "train", 1: "test", 2: "train"}
    videos = [Video(v.path, v.label, v.group, parts[v.label], shared=True) for v in videos_of(EVERYONE)]
    with pytest.raises(VidclfError, match="Group p00 of all classes is in both train and test"):
        split_of(Given(), videos)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("split", "message"),
    [
        (Grouped(), r"1 class\(es\) have fewer than three groups .* test need one each: Class1"),
        (KFold(folds=3), r"1 class\(es\) have fewer than three groups .*split\.folds=3.*: Class1"),
        (KFold(folds=5), r"2 class\(es\) have fewer than 5 groups .*split\.folds=5.*: Class0, Class1"),
    ],
)
def test_too_few_groups_are_refused(split: Any, message: str, shared: bool):
    with pytest.raises(VidclfError, match=message):
        split_of(split, videos_of({"a": (0, 1), "b": (0, 1), "c": (0,), "d": (0,)}, shared))


@pytest.mark.parametrize("split", [Grouped(), KFold(), Given()])
def test_no_videos_are_refused(split: Any):
    with pytest.raises(VidclfError, match="no videos to split"):
        split([], [])


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (Grouped, {"test_fraction": 0.0}, r"split\.test_fraction=0\.0: must be above 0 and at most 0\.5"),
        (Grouped, {"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        (KFold, {"number": 6}, r"split\.number=6: must be from 1 to split\.folds=5"),
        (KFold, {"folds": 1}, r"split\.folds=1: must be a whole number, 2 or more"),
        (Given, {"val_fraction": 0.7}, r"split\.val_fraction=0\.7"),
    ],
)
def test_arguments_that_make_no_split_are_refused(make: Any, arguments: dict, message: str):
    with pytest.raises(VidclfError, match=message):
        make(**arguments)

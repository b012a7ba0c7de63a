"""study=learning_curve: fewer groups to train on, and what twice as many would be worth."""

import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scored_runs import write_results, write_run
from verbs import Outcome

from vidclf.comparison.curve import curves_of, sentences_on
from vidclf.comparison.leaderboard import Leaderboard, build_leaderboard
from vidclf.comparison.scored import read_scored
from vidclf.contracts import SplitRule, Video, optional
from vidclf.data.splits import FewerGroups, Given, Official
from vidclf.data.splits.drawing import keep_groups
from vidclf.data.splits.parts import groups_per_class

VIDEOS = [
    Video(Path(f"{label}/g{group}_{clip}.avi"), label, f"g{group}", part)
    for label in range(3)
    for group, part in enumerate(["train"] * 6 + ["val"] * 2 + ["test"] * 2)
    for clip in range(label + 1)
]
PARTS = [str(video.part) for video in VIDEOS]


def groups_of(parts: list[str], part: str = "train") -> dict[int, set[str]]:
    groups: dict[int, set[str]] = defaultdict(set)
    for video, part_of_video in zip(VIDEOS, parts, strict=True):
        if part_of_video == part:
            groups[video.label].add(video.group)
    return groups


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_whole_groups_are_kept_and_more_groups_include_fewer(seed: int):
    before: dict[int, set[str]] = {label: set() for label in range(3)}
    for num_groups in (1, 2, 4, 6, 8):
        parts = keep_groups(VIDEOS, PARTS, num_groups, seed)
        kept, unused = groups_of(parts), groups_of(parts, "unused")
        assert [len(kept[label]) for label in range(3)] == [min(num_groups, 6)] * 3
        assert all(before[label] <= kept[label] and not kept[label] & unused[label] for label in range(3))
        assert groups_per_class(VIDEOS, parts, "train") == min(num_groups, 6)
        before = kept
        assert [parts[n] for n, part in enumerate(PARTS) if part != "train"] == [p for p in PARTS if p != "train"]


def test_each_seed_draws_other_groups_and_each_class_its_own():
    draws = [groups_of(keep_groups(VIDEOS, PARTS, 2, seed)) for seed in range(5)]
    assert len({tuple(sorted(draw[0])) for draw in draws}) > 1
    assert any(draw[0] != draw[1] for draw in draws)


def test_people_in_several_classes_are_the_same_for_all_classes():
    shared = [
        Video(Path(f"{label}/{group}.avi"), label, f"p{group}", shared=True) for label in (0, 1) for group in range(6)
    ]
    parts = keep_groups(shared, ["train"] * 12, 2, 0)
    kept = [
        {video.group for video, part in zip(shared, parts, strict=True) if part == "train" and video.label == n}
        for n in (0, 1)
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2


def test_a_rule_with_fewer_groups_has_the_members_of_the_rule():
    rule = FewerGroups(Official(number=2, validation="frame_level"), 3, 0)
    assert [optional(rule, SplitRule, name) for name in ("official", "number", "per_view")] == [True, 2, True]
    split = FewerGroups(Given(), 1, 0)(VIDEOS, [1] * len(VIDEOS))
    assert {label: len(groups) for label, groups in groups_of(list(split.parts)).items()} == {0: 1, 1: 1, 2: 1}
    assert len(split.views_of("test")) == PARTS.count("test")


def board_of(folder: Path, errors: dict[int | None, float], num_seeds: int = 2) -> Leaderboard:
    """Return the leaderboard of runs on 400 videos with these errors, by train_groups; None: all of 16 groups."""
    scored = []
    for amount, error in errors.items():
        for seed in range(num_seeds):
            is_correct = np.arange(400) % 40 >= 40 * error  # the same error in every group of 40
            run = write_run(
                folder / f"{amount}_{seed}", is_correct, videos_a_group=40, seed=seed, train_groups=amount,
                more_metrics={"num_train_groups": float(amount or 16)},
            )  # fmt: skip
            scored.append(read_scored(run, "test"))
    return build_leaderboard(scored)


def test_errors_that_halve_with_twice_the_groups_will_halve_again(tmp_path: Path):
    board = board_of(tmp_path, {2: 0.4, 4: 0.2, 8: 0.1})
    (curve,) = curves_of(board)
    assert curve.num_groups == [2, 4, 8]
    assert [setting.metrics["top1"] for setting in curve.settings] == [0.6, 0.8, 0.9]
    assert curve.doubling is not None
    gain, interval = curve.doubling
    assert gain == pytest.approx(0.05)  # from 0.1 to 0.05
    assert interval == pytest.approx((0.05, 0.05), abs=1e-6)  # all groups and seeds agree
    first, second = sentences_on(board)
    assert "from 0.600 with 2 train group(s) of each class to 0.900 with 8" in first
    assert "about +5.0 points" in second


def test_all_groups_are_drawn_at_the_number_that_there_is(tmp_path: Path):
    (curve,) = curves_of(board_of(tmp_path, {4: 0.4, 8: 0.2, 16: 0.1, None: 0.1}))
    assert curve.num_groups == [4, 8, 16]


def test_two_numbers_of_groups_are_no_law(tmp_path: Path):
    board = board_of(tmp_path, {2: 0.4, 4: 0.2})
    assert curves_of(board)[0].doubling is None
    assert "needs 3 or more numbers" in list(sentences_on(board))[1]


def test_a_curve_that_does_not_rise_may_be_worth_nothing(tmp_path: Path):
    assert "it may be worth nothing" in list(sentences_on(board_of(tmp_path, {2: 0.2, 4: 0.2, 8: 0.2})))[1]


def test_runs_of_one_number_of_groups_have_no_curve(tmp_path: Path):
    assert not curves_of(board_of(tmp_path, {4: 0.4}))


def test_the_page_of_a_sweep_draws_the_curve(vidclf: Callable[..., Outcome], tmp_path: Path):
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    for amount, noise in ((1, 2.0), (2, 1.0), (4, 0.5)):
        logits = np.eye(3)[labels] + noise * generator.normal(size=(300, 3))
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        metrics = {"num_train_groups": float(amount)}
        write_results(
            tmp_path / "sweep" / str(amount), labels.tolist(), probabilities, metrics=metrics, train_groups=amount
        )
    outcome = vidclf("report", "sweep")
    assert outcome.status == 0, outcome.err
    text = (tmp_path / "report.html").read_text()
    data = json.loads(re.search(r'id="data-of-page">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    (curve,) = data["sweep"]["learning"]
    assert curve["num_groups"] == [1, 2, 4]
    assert [point[0] for point in curve["points"]] == [0, 1, 2]
    assert [point[1][0] for point in curve["points"]] == sorted(one["top1"] for one in data["sweep"]["settings"])
    assert text.count("groups: 0.") == 3
    assert "With twice as many groups" in text

"""The rules of a report: each finds its planted fault, and none finds anything in a run without faults."""

from pathlib import Path

import numpy as np
import pytest
from scored_runs import write_results

from vidclf.evaluation.intervals import Clusters, korn_graubard
from vidclf.reporting import findings
from vidclf.reporting.results import Results, read_results
from vidclf.system.disk import write_csv, write_json

CLASSES = ["jump", "run", "walk"]
NUM = 180  # videos, in 60 groups of three


def labels_of(count: int = NUM) -> list[int]:
    return [number // 3 % 3 for number in range(count)]


def probable(predicted: list[int], probability: float = 0.95, num_classes: int = 3) -> np.ndarray:
    """Return probabilities with the predicted class at `probability`."""
    table = np.full((len(predicted), num_classes), (1 - probability) / (num_classes - 1))
    table[np.arange(len(predicted)), predicted] = probability
    return table


def results_of(
    folder: Path, predicted: list[int], labels: list[int] | None = None, part: str = "test", **settings: object
) -> Results:
    labels = labels or labels_of(len(predicted))
    table = settings.pop("probabilities", probable(predicted))
    return read_results(write_results(folder / "run", labels, table, part=part, **settings), part)  # type: ignore[arg-type]


def sentences(rule: findings.Rule, results: Results) -> list[str]:
    return [finding.sentence for finding in rule(results)]


def nearly_right() -> list[int]:
    """Return predictions with one mistake in every 20 videos, in as many groups."""
    return [(label + (number % 20 == 0)) % 3 for number, label in enumerate(labels_of())]


def test_a_run_without_faults_has_no_finding(tmp_path: Path):
    assert findings.find(results_of(tmp_path, nearly_right())) == []


def test_exchanged_classes_are_found(tmp_path: Path):
    exchanged = [{0: 1, 1: 0}.get(label, label) for label in labels_of()]
    assert sentences(findings.exchanged_classes, results_of(tmp_path, exchanged)) == [
        "jump and run are exchanged: 60 of 60 jump are predicted as run, and 60 of 60 run as jump. Check their labels "
        "and the class list."
    ]


def test_a_class_predicted_as_another_is_not_an_exchange(tmp_path: Path):
    results = results_of(tmp_path, [1 if label == 0 else label for label in labels_of()])
    assert sentences(findings.exchanged_classes, results) == []
    assert sentences(findings.one_sided_confusions, results) == [
        "Predicted as another class in more than half of their videos: 60 of 60 jump as run."
    ]
    assert sentences(findings.weak_classes, results) == ["Never predicted: jump (1 of 3 classes)."]


def test_a_class_below_chance_is_found(tmp_path: Path):
    predicted = [label if label or number % 12 == 0 else 1 for number, label in enumerate(labels_of())]
    (sentence,) = sentences(findings.weak_classes, results_of(tmp_path, predicted))
    assert sentence.startswith("Below chance (0.333), beyond their intervals: jump 0.")


@pytest.mark.parametrize(("alone", "is_found"), [(0.96, True), (0.5, False)])
def test_a_container_as_good_as_the_model_is_a_shortcut(alone: float, is_found: bool, tmp_path: Path):
    results = results_of(tmp_path, nearly_right(), metrics={"container_top1": alone})
    found = sentences(findings.shortcuts, results)
    assert bool(found) == is_found
    if found:
        assert found[0].startswith(
            "The file's container alone classifies 0.960 of the videos correctly, and the model 0.95"
        )


def test_one_frame_as_good_as_the_model_is_a_shortcut(tmp_path: Path):
    (found,) = sentences(findings.shortcuts, results_of(tmp_path, nearly_right(), metrics={"one_frame_top1": 1.0}))
    assert found.startswith("One frame alone classifies 1.000")


def test_validation_above_test_beyond_both_intervals_is_found(tmp_path: Path):
    poor = [(label + number % 2) % 3 for number, label in enumerate(labels_of())]
    results_of(tmp_path, labels_of(), part="val", names=[f"val/{number}" for number in range(NUM)])
    results = results_of(tmp_path, poor)
    (sentence,) = sentences(findings.validation_above_test, results)
    assert sentence.startswith("Validation is above test beyond both intervals: 1.000 [0.9")
    write_json(tmp_path / "run" / "metrics.json", {**results.val.metrics, "top1_low": 0.4})  # type: ignore[union-attr]
    assert sentences(findings.validation_above_test, read_results(tmp_path / "run", "test")) == []


def test_three_groups_with_most_mistakes_are_found(tmp_path: Path):
    labels = [number // 9 % 3 for number in range(NUM)]
    groups = [f"g{number // 9}" for number in range(NUM)]  # 20 of nine
    gathered, spread = (
        [(label + wrong) % 3 for label, wrong in zip(labels, mistakes, strict=True)]
        for mistakes in ([number < 27 for number in range(NUM)], [number % 9 == 0 for number in range(NUM)])
    )
    (sentence,) = sentences(findings.mistakes_in_few_groups, results_of(tmp_path, gathered, labels, groups=groups))
    assert sentence == ("Three of 20 groups hold 27 of 27 mistakes, and 27 of 180 videos: jump/g0, run/g1, walk/g2.")
    assert sentences(findings.mistakes_in_few_groups, results_of(tmp_path / "b", spread, labels, groups=groups)) == []


def test_confident_mistakes_beyond_the_interval_are_found(tmp_path: Path):
    half = [(label + number % 2) % 3 for number, label in enumerate(labels_of())]
    (sentence,) = sentences(findings.confident_mistakes, results_of(tmp_path, half))
    assert sentence.startswith("90 of 180 predictions with a probability of 0.9 or more are wrong: 0.500 [")
    assert sentence.endswith("and their probabilities promise 0.950.")
    modest = results_of(tmp_path / "b", half, probabilities=probable(half, 0.6))
    assert sentences(findings.confident_mistakes, modest) == []


def test_few_groups_are_found_with_the_number_that_would_halve_the_interval(tmp_path: Path):
    results = results_of(tmp_path, nearly_right()[:36])
    (sentence,) = sentences(findings.wide_interval, results)
    clusters = Clusters.of(results.scored.units)
    correct, sizes = clusters.total(results.is_correct), clusters.sizes
    low, high = korn_graubard(correct, sizes)
    number = int(sentence.split("About ")[1].split()[0])
    assert f"is {high - low:.3f} wide, because the 36 videos are of 12 groups." in sentence
    for factor, is_enough in ((number // 12, True), (number // 12 - 1, False)):
        low_more, high_more = korn_graubard(np.tile(correct, factor), np.tile(sizes, factor))
        assert (high_more - low_more <= (high - low) / 2) == is_enough


def test_a_single_group_has_no_interval_and_that_is_said(tmp_path: Path):
    results = results_of(tmp_path, [0, 0, 1], labels=[0, 0, 0], groups=["g"] * 3)
    assert sentences(findings.wide_interval, results)[0].startswith("There is no interval: all videos are of one group")


@pytest.mark.parametrize(("low", "is_found"), [(-0.02, True), (0.1, False)])
def test_order_that_adds_nothing_is_found(low: float, is_found: bool, tmp_path: Path):
    results_of(tmp_path, nearly_right())
    (tmp_path / "run" / "test-probe-shuffle").mkdir()
    gain = {
        "temporal_gain": 0.15,
        "temporal_gain_low": low,
        "temporal_gain_high": 0.3,
        "top1_in_order": 0.9,
        "top1": 0.8,
    }
    write_json(tmp_path / "run" / "test-probe-shuffle" / "metrics.json", gain)
    found = sentences(findings.order, read_results(tmp_path / "run", "test"))
    assert bool(found) == is_found
    if found:
        assert "0.900 in order and 0.800 with probe=shuffle, a gain of 0.150 [-0.020, 0.300]" in found[0]


def test_damaged_and_missing_videos_are_found(tmp_path: Path):
    results = results_of(tmp_path, nearly_right(), metrics={"num_failed": 2, "num_skipped": 1})
    assert sentences(findings.missing_videos, results) == [
        "2 videos: damaged and not scored.",
        "1 video: in the official list, not on disk.",
    ]


def test_leaks_are_found(tmp_path: Path):
    results_of(tmp_path, labels_of(), part="val", names=[f"val/{number}" for number in range(NUM)])
    results_of(tmp_path, nearly_right(), metrics={"num_leaks": 3})
    rows = [("a", "train", "x", "", ""), ("b", "test", "x", "", ""), ("c", "train+val", "y", "", "")]
    rows += [("d#0-1", "train", "z", "0", "1"), ("d#1-2", "test", "z", "1", "2")]  # other seconds of one file
    write_csv(tmp_path / "run" / "split.csv", ("video", "side", "content", "start_s", "end_s"), rows)
    found = sentences(findings.leaks, read_results(tmp_path / "run", "test"))
    assert [sentence.split(":")[0] for sentence in found] == [
        "Views of 1 video are in train and in val at once",
        "1 file in two parts of the split at once, under other names.",
        "60 groups with videos in val and in test",
        "vidclf check found 3 leaks between the parts of this split.",
    ]

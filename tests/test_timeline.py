"""Timelines: from windows to instants, bouts, and their scores, against values worked out by hand."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, cohen_kappa_score, f1_score

from vidclf.contracts import Video
from vidclf.data.timelines import Stretch
from vidclf.evaluation import timeline
from vidclf.evaluation.agreement import cohen_kappa
from vidclf.evaluation.ethogram import _write_timelines
from vidclf.evaluation.segments import (
    Bout,
    Counts,
    bouts_of,
    count,
    edit_score,
    match_segments,
    rows_of_classes,
    scores_of,
)


def labels(text: str) -> np.ndarray:
    """`labels("0012")` is the timeline of these classes."""
    return np.asarray([int(letter) for letter in text], dtype=int)


def text_of(timeline: np.ndarray) -> str:
    return "".join(map(str, timeline.tolist()))


def test_an_instant_has_the_mean_of_the_windows_that_cover_it():
    probabilities = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    starts, ends = np.asarray([0.0, 1.0, 4.0]), np.asarray([2.0, 3.0, 5.0])
    averaged = timeline.average_windows(probabilities, starts, ends, np.asarray([0.5, 1.5, 1.75, 2.5, 3.25, 3.75, 4.5]))
    # 1.75 is in the middle of neither: the weights are 0.25 and 0.75. 3.25 and 3.75 are in no window.
    expected = [[1, 0], [0.5, 0.5], [0.25, 0.75], [0, 1], [0, 1], [0.5, 0.5], [0.5, 0.5]]
    assert averaged == pytest.approx(np.asarray(expected), abs=1e-5)


@pytest.mark.parametrize("stride_s", [0.5, 1.0, 2.0])
def test_perfect_windows_give_boundaries_within_half_a_stride(stride_s: float):
    """The truth changes at 30.3 s and at 47.9 s; windows of 2 s have the label that covers most of them."""
    starts = np.arange(0, 58 + 1e-9, stride_s)
    middles = starts + 1
    truth = np.where((middles > 30.3) & (middles < 47.9), 1, 0)
    times = (np.arange(600) + 0.5) * 0.1
    averaged = timeline.average_windows(np.eye(2)[truth], starts, starts + 2, times)
    found = bouts_of(averaged.argmax(1))
    assert [bout.label for bout in found] == [0, 1, 0]
    assert found[1].first * 0.1 == pytest.approx(30.3, abs=stride_s / 2 + 0.1)
    assert found[1].stop * 0.1 == pytest.approx(47.9, abs=stride_s / 2 + 0.1)


def test_smoothing_is_the_mean_of_steps_around():
    one_hot = np.eye(2)[labels("0010000")]
    assert timeline.smooth(one_hot, 3)[:, 1] == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0, 0, 0])
    assert timeline.smooth(one_hot, 1) is one_hot


@pytest.mark.parametrize(
    ("before", "min_steps", "after"),
    [
        ("0001000", 2, "0000000"),
        ("0001222", 2, "0000222"),  # one step is as near to both sides: the one before
        ("0001122", 3, "0000000"),
        ("0001111222", 4, "1111111111"),
        ("012", 2, "012"),  # no bout is long enough
        ("0001000", 1, "0001000"),
        ("0001000", 0, "0001000"),
    ],
)
def test_instants_of_short_bouts_get_the_nearest_label(before: str, min_steps: int, after: str):
    assert text_of(timeline.drop_short(labels(before), min_steps)) == after


def test_bouts_are_runs_of_equal_labels():
    assert bouts_of(labels("00122")) == [Bout(0, 2, 0), Bout(2, 3, 1), Bout(3, 5, 2)]
    assert bouts_of(labels("")) == []


@pytest.mark.parametrize(
    ("truth", "predicted", "score"),
    [("abc", "abc", 1), ("abc", "ac", 2 / 3), ("ab", "abab", 0.5), ("abc", "xyz", 0), ("", "", 1), ("", "ab", 0)],
)
def test_the_edit_score_counts_changes_of_the_order_of_segments(truth: str, predicted: str, score: float):
    assert edit_score(truth, predicted) == pytest.approx(score)


def test_a_segment_is_hit_once_and_by_its_own_label():
    """True 0 to 10; predicted 0 to 4 (share 0.4), 4 to 10 (0.6), and of another class."""
    truth = [Bout(0, 10, 1), Bout(20, 30, 1)]
    predicted = [Bout(0, 4, 1), Bout(4, 10, 1), Bout(20, 30, 2)]
    assert match_segments(truth, predicted, 0.5) == (1, 2, 1)
    assert match_segments(truth, predicted, 0.25) == (1, 2, 1)  # the second one hits what is hit already
    assert match_segments(truth, predicted, 0.61) == (0, 3, 2)
    assert match_segments([], [], 0.5) == (0, 0, 0)


def test_scores_of_two_files_by_hand():
    """First file: 8 of 10 steps; second: 4 of 5. Segments without background 0: 3 true, 3 predicted, all overlap."""
    first = count(labels("0011112222"), labels("0001112222")[::1], 3, background=0)
    second = count(labels("11100"), labels("11110"), 3, background=0)
    scores = scores_of(Counts.stack([first, second]).total())
    assert scores["frame_accuracy"] == pytest.approx(13 / 15)
    assert scores["segment_f1_50"] == 1
    assert scores["edit"] == 1
    truth, predicted = labels("001111222211100"), labels("000111222211110")
    assert scores["frame_macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_segments_of_the_background_count_for_no_score_of_segments():
    truth, predicted = labels("0011002200"), labels("0000002200")
    assert count(truth, predicted, 3, background=0).segments[0].tolist() == [1, 0, 1]
    assert count(truth, predicted, 3).segments[0].tolist() == [3, 0, 2]
    assert count(truth, predicted, 3, background=0).edit.tolist() == [0.5, 1]
    assert count(truth, predicted, 3).bouts.tolist() == [[3, 1, 1], [2, 0, 1]]


def test_a_split_bout_costs_segments_and_order_but_few_frames():
    scores = scores_of(count(labels("1" * 20 + "0" * 10), labels("1" * 9 + "0" + "1" * 10 + "0" * 10), 2, background=0))
    assert scores["frame_accuracy"] == pytest.approx(29 / 30)
    assert scores["segment_f1_50"] == pytest.approx(2 / 3)  # a hit (share 10/20) and a false alarm
    assert scores["segment_f1_10"] == pytest.approx(2 / 3)
    assert scores["edit"] == 0.5


def test_a_row_of_a_class_has_its_time_budget_and_bouts():
    rows = rows_of_classes(count(labels("0011100110"), labels("0001100000"), 2), ["other", "walk"], 0.5)
    walk = rows[1]
    assert (walk["precision"], walk["recall"], walk["f1"]) == (1, 0.4, pytest.approx(4 / 7))
    assert (walk["true_s"], walk["predicted_s"]) == (2.5, 1.0)
    assert (walk["true_bouts"], walk["predicted_bouts"]) == (2, 1)
    assert (walk["true_bout_s"], walk["predicted_bout_s"]) == (1.25, 1.0)


def test_intervals_draw_whole_groups():
    counts = Counts.stack(
        [count(labels("01" * 10), labels(("01" if right else "10") * 10), 2) for right in (1, 1, 0, 0)]
    )

    def score(weights: list[float]) -> dict[str, float]:
        return scores_of(counts.total(weights))

    assert timeline.intervals_over_groups("aabb", score)["frame_accuracy"] == (0, 1)  # both groups may be the same
    assert timeline.intervals_over_groups("aaaa", score) == {}
    low, high = timeline.intervals_over_groups("abab", score)["frame_accuracy"]
    assert (low, high) == (0.5, 0.5)


def test_smoothing_and_the_shortest_bout_are_chosen_by_segment_f1():
    """Single steps flicker, which costs segments."""
    truth = labels("0" * 50 + "1" * 50 + "0" * 50)
    noisy = truth.copy()
    noisy[[10, 30, 70, 90, 120]] ^= 1
    probabilities = 0.2 + 0.6 * np.eye(2)[noisy]
    times_s = (np.arange(150) + 0.5) * 0.1
    of_file = timeline.FileTimeline(Path("a.mp4"), "a.mp4", "a", times_s, truth, probabilities)
    smooth_s, min_bout_s = timeline.choose_cleaning([of_file], 0.1)
    assert (smooth_s, min_bout_s) == (0.0, 0.5)
    assert text_of(timeline.clean(probabilities, smooth_s, min_bout_s, 0.1)) == text_of(truth)
    perfect = replace(of_file, probabilities=np.eye(2)[truth])
    assert timeline.choose_cleaning([perfect], 0.1) == (0.0, 0.0)


def window(path: str, start_s: float, group: str) -> Video:
    return Video(Path(path), 0, group, start_s=start_s, end_s=start_s + 2, shared=True)


def test_timelines_of_files_are_made_of_their_windows():
    windows = [window("a.mp4", 0.0, "g1"), window("b.mp4", 0.0, "g2"), window("a.mp4", 2.0, "g1")]
    truths = {"a.mp4": [Stretch(0, 2, "walk")], "b.mp4": [Stretch(0, 1, "walk"), Stretch(1, 2, "sit")]}
    probabilities = np.asarray([[0.1, 0.9], [0.8, 0.2], [1.0, 0.0]])
    made = timeline.timelines_of(probabilities, windows, truths, ["other", "walk"], "other", 0.5)
    assert [one.truth.tolist() for one in made] == [[1, 1, 1, 1, 0, 0, 0, 0], [1, 1, -1, -1]]
    assert [one.path.name for one in made] == ["a.mp4", "b.mp4"]
    found = [timeline.clean(one.probabilities, 0, 0, 0.5) for one in made]
    assert list(map(text_of, found)) == ["11110000", "0000"]
    scores = timeline.score_timelines(made, found, background=0)
    assert scores["frame_accuracy"] == pytest.approx(8 / 10)  # two instants are of a label that is no class
    assert (scores["frame_accuracy_low"], scores["frame_accuracy_high"]) == (0, 1)


def test_files_of_one_name_in_two_folders_are_told_apart_in_the_tables(tmp_path: Path):
    windows = [window("cam1/day.mp4", 0.0, "g1"), window("cam2/day.mp4", 0.0, "g2")]
    truths = {str(one.path): [Stretch(0, 2, "walk")] for one in windows}
    films = timeline.timelines_of(np.eye(2), windows, truths, ["other", "walk"], "other", 1.0)
    _write_timelines(tmp_path, films, [one.truth for one in films], ["other", "walk"], 1.0)
    for table in ("timeline.csv", "bouts.csv"):
        rows = (tmp_path / table).read_text().splitlines()[1:]
        assert {row.partition(",")[0] for row in rows} == {"cam1/day.mp4", "cam2/day.mp4"}


def test_kappa_is_that_of_scikit_learn_of_all_steps():
    first, second = [list("aabbbccc"), list("abab")], [list("aabbcccc"), list("abbb")]
    kappas = cohen_kappa(first, second, ["g1", "g2"], draws=50)
    ones, others = [*chain(*first)], [*chain(*second)]
    assert kappas["all"][0] == pytest.approx(cohen_kappa_score(ones, others))
    is_a = cohen_kappa_score([label == "a" for label in ones], [label == "a" for label in others])
    assert kappas["a"][0] == pytest.approx(is_a)
    low, high = kappas["all"][1]
    assert low <= kappas["all"][0] <= high
    assert cohen_kappa(first[:1], second[:1], ["g1"])["all"][1] is None


def test_coders_who_give_one_label_throughout_have_no_kappa():
    assert np.isnan(cohen_kappa([["a", "a"]], [["a", "a"]], ["g"])["all"][0])


def film_of(truth: np.ndarray, probabilities: np.ndarray, group: str = "g") -> timeline.FileTimeline:
    times_s = (np.arange(len(truth)) + 0.5) * 0.5
    return timeline.FileTimeline(Path("a.mp4"), "a.mp4", group, times_s, truth, probabilities)


def test_average_precision_is_over_the_instants_that_have_a_label():
    probabilities = np.asarray([[0.9, 0.1, 0], [0.4, 0.6, 0], [0.2, 0.8, 0], [0.3, 0.7, 0]])
    films = [film_of(np.asarray([0, 0, 1, -1]), probabilities)] * 2
    # Of class 1: the highest probability is right. Of class 0, both are before the wrong one. Class 2 is not there.
    ranked = [timeline.RankedInstants(films, label) for label in range(3)]
    assert [one.value for one in ranked[:2]] == [1, 1]
    assert [one.average_precision([1.0, 1.0]) for one in ranked[:2]] == [1, 1]
    assert np.isnan(ranked[2].value)
    assert np.isnan(ranked[2].average_precision([1.0, 0.0]))


@pytest.mark.parametrize("max_ranks", [2000, 50])
def test_average_precision_of_a_mixture_of_films_is_that_of_scikit_learn(max_ranks, monkeypatch):
    monkeypatch.setattr(timeline, "MAX_RANKS", max_ranks)
    random = np.random.default_rng(0)
    films = []
    for _ in range(3):
        truth = random.integers(0, 2, 200)
        of_class = (0.3 * truth + random.random(200)).round(2 if max_ranks == 2000 else 6)  # ties, or more than ranks
        films.append(film_of(truth, np.stack([1 - of_class, of_class], axis=1)))
    weights = [2.0, 0.0, 1.0]
    chosen = [film for film, weight in zip(films, weights, strict=True) for _ in range(int(weight))]
    expected = average_precision_score(
        np.concatenate([film.truth for film in chosen]) == 1,
        np.concatenate([film.probabilities[:, 1] for film in chosen]),
    )
    found = timeline.RankedInstants(films, 1).average_precision(weights)
    assert found == pytest.approx(expected, abs=1e-9 if max_ranks == 2000 else 0.01)

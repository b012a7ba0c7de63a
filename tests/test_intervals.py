"""Intervals over groups of videos: by hand, by other libraries, and their coverage in simulations."""

import numpy as np
import pytest
from scipy.stats import binomtest

from experiments.intervals.coverage import coverage
from vidclf.evaluation.intervals import (
    Clusters,
    bootstrap_mean,
    interval_of_accuracy,
    korn_graubard,
)


def clusters_of(groups: list[int]) -> Clusters:
    return Clusters.of(groups, list(range(len(groups))))  # labels that lie inside no group


def test_intervals_contain_the_truth_in_95_percent_of_draws_and_naive_ones_do_not():
    for accuracy, num_clusters in ((0.93, 20), (0.8, 57)):
        shares = coverage(accuracy, 0.6, num_clusters, num_draws=1000, seed=1)
        assert 0.9 < shares["korn_graubard"] < 0.98
        assert shares["naive"] < 0.75


def test_groups_of_one_video_are_clopper_and_pearsons_independent_ones():
    is_correct = np.repeat([1.0, 0.0], [300, 100])
    low, high = interval_of_accuracy(is_correct, clusters_of(list(range(400))))
    exact = binomtest(300, 400).proportion_ci()
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-3)  # but for 399 degrees of freedom


def test_groups_that_are_correct_or_incorrect_as_a_whole_count_once():
    is_correct = np.repeat([1.0, 1.0, 0.0, 1.0] * 10, 10)
    low, high = interval_of_accuracy(is_correct, clusters_of([video // 10 for video in range(400)]))
    exact = binomtest(30, 40).proportion_ci()
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.01)


def test_if_all_are_correct_the_interval_is_that_of_one_video_per_group():
    low, high = interval_of_accuracy(np.ones(60), clusters_of([video // 3 for video in range(60)]))
    assert (low, high) == pytest.approx((0.025 ** (1 / 20), 1.0))
    low, high = interval_of_accuracy(np.zeros(60), clusters_of([video // 3 for video in range(60)]))
    assert (low, high) == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))


def test_one_group_has_no_interval_and_few_are_rough():
    single = Clusters.of(["g1"] * 5, [0, 0, 0, 1, 1])
    assert interval_of_accuracy(np.ones(5), single) is None
    assert bootstrap_mean(np.ones(5), single) is None
    assert "all videos are of one group" in single.why_no_interval
    assert clusters_of([0, 0, 1]).are_few
    assert not clusters_of(list(range(10))).are_few


def test_several_draws_at_once_give_the_same_as_each_alone():
    num_correct, sizes = np.array([[3.0, 1, 4], [2, 2, 5]]), np.array([[4.0, 2, 4], [4, 2, 5]])
    low, high = korn_graubard(num_correct, sizes)
    for draw in range(2):
        assert korn_graubard(num_correct[draw], sizes[draw]) == pytest.approx((low[draw], high[draw]))


def test_classes_count_equally_in_mean_class_accuracy_whatever_their_size():
    """100 groups of each of two classes; those of the second are twice as large, of equal videos."""
    group_accuracy = np.concatenate([np.arange(100) < 90, np.arange(100) < 50]).astype(float)

    def videos_of(*sizes: int) -> tuple[np.ndarray, Clusters, np.ndarray]:
        counts = np.repeat(sizes, 100)
        return (
            group_accuracy.repeat(counts),
            clusters_of(np.arange(200).repeat(counts).tolist()),
            np.repeat([0, 1], 100 * np.array(sizes)),
        )

    equal, unequal = interval_of_accuracy(*videos_of(4, 4)), interval_of_accuracy(*videos_of(4, 8))
    assert equal == pytest.approx(unequal)
    assert equal == pytest.approx(interval_of_accuracy(*videos_of(4, 4)[:2]))
    assert equal.low < 0.7 < equal.high
    assert interval_of_accuracy(*videos_of(4, 8)[:2]).high < equal.high


def test_with_one_value_per_group_the_interval_is_that_of_the_plain_bootstrap():
    low, high = bootstrap_mean(np.repeat([0.0, 1.0], 50), clusters_of(list(range(100))))
    assert (low, high) == pytest.approx((0.5 - 1.96 * 0.05, 0.5 + 1.96 * 0.05), abs=0.015)


def test_clips_of_a_group_count_as_one():
    low, high = bootstrap_mean(np.repeat([0.0, 1.0], 50), clusters_of([video // 10 for video in range(100)]))
    assert high - low > 0.5  # ten independent groups: three times as wide


def test_groups_inside_classes_are_resampled_within_them():
    labels = [video // 50 for video in range(100)]
    values = np.asarray(labels, dtype=float)  # classes differ, groups of a class do not
    inside = Clusters.of([(label, video) for video, label in enumerate(labels)], labels)
    assert bootstrap_mean(values, inside) == pytest.approx((0.5, 0.5))
    shared = Clusters.of([video % 50 for video in range(100)], labels)  # a person in both classes
    assert len({*shared.strata.tolist()}) == 1


def test_two_groups_of_a_class_have_their_full_variance():
    """Drawn two of two, they would vary half as much in square."""
    labels = [video // 2 for video in range(200)]
    inside = Clusters.of(list(range(200)), labels)
    low, high = bootstrap_mean(np.tile([0.0, 1.0], 100), inside)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.5 / 200), rel=0.1)


def test_classes_of_one_group_are_drawn_together():
    alone = Clusters.of(list(range(40)), list(range(40)))
    low, high = bootstrap_mean(np.tile([0.0, 1.0], 20), alone)
    assert high - low > 0.2

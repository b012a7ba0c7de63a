"""Intervals over groups of videos: by hand, by other libraries, and their coverage in simulations."""

import numpy as np
import pytest
from scipy.special import betainc
from scipy.stats import binomtest

from experiments.intervals.coverage import draw_accuracy, draw_gains, naive, ours, sizes_of
from vidclf.evaluation.intervals import (
    Clusters,
    effective_number,
    interval_of_accuracy,
    interval_of_positive_mean,
    korn_graubard,
)


def clusters_of(groups: list[int]) -> Clusters:
    return Clusters.of(groups)


def test_intervals_hold_the_truth_in_95_percent_of_studies_whatever_the_sizes_of_groups():
    for accuracy, num_groups, kind in ((0.93, 21, "equal"), (0.95, 21, "1..80"), (0.8, 57, "one giant")):
        chance = np.random.default_rng(1)
        sizes = sizes_of(kind, num_groups, 800, chance)
        correct = draw_accuracy(accuracy, 0.8, sizes, chance)
        low, high = korn_graubard(correct, sizes.astype(float))
        assert np.mean((low <= accuracy) & (accuracy <= high)) > 0.93, kind
        low, high = naive(correct, sizes)
        assert np.mean((low <= accuracy) & (accuracy <= high)) < 0.8


def test_intervals_of_differences_hold_the_truth():
    """0.97 against 0.93 on 12 groups, where percentiles of resampled groups hold it in 0.8 of studies."""
    chance = np.random.default_rng(2)
    sizes = sizes_of("UCF101", 12, 100, chance)
    first, second = draw_gains((0.97, 0.93), 0.4, 0.3, sizes, chance)
    low, high = ours(first - second, sizes)
    assert np.mean((low <= 0.04) & (high >= 0.04)) > 0.93
    assert (high > low).all()


def test_korn_and_graubard_worked_out_by_hand():
    """14 of 20 videos in five groups of four: 4, 4, 2, 3 and 1.

    Residuals 1.2, 1.2, -0.8, 0.2, -1.8 have squares that sum to 6.8; the variance is 5/4 * 6.8 / 20^2 = 0.02125, and
    0.7 * 0.3 / 0.02125 = 9.8824 independent videos have the same. Their number times (1.95996 / 2.77645)^2, Student's
    t with four degrees of freedom, is 4.92469.
    """
    low, high = korn_graubard(np.array([4.0, 4, 2, 3, 1]), np.full(5, 4.0))
    assert (low, high) == pytest.approx((0.2, 0.98), abs=0.05)
    assert binom_tail(low, 0.7, 4.92469) == pytest.approx(0.025, abs=1e-5)
    assert binom_tail(1 - high, 0.3, 4.92469) == pytest.approx(0.025, abs=1e-5)


def binom_tail(chance: float, share: float, size: float) -> float:
    """Return the probability of `share * size` or more of `size`, for any real numbers."""
    return betainc(share * size, (1 - share) * size + 1, chance)


def test_groups_that_are_more_alike_than_chance_are_not_worth_more_videos_than_there_are():
    low, high = korn_graubard(np.full(10, 3.0), np.full(10, 4.0))  # 30 of 40, without any variance between groups
    size = 40 * (1.959964 / 2.262157) ** 2
    assert binom_tail(low, 0.75, size) == pytest.approx(0.025, abs=1e-5)
    assert binom_tail(1 - high, 0.25, size) == pytest.approx(0.025, abs=1e-5)


def test_groups_of_unequal_size_count_by_kishs_effective_number():
    sizes = np.array([30, *[5] * 6])
    assert effective_number(sizes) == pytest.approx(3600 / (900 + 150))
    clusters = clusters_of(np.arange(7).repeat(sizes).tolist())
    low, high = interval_of_accuracy(np.ones(60), clusters)
    assert (low, high) == pytest.approx((0.025 ** (1 / effective_number(sizes)), 1))
    assert "7 groups of unequal size, worth 3.4 equal" in clusters.warning
    assert clusters_of(np.arange(21).repeat([100, *[5] * 20]).tolist()).are_few


def test_more_errors_never_make_the_lower_end_larger():
    sizes = np.full(56, 7.0)
    ends = [korn_graubard(sizes - np.r_[num_wrong, np.zeros(55)], sizes) for num_wrong in range(4)]
    lows = [float(low) for low, _ in ends]
    assert lows[0] == pytest.approx(0.025 ** (1 / 56))  # 392 of 392
    assert lows == sorted(lows, reverse=True)
    highs = [float(korn_graubard(np.r_[correct, np.zeros(55)], sizes)[1]) for correct in range(4)]
    assert highs == sorted(highs)


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
    single = Clusters.of(["g1"] * 5)
    assert interval_of_accuracy(np.ones(5), single) is None
    assert interval_of_positive_mean(np.ones(5), single) is None
    assert "all videos are of one group" in single.warning
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


def test_the_interval_of_a_mean_loss_is_students_over_groups():
    losses = np.repeat([0.5, 1.0, 1.5, 1.0], 5)
    low, high = interval_of_positive_mean(losses, clusters_of([video // 5 for video in range(20)]))
    error = np.std([0.5, 1.0, 1.5, 1.0], ddof=1) / 2  # of the mean of four groups, which is 1
    assert np.log([low, high]) == pytest.approx([-3.182446 * error, 3.182446 * error])
    assert interval_of_positive_mean(np.zeros(4), clusters_of([0, 0, 1, 1])) is None

"""The difference of two classifiers on the same videos: an exact test over groups, and the interval that fits it."""

import tracemalloc
from itertools import product

import numpy as np
import pytest
from scipy.stats import wilcoxon

from vidclf.evaluation import paired
from vidclf.evaluation.intervals import korn_graubard
from vidclf.evaluation.paired import interval_of_difference, sign_flip_test


def test_p_is_the_share_of_all_sign_flips_with_a_difference_at_least_as_large():
    generator = np.random.default_rng(0)
    for num_groups in (1, 2, 5, 9):
        gains = generator.integers(-4, 5, num_groups).astype(float)
        flips = [abs(np.dot(signs, np.abs(gains))) >= abs(gains.sum()) for signs in product((-1, 1), repeat=num_groups)]
        assert sign_flip_test(gains, 1) == pytest.approx(np.mean(flips))


def test_p_is_exact_for_any_number_of_groups():
    """For groups that differ by ranks, the test is Wilcoxon's; scipy enumerates it."""
    signs = np.where(np.random.default_rng(3).random(40) < 0.7, 1, -1)
    gains = np.arange(1, 41) * signs / 7
    assert sign_flip_test(gains, 1 / 7) == pytest.approx(wilcoxon(gains, method="exact").pvalue)


def test_no_difference_at_all_has_a_p_of_1_and_an_interval_of_what_may_have_been_missed():
    gains, sizes = np.zeros(20), np.full(20, 7.0)
    assert sign_flip_test(gains, 1) == 1
    end = 1 - 0.025 ** (1 / 20)  # the largest share of 20 groups of which none is seen in 2.5 % of studies
    assert interval_of_difference(gains, sizes, 1) == pytest.approx((-end, end))


def test_if_every_difference_is_for_the_first_the_upper_end_is_that_of_their_share():
    gains, sizes = np.repeat([3.0, 1.0, 0.0], 20), np.repeat([4.0, 9.0, 7.0], 20)
    low, high = interval_of_difference(gains, sizes, 1)
    share_low, share_high = korn_graubard(gains, sizes)
    assert high == pytest.approx(share_high)
    assert 0.7 * share_low < low < share_low


def test_the_interval_turns_round_with_the_difference_and_ignores_the_unit():
    gains, sizes = np.array([3.0, -1, 0, 2, 4, 0, 1, -1]), np.array([5.0, 4, 9, 6, 7, 3, 5, 8])
    low, high = interval_of_difference(gains, sizes, 1)
    assert low < gains.sum() / sizes.sum() < high
    assert interval_of_difference(-gains, sizes, 1) == pytest.approx((-high, -low))
    assert interval_of_difference(gains, sizes, 1 / 9) == pytest.approx((low, high))


def test_the_interval_excludes_0_exactly_where_p_is_below_its_level():
    generator = np.random.default_rng(1)
    outcomes = set()
    for _ in range(60):
        num_groups = int(generator.integers(5, 30))
        sizes = generator.integers(1, 20, num_groups).astype(float)
        gains = np.rint(sizes * np.clip(generator.normal(0.15, 0.3, num_groups), -1, 1))
        level = float(generator.choice([0.95, 0.999]))
        low, high = interval_of_difference(gains, sizes, 1, level)
        is_significant = sign_flip_test(gains, 1) <= 1 - level
        assert is_significant == (low > 0 or high < 0)
        outcomes.add((is_significant, level))
    assert len(outcomes) == 4


def test_a_single_group_has_no_interval():
    assert interval_of_difference(np.array([3.0]), np.array([5.0]), 1) is None
    assert sign_flip_test(np.array([3.0]), 1) == 1


def test_many_groups_are_approximated_as_closely_as_the_rule_says(monkeypatch: pytest.MonkeyPatch):
    generator = np.random.default_rng(4)
    sizes = generator.integers(1, 40, 4000).astype(float)
    gains = np.rint(sizes * generator.choice([-1, 0, 0, 0, 1], 4000, p=[0.08, 0.3, 0.3, 0.22, 0.1]))
    exact = sign_flip_test(gains, 1), interval_of_difference(gains, sizes, 1)
    monkeypatch.setattr(paired, "MOST_WORK", 0)
    p, interval = sign_flip_test(gains, 1), interval_of_difference(gains, sizes, 1)
    assert p != exact[0]
    assert p == pytest.approx(exact[0], rel=0.01)
    assert interval == pytest.approx(exact[1], abs=1e-4)


def test_a_hundred_thousand_videos_of_ten_seeds_take_little_memory():
    gains = np.random.default_rng(0).integers(-4, 5, 100_000) / 10
    tracemalloc.start()
    try:
        assert 0 < sign_flip_test(gains, 1 / 10) < 1
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()

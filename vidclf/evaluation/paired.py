"""By how much one classifier is better than another on the same videos: an exact test, and the interval that fits it.

Groups decide, not videos: a group's `gain` is what it contributes to the difference. If neither classifier is better,
each group's gain is as likely to have the other sign.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq
from scipy.special import ndtr

from vidclf.evaluation.intervals import LEVEL, Interval, korn_graubard

MOST_WORK = 10**8  # groups that differ, FEW_GROUPS at least, times units, that are enumerated: at most 110 MB
FEW_GROUPS = 20


def sign_flip_test(gains: Float[np.ndarray, " C"], unit: float | int) -> float:
    """Return p: how often a difference at least as large occurs when the signs of gains are drawn at random.

    It is exact, over all 2^C signs, up to MOST_WORK. Gains are rounded to multiples of `unit`. For matched pairs in
    clusters see Obuchowski, Statistics in Medicine 1998; McNemar's test assumes independent videos.
    """
    steps, forward = _steps_of(gains, unit)
    return min(1.0, 2 * _tail(steps, max(forward, int(steps.sum()) - forward), 0.5))


def interval_of_difference(
    gains: Float[np.ndarray, " C"], sizes: Float[np.ndarray, " C"], unit: float | int, level: float = LEVEL
) -> Interval | None:
    """Return the interval of the sum of gains over that of `sizes` (in videos); None for a single group.

    It excludes 0 exactly where `sign_flip_test` gives a p below 1 - level. The difference is a product: the share of
    videos that tell the classifiers apart, times the balance between those for the first and those for the second,
    from -1 to 1. The share's interval is Korn and Graubard's. The balance's inverts the test: which chances of a
    positive sign would give a sum like the observed one. Their distances from the estimates are joined as square roots
    of sums of squares (MOVER: Donner and Zou, Statistical Methods in Medical Research 2012), so that the product's end
    is at 0 where the balance's is.
    """
    if len(gains) < 2:
        return None
    tail = (1 - level) / 2
    value, apart = float(gains.sum() / sizes.sum()), np.abs(gains)
    share = float(apart.sum() / sizes.sum())
    share_low, share_high = (float(end) for end in korn_graubard(apart, sizes, level))
    steps, forward = _steps_of(gains, unit)
    backward = int(steps.sum()) - forward
    low = 2 * _lowest_chance(steps, forward, tail) - 1
    high = 1 - 2 * _lowest_chance(steps, backward, tail)
    balance = value / share if share > 0 else 0.0
    if value >= 0:
        return Interval(*_product(balance, low, high, share, share_low, share_high))
    lower, upper = _product(-balance, -high, -low, share, share_low, share_high)
    return Interval(-upper, -lower)


def _product(
    balance: float, low: float, high: float, share: float, share_low: float, share_high: float
) -> tuple[float, float]:
    """Return the ends of the interval of `balance * share`, from those of each; `balance` is not negative."""
    upper = balance * share + np.linalg.norm(
        [share * (high - balance), balance * (share_high - share), (high - balance) * (share_high - share)]
    )
    if low <= 0:
        return low * float(np.hypot(share, share_high - share)), float(upper)
    away = (1 - (1 - low / balance) ** 2) * (1 - (1 - share_low / share) ** 2)  # 0 if either low end is 0
    return balance * share * (1 - float(np.sqrt(1 - away))), float(upper)


def _steps_of(gains: Float[np.ndarray, " C"], unit: float | int) -> tuple[Int[np.ndarray, " D"], int]:
    """Return the sizes of the gains that are not 0, in units, and the sum of the positive ones."""
    steps = np.rint(gains / unit).astype(int)
    return np.abs(steps[steps != 0]), int(steps[steps > 0].sum())


def _tail(steps: Int[np.ndarray, " D"], at_least: int, chance: float) -> float:
    """Return how likely the steps that are positive, each with `chance`, add up to `at_least` or more.

    Beyond MOST_WORK, it is the normal approximation with a continuity correction: for 1,000 groups it makes p wrong by
    0.6 % of itself at p = 0.006, for 3,000 by 1.1 % at 0.00005.
    """
    total = int(steps.sum())
    if total * max(len(steps), FEW_GROUPS) > MOST_WORK:
        edge, spread = at_least - np.gcd.reduce(steps) / 2, np.sqrt(chance * (1 - chance) * np.square(steps).sum())
        return float(ndtr((chance * total - edge) / max(spread, 1e-9)))
    distribution = np.zeros(total + 1)  # of the sum so far
    distribution[0] = 1
    for step in steps:
        positive = chance * distribution[:-step]
        distribution *= 1 - chance
        distribution[step:] += positive
    return float(distribution[at_least:].sum())


def _lowest_chance(steps: Int[np.ndarray, " D"], at_least: int, tail: float) -> float:
    """Return the chance with which the positive steps add up to `at_least` or more in a share `tail` of cases."""
    if at_least == 0:
        return 0.0
    return float(brentq(lambda chance: _tail(steps, at_least, chance) - tail, 0, 1, xtol=1e-9))

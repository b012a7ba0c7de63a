"""Learning curves: how accuracy grows with the groups that a setting is trained on, and what more would be worth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vidclf.comparison.leaderboard import Leaderboard, Setting, text_of
from vidclf.evaluation.intervals import LEVEL, Interval

AMOUNT, NUM_GROUPS = "train_groups", "num_train_groups"  # the setting, and the groups of each class that there were
MIN_POINTS = 3  # of which a line is drawn and continued
NUM_DRAWS = 1000


@dataclass(frozen=True)
class Curve:
    """Settings that differ only in the number of groups that they are trained on.

    Attributes:
        name: what else was chosen; "" if nothing else varied.
        num_groups: of each class, the mean over the classes, growing.
        settings: one for each.
        doubling: by how much top1 would grow with twice as many groups; None: of fewer than MIN_POINTS settings, or
            scored on one group.
    """

    name: str
    num_groups: Sequence[float]
    settings: Sequence[Setting]
    doubling: tuple[float, Interval] | None


def curves_of(board: Leaderboard) -> list[Curve]:
    """Return the learning curves among the settings of a leaderboard."""
    by_others: dict[tuple[object, ...], list[Setting]] = {}
    for setting in board.settings:
        if AMOUNT in setting.choices and NUM_GROUPS in setting.metrics:
            others = {key: value for key, value in setting.choices.items() if key != AMOUNT}
            by_others.setdefault((id(setting.videos), *others.items()), []).append(setting)
    curves = []
    for settings in by_others.values():
        distinct = {setting.metrics[NUM_GROUPS]: setting for setting in settings}  # all groups may be there twice
        num_groups = sorted(distinct)
        if len(num_groups) > 1:
            in_order = [distinct[number] for number in num_groups]
            others = {key: value for key, value in in_order[0].choices.items() if key != AMOUNT}
            curves.append(Curve(text_of(others, board.keys), num_groups, in_order, _doubling(num_groups, in_order)))
    return curves


def sentences_on(board: Leaderboard) -> Iterator[str]:
    """Yield for each curve how top1 grew, and what twice as many groups would be worth."""
    for curve in curves_of(board):
        first, last = (setting.metrics["top1"] for setting in (curve.settings[0], curve.settings[-1]))
        few, many = (f"{number:.3g}" for number in (curve.num_groups[0], curve.num_groups[-1]))
        of = f" of {curve.name}" if curve.name else ""
        yield f"Top1{of} goes from {first:.3f} with {few} train group(s) of each class to {last:.3f} with {many}."
        if curve.doubling is None:
            yield f"What twice as many groups would be worth needs {MIN_POINTS} or more numbers, and test groups."
            continue
        gain, (low, high) = curve.doubling
        surely = "" if low > 0 else ": it may be worth nothing"
        yield (
            f"With twice as many groups, top1 would change by about {100 * gain:+.1f} points [{100 * low:+.1f}, "
            f"{100 * high:+.1f}]{surely}. That continues a power law of the errors; the interval is over test groups, "
            "draws of train groups, and whether all numbers are fitted or the last two."
        )


def _doubling(num_groups: Sequence[float], settings: Sequence[Setting]) -> tuple[float, Interval] | None:
    """Return what twice as many groups would add to top1, by a power law of the error (Hestness, arXiv:1712.00409).

    Where the errors follow no power law, the last two numbers give another answer than all, and the interval is wide.
    """
    clusters = settings[0].predictions.clusters
    if len(settings) < MIN_POINTS or len(clusters) < 2:
        return None
    sizes, random = clusters.total(settings[0].predictions.weights), np.random.default_rng(0)
    drawn = random.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), NUM_DRAWS).astype(float)
    weights = np.vstack([np.ones(len(clusters)), drawn])  # first as they are
    errors = []
    for setting in settings:
        one = setting.predictions
        correct = clusters.total(one.weights[:, None] * (one.predicted == one.labels[:, None]))  # (C, R)
        of_seed = 1 - weights @ correct / (weights @ sizes)[:, None]
        chosen = random.integers(0, of_seed.shape[1], of_seed.shape)
        chosen[0] = np.arange(of_seed.shape[1])
        errors.append(np.take_along_axis(of_seed, chosen, axis=1).mean(1))
    logs = np.log(np.maximum(errors, 0.5 / sizes.sum()))  # (settings, draws); an error of zero has no logarithm
    gains = [_gain(np.log(num_groups[-count:]), logs[-count:]) for count in (len(settings), 2)]
    low, high = np.quantile(np.concatenate([one[1:] for one in gains]), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(gains[0][0]), Interval(float(low), float(high))


def _gain(amounts: Float[np.ndarray, " n"], errors: Float[np.ndarray, "n draws"]) -> Float[np.ndarray, " draws"]:
    """Return by how much a line through logarithms lowers the error from the last amount to twice as much."""
    slope, offset = np.polyfit(amounts, errors, 1)
    return np.exp(offset + slope * amounts[-1]) - np.exp(offset + slope * (amounts[-1] + np.log(2)))

"""Learning curves: how accuracy grows with the groups that a setting is trained on, and what more would be worth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vidclf.comparison.leaderboard import Leaderboard, Setting, text_of
from vidclf.evaluation.intervals import LEVEL, Interval
from vidclf.system.text import plural

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
            f"{100 * high:+.1f}]{surely}. That continues a power law of the errors of "
            f"{plural(len(curve.settings), 'setting')}; the interval is over test groups and draws of train groups."
        )


def _doubling(num_groups: Sequence[float], settings: Sequence[Setting]) -> tuple[float, Interval] | None:
    """Return what twice as many groups would add to top1, by a power law of the error (Hestness, arXiv:1712.00409)."""
    clusters = settings[0].predictions.clusters
    if len(settings) < MIN_POINTS or len(clusters) < 2:
        return None
    predictions = [setting.predictions for setting in settings]
    sizes = clusters.total(predictions[0].weights)
    correct = [
        clusters.total(one.weights[:, None] * (one.predicted == one.labels[:, None])) for one in predictions
    ]  # of each setting, (C, R)
    smallest = 0.5 / sizes.sum()  # an error of zero has no logarithm
    random = np.random.default_rng(0)

    def gains(weights: Float[np.ndarray, "draws C"], draws_seeds: bool) -> Float[np.ndarray, " draws"]:
        errors = []
        for of_setting in correct:
            of_seed = 1 - weights @ of_setting / (weights @ sizes)[:, None]  # (draws, R)
            if draws_seeds:
                chosen = random.integers(0, of_seed.shape[1], of_seed.shape)
                of_seed = np.take_along_axis(of_seed, chosen, axis=1)
            errors.append(of_seed.mean(1))
        slope, offset = np.polyfit(np.log(num_groups), np.log(np.maximum(errors, smallest)), 1)
        most = np.log(num_groups[-1])
        return np.exp(offset + slope * most) - np.exp(offset + slope * (most + np.log(2)))

    drawn = random.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), NUM_DRAWS).astype(float)
    tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    low, high = np.quantile(gains(drawn, draws_seeds=True), tails)
    return float(gains(np.ones((1, len(clusters))), draws_seeds=False)[0]), Interval(float(low), float(high))

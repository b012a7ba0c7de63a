"""How far two coders agree: the ceiling that a model's score is read against."""

from collections.abc import Hashable, Sequence

import numpy as np
from sklearn.metrics import cohen_kappa_score

from vidclf.evaluation.intervals import Interval
from vidclf.evaluation.segments import Numbers
from vidclf.evaluation.timeline import intervals_over_groups


def cohen_kappa(
    first: Sequence[Sequence[str]], second: Sequence[Sequence[str]], groups: Sequence[Hashable], draws: int = 200
) -> dict[str, tuple[float, Interval | None]]:
    """Return how far two coders agree beyond chance, and the interval over groups: of each class, and "all" classes.

    Args:
        first: the first coder's label at every step of each file.
        second: the second coder's.
        groups: of each file.
        draws: of the bootstrap.
    """
    cells: list[tuple[str, str, int, int]] = []  # labels, file, number of steps
    for file, (one, other) in enumerate(zip(first, second, strict=True)):
        pairs, counts = np.unique(np.asarray([one, other]), axis=1, return_counts=True)
        cells += [(a, b, file, int(number)) for (a, b), number in zip(pairs.T.tolist(), counts, strict=True)]
    names = sorted({name for a, b, *_ in cells for name in (a, b)})

    def kappas(weights: Sequence[float]) -> Numbers:
        steps = [weights[file] * number for _, _, file, number in cells]
        ones, others = [a for a, *_ in cells], [b for _, b, *_ in cells]
        found = {name: _kappa([a == name for a in ones], [b == name for b in others], steps) for name in names}
        return {"all": _kappa(ones, others, steps), **found}

    intervals = intervals_over_groups(groups, kappas, draws=draws)
    return {name: (kappa, intervals.get(name)) for name, kappa in kappas([1.0] * len(first)).items()}


def _kappa(ones: Sequence[object], others: Sequence[object], steps: Sequence[float]) -> float:
    """Return Cohen's kappa; NaN if both coders give one label throughout, which says nothing."""
    ones, others = list(ones), list(others)
    used = {
        label for pair, number in zip(zip(ones, others, strict=True), steps, strict=True) if number for label in pair
    }
    return float(cohen_kappa_score(ones, others, sample_weight=steps)) if len(used) > 1 else float("nan")

"""The data of a sweep's page: the leaderboard, what varied, doubtful labels out of fold, and the best run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidclf.comparison.files import page_of
from vidclf.comparison.leaderboard import Leaderboard, Setting, build_leaderboard
from vidclf.comparison.scored import ScoredRun, read_metrics
from vidclf.comparison.tables import notes_on
from vidclf.errors import VidclfError
from vidclf.reporting.page import MAX_LABEL_ERRORS, doubtful_labels
from vidclf.reporting.results import read_results

MAX_PAIRS = 15  # that are shown, the most significant


def describe_sweep(scored: Sequence[ScoredRun], part: str, left_out: Sequence[str]) -> tuple[dict[str, Any], Path]:
    """Return the data of the page's first half, and the run that is the best by its validation score."""
    board = build_leaderboard(scored)
    best = max(scored, key=_validation)
    setting = next(setting for setting in board.settings if any(run.folder == best.folder for run in setting.runs))
    axes, lines = _coordinates(board)
    return {
        **page_of(board, MAX_PAIRS),
        "notes": [*notes_on(board, part), *(f"Left out: {reason}" for reason in left_out)],
        "axes": axes,
        "lines": lines,
        "doubtful": _doubtful_out_of_fold(setting, part),
        "why_best": f"Of {len(scored)} runs it has the highest validation top1, {_validation(best):.3f}; the test part "
        "did not choose it.",
    }, best.folder


def _validation(run: ScoredRun) -> float:
    try:
        return read_metrics(run.folder).get("top1", -1.0)
    except VidclfError:  # a run from elsewhere
        return -1.0


def _coordinates(board: Leaderboard) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return an axis for each setting that varied, with its values' heights from 0 to 1, and a line for each row."""
    if not board.keys:
        return [], []
    axes, columns = [], []
    for key, name in board.keys.items():
        values = [setting.choices.get(key, "-") for setting in board.settings]
        ordered = sorted({*values}, key=_by_number)
        height = {value: place / max(1, len(ordered) - 1) for place, value in enumerate(ordered)}
        axes.append({"name": name, "places": [*height.items()]})
        columns.append([height[value] for value in values])
    top1s = [setting.metrics["top1"] for setting in board.settings]
    low, high = min(top1s), max(top1s)
    axes.append({"name": "top1", "places": [(f"{value:.3f}", float(value == high)) for value in {low, high}]})
    columns.append([(top1 - low) / ((high - low) or 1) for top1 in top1s])
    heights = zip(*columns, strict=True)
    return axes, [
        {"name": f"{setting.name}: {setting.metrics['top1']:.3f}", "heights": list(one)}
        for setting, one in zip(board.settings, heights, strict=True)
    ]


def _by_number(value: str) -> tuple[bool, float, str]:
    try:
        return False, float(value), ""
    except ValueError:
        return True, 0.0, value


def _doubtful_out_of_fold(setting: Setting, part: str) -> list[tuple[str, str, str, float, float]]:
    """Return the most doubtful labels of all splits that one seed was scored on; nothing for a single split."""
    if setting.num_splits < 2:
        return []
    rows = []
    for run in setting.runs[: setting.num_splits]:
        results = read_results(run.folder, part)
        for video, confidence, margin in doubtful_labels(results):
            label, predicted = run.labels[video], run.predicted[video]
            rows.append((results.scored.videos[video], label, predicted, confidence, margin))
    return sorted(rows, key=lambda row: row[3:])[:MAX_LABEL_ERRORS]

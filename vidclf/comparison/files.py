"""Writes a comparison into one file: a page, Markdown, or CSV with all digits."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from vidclf.comparison.leaderboard import Leaderboard, Setting, text_of
from vidclf.comparison.tables import difference_of, exact_pairs, exact_settings, pairs_table, score_of, settings_table
from vidclf.errors import VidclfError
from vidclf.pages.rendering import as_csv, as_markdown, render_page
from vidclf.system.disk import check_replaceable, write_atomically, writing_to
from vidclf.system.text import sanitize

MAX_PAIRS = 50  # that a page and Markdown show; all are in the CSV
SIGNS = {".html": "<title>vidclf compare", ".md": "# vidclf compare", ".csv": "name,top1_low,"}  # of what compare wrote
METRICS = {"top5": "top5", "mean_class": "mean of classes", "loss": "loss", "ece": "ece"}  # that a page shows
REMEDY = "Name another file with to=FILE, or to=null for none."


def check_target(path: Path) -> None:
    """Raise VidclfError unless a comparison may be written to `path`.

    A file that an earlier comparison wrote is replaced.
    """
    if path.suffix not in SIGNS:
        raise VidclfError(f"to={path}: must end in .html (a page), .md (Markdown) or .csv (all digits). {REMEDY}")
    check_replaceable(path, SIGNS[path.suffix], "compare")


def write_comparison(path: Path, board: Leaderboard, title: str, notes: Sequence[str]) -> None:
    """Write what the name's ending says; CSV of pairs goes beside that of settings, as NAME-pairs.csv."""
    with writing_to(path, REMEDY):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            write_atomically(path, as_csv(exact_settings(board)))
            write_atomically(path.with_name(f"{path.stem}-pairs.csv"), as_csv(exact_pairs(board)))
        elif path.suffix == ".md":
            tables = [settings_table(board), *([pairs_table(board, MAX_PAIRS)] if board.pairs else [])]
            lines = [f"# vidclf compare: {sanitize(title)}\n", *map(as_markdown, tables)]
            write_atomically(path, "\n".join([*lines, *(f"{sanitize(note)}\n" for note in notes)]).encode())
        else:
            write_atomically(path, _page(board, title, notes))


def _page(board: Leaderboard, title: str, notes: Sequence[str]) -> bytes:
    return render_page("compare.html", title=title, notes=notes, **page_of(board))


def page_of(board: Leaderboard, max_pairs: int = MAX_PAIRS) -> dict[str, Any]:
    """Return what a page shows of a leaderboard, as plain data."""
    shown = board.pairs[:max_pairs]
    ends = [abs(end) for pair in shown for end in pair.difference.interval or (pair.difference.value,)]
    return {
        "settings": [_setting_of_page(setting, board.keys) for setting in board.settings],
        "pairs": [
            {
                "first": pair.first.name,
                "second": pair.second.name,
                "text": difference_of(pair.difference),
                "value": pair.difference.value,
                "interval": pair.difference.interval,
                "p": pair.difference.corrected,
                "verdict": pair.difference.verdict,
            }
            for pair in shown
        ],
        "num_pairs": len(board.pairs),
        "reach": max(0.05, ceil(20 * max(ends, default=0)) / 20),  # of the pairs' axis, to both sides
    }


def _setting_of_page(setting: Setting, keys: Mapping[str, str]) -> dict[str, Any]:
    metrics = [f"{words} {setting.metrics[key]:.3f}" for key, words in METRICS.items() if key in setting.metrics]
    if setting.deviation is not None:
        metrics.append(f"seeds {min(setting.top1s):.3f} to {max(setting.top1s):.3f}, deviation {setting.deviation:.3f}")
    num_failed = round(sum(run.metrics.get("num_failed", 0) for run in setting.runs))
    return {
        "name": setting.name,
        "score": score_of(setting),
        "choices": text_of(setting.choices, keys),
        "metrics": ", ".join([*metrics, *([f"{num_failed} failed videos"] if num_failed else [])]),
        "top1": setting.metrics["top1"],
        "interval": setting.interval,
        "chance": setting.metrics.get("chance_top1"),
        "majority": setting.metrics.get("majority_top1"),
        "num_videos": len(setting.videos.contents),
        "num_seeds": len(setting.top1s),
    }

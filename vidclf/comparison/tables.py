"""Turns a leaderboard into tables and sentences: rounded to be read, and with all digits as CSV."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vidclf.comparison.differences import Difference
from vidclf.comparison.leaderboard import SEED, Leaderboard
from vidclf.evaluation.intervals import Interval
from vidclf.pages.rendering import Table, as_csv, as_markdown, render_page
from vidclf.system.disk import write_atomically
from vidclf.system.text import sanitize

MAX_PAIRS = 50  # that are shown; all are in pairs.csv
BASELINES = {
    "chance_top1": "chance",
    "majority_top1": "the most frequent class of train",
    "container_top1": "the container alone",
    "one_frame_top1": "one frame alone",
}


def runs_table(board: Leaderboard) -> Table:
    """Return one line per entry, the best first."""
    header = ["#", "run", "top1", "95 % interval", *board.keys, "top5", "mean class", "loss", "ece", "failed"]
    rows = []
    for number, entry in enumerate(board.entries, start=1):
        metrics = entry.metrics
        settings = [entry.choices.get(key, "") for key in board.keys]
        accuracies = [_percent(metrics.get(name)) for name in ("top5", "mean_class")]
        losses = [f"{metrics[name]:.3f}" if name in metrics else "" for name in ("loss", "ece")]
        num_failed = round(sum(run.metrics.get("num_failed", 0) for run in entry.runs))
        top1 = _percent(metrics["top1"]), _ends(entry.interval)
        rows.append([number, entry.name, *top1, *settings, *accuracies, *losses, num_failed])
    return Table(header, rows)


def pairs_table(board: Leaderboard) -> Table:
    """Return one line per pair of settings, the most significant first, at most MAX_PAIRS."""
    header = ["run", "against", "difference", "interval (Holm)", "p", "p (Holm)", "it is"]
    rows = [
        [
            *(board.settings[pair.first].name, board.settings[pair.second].name),
            *(f"{100 * pair.value:+.1f} points", _ends(pair.interval, signed=True)),
            *(f"{pair.p:.2g}", f"{pair.corrected:.2g}", pair.verdict),
        ]
        for pair in _most_significant(board)[:MAX_PAIRS]
    ]
    return Table(header, rows)


def seeds_table(board: Leaderboard) -> Table:
    """Return one line per setting that was trained with several seeds."""
    keys = [key for key in board.keys if key != SEED]
    header = [*keys, "seeds", "mean top1", "deviation over seeds", "lowest", "highest", "95 % interval over videos"]
    rows = [
        [
            *(seeds.choices.get(key, "") for key in keys),
            len(seeds.top1s),
            *map(_percent, (seeds.mean, seeds.deviation, min(seeds.top1s), max(seeds.top1s))),
            _ends(seeds.interval),
        ]
        for seeds in board.seeds
    ]
    return Table(header, rows)


def notes_on(board: Leaderboard, part: str) -> Iterator[str]:
    """Yield sentences on how to read the tables."""
    yield (
        f"{board.num_videos} {part} videos in {len(board.clusters)} groups; the intervals are over groups, not single "
        "videos, and hold for these trained models."
    )
    best = board.entries[0].metrics
    if baselines := [f"{name} {_percent(best[key])}" for key, name in BASELINES.items() if key in best]:
        yield f"For comparison, the top1 of {', '.join(baselines)}."
    if warning := board.clusters.warning:
        yield warning
    if len(board.splits) > 1:
        how_often = "each video tested once"
        if board.tested_twice:
            how_often = f"{board.tested_twice} videos tested by several splits"
        yield (
            f"Scores are means over the splits {', '.join(board.splits)}, groups pooled, {how_often}. Intervals are "
            "over videos, for these trained models; their training sets overlap, so the variation between training "
            "sets is not included (Bengio and Grandvalet, 2004)."
        )
    if board.seeds:
        yield "The deviation over seeds shows chance in training; the intervals over videos do not include it."
        if not board.differences:
            yield "All runs are of one setting, and seeds are not compared with each other."
        elif any(setting.rows.keys() != board.settings[0].rows.keys() for setting in board.settings):
            yield "Two settings are compared by the seeds that both have, or by all if they share none."
    if len(board.differences) > 1:
        yield "Holm's correction widens the intervals of differences; they exclude 0 where p (Holm) is below 0.05."
    if len(board.differences) > MAX_PAIRS:
        yield (
            f"{MAX_PAIRS} of {len(board.differences)} pairs are shown, the most significant first; Holm's correction "
            "is over all of them."
        )
    for reason in board.left_out:
        yield f"Left out: {reason}."


def verdict_on(pair: Difference, board: Leaderboard) -> str:
    """Return a sentence on two settings."""
    first, second = board.settings[pair.first].name, board.settings[pair.second].name
    if pair.is_identical:
        return f"{first} and {second}: identical predictions."
    interval = f", 95 % interval {_ends(pair.interval, signed=True)}" if pair.interval else ""
    how = "significantly" if pair.is_significant else "not significantly"
    direction = "better" if pair.value >= 0 else "worse"
    return (
        f"{first} is {how} {direction} than {second}: by {100 * abs(pair.value):.1f} points{interval}, "
        f"p = {pair.p:.2g}; {pair.num_discordant} videos are classified correctly more often by one of them."
    )


def write_leaderboard(folder: Path, board: Leaderboard, title: str, notes: Sequence[str]) -> None:
    """Write compare.html, compare.md, and all digits of all runs and pairs into runs.csv and pairs.csv."""
    runs, pairs, seeds = runs_table(board), pairs_table(board), seeds_table(board)
    texts = [f"# {sanitize(title)}\n", as_markdown(runs), *(f"{sanitize(note)}\n" for note in notes)]
    for name, table in (("Pairs", pairs), ("Seeds", seeds)):
        if table.rows:
            texts.append(f"## {name}\n\n{as_markdown(table)}")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "compare.md", "\n".join(texts).encode())
    page = render_page("compare.html", title=title, notes=notes, runs=runs, pairs=pairs, seeds=seeds)
    write_atomically(folder / "compare.html", page)
    write_atomically(folder / "runs.csv", as_csv(_exact_runs(board)))
    write_atomically(folder / "pairs.csv", as_csv(_exact_pairs(board)))


def _exact_runs(board: Leaderboard) -> Table:
    keys = dict.fromkeys(key for entry in board.entries for key in entry.metrics)
    is_mean = len(board.splits) > 1  # the means of the splits' intervals are not those of the means
    names = [
        key
        for key in keys
        if key not in ("top1_low", "top1_high") and not (is_mean and key.endswith(("_low", "_high")))
    ]
    rows = [
        [
            entry.name,
            *(entry.choices.get(key, "") for key in board.keys),
            *(entry.interval or ("", "")),
            *(entry.metrics.get(name, "") for name in names),
        ]
        for entry in board.entries
    ]
    return Table(["run", *board.keys, "top1_low", "top1_high", *names], rows)


def _exact_pairs(board: Leaderboard) -> Table:
    header = ["run", "against", "difference", "low", "high", "p", "p_holm", "num_unlike", "verdict"]
    rows = [
        [
            *(board.settings[pair.first].name, board.settings[pair.second].name, pair.value),
            *(pair.interval or ("", "")),
            *(pair.p, pair.corrected, pair.num_discordant, pair.verdict),
        ]
        for pair in _most_significant(board)
    ]
    return Table(header, rows)


def _most_significant(board: Leaderboard) -> list[Difference]:
    return sorted(board.differences, key=lambda pair: (pair.corrected, -abs(pair.value)))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _ends(interval: Interval | None, signed: bool = False) -> str:
    if interval is None:
        return ""
    sign = "+" if signed else ""
    return f"{100 * interval.low:{sign}.1f} to {100 * interval.high:{sign}.1f}"

"""What a leaderboard says, as sentences and tables: to be read, and with all digits."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vidclf.comparison.differences import Difference
from vidclf.comparison.leaderboard import SEED, Leaderboard
from vidclf.evaluation.intervals import FEWEST_CLUSTERS, Interval
from vidclf.pages.rendering import Table, as_csv, as_markdown, render_page
from vidclf.system.disk import write_atomically
from vidclf.system.text import sanitize

MANY_PAIRS = 50  # that are shown; all are in pairs.csv
ACCURACIES = ("top5", "mean_class")
BASELINES = {
    "chance_top1": "chance",
    "majority_top1": "the commonest class of train",
    "container_top1": "the container alone",
    "one_frame_top1": "one frame alone",
}


def runs_table(board: Leaderboard) -> Table:
    """Return a line an entry, the best first."""
    header = ["#", "run", *board.keys, "top1", "95 % interval", "top5", "mean class", "loss", "ece", "failed"]
    rows = []
    for number, entry in enumerate(board.entries, start=1):
        metrics = entry.metrics
        accuracies = [_percent(metrics.get(name)) for name in ACCURACIES]
        others = ["" if metrics.get(name) is None else f"{metrics[name]:.3f}" for name in ("loss", "ece")]
        failed = round(sum(run.metrics.get("num_failed", 0) for run in entry.runs.values()))
        chosen = [entry.choices.get(key, "") for key in board.keys]
        scores = [_percent(metrics["top1"]), _ends(entry.interval), *accuracies, *others, failed]
        rows.append([number, entry.name, *chosen, *scores])
    return Table(header, rows)


def pairs_table(board: Leaderboard, most: int | None = MANY_PAIRS) -> Table:
    """Return a line a pair of entries, the surest difference first."""
    header = ["run", "against", "difference", "95 % interval", "p", "p (Holm)", "it is"]
    names = [f"#{number} {entry.name}" for number, entry in enumerate(board.entries, start=1)]
    rows = []
    for one in _surest(board)[:most]:
        points = f"{100 * one.value:+.1f} points"
        numbers = [points, _ends(one.interval, signed=True), f"{one.p:.2g}", f"{one.corrected:.2g}"]
        rows.append([names[one.one], names[one.other], *numbers, one.verdict])
    return Table(header, rows)


def seeds_table(board: Leaderboard) -> Table:
    """Return a line a setting that was trained with several seeds."""
    keys = [key for key in board.keys if key != SEED]
    header = [*keys, "seeds", "mean top1", "deviation over seeds", "lowest", "highest", "95 % interval over videos"]
    rows = [
        [
            *(one.choices.get(key, "") for key in keys),
            len(one.top1s),
            *map(_percent, (one.mean, one.deviation, min(one.top1s), max(one.top1s))),
            _ends(one.interval),
        ]
        for one in board.seeds
    ]
    return Table(header, rows)


def notes_on(board: Leaderboard, part: str) -> list[str]:
    """Return what to know of the tables."""
    return list(_notes(board, part))


def _notes(board: Leaderboard, part: str) -> Iterator[str]:
    yield (
        f"{board.num_videos} {part} videos in {len(board.clusters)} groups; intervals are of groups, not of single "
        "videos, and are for these trained models."
    )
    known = board.entries[0].metrics
    baselines = [f"{what} {_percent(known[key])}" for key, what in BASELINES.items() if key in known]
    if baselines:
        yield f"Beside them, in top1: {', '.join(baselines)}."
    if why := board.clusters.why_none:
        yield f"There is no interval: {why}."
    elif board.clusters.are_few:
        yield f"The intervals are rough: {len(board.clusters)} groups, and {FEWEST_CLUSTERS} or more are needed."
    if len(board.splits) > 1:
        once = "each video tested once"
        if board.tested_twice:
            once = f"{board.tested_twice} videos tested by several splits"
        yield (
            f"Scores are means over the splits {', '.join(board.splits)}, groups pooled, {once}. Intervals are over "
            "videos, for these trained models; their training sets overlap, so what another training set would give is "
            "not in them (Bengio and Grandvalet, 2004)."
        )
    if board.seeds:
        yield "The deviation over seeds is what chance in training does; the interval over videos is another thing."
    if len(board.differences) > MANY_PAIRS:
        yield f"{MANY_PAIRS} of {len(board.differences)} pairs are shown, the surest first; Holm's is over all of them."
    for reason in board.left_out:
        yield f"Left out: {reason}."


def verdict_on(one: Difference, board: Leaderboard) -> str:
    """Return a sentence on two runs."""
    first, second = board.entries[one.one].name, board.entries[one.other].name
    if not one.num_unlike:
        return f"{first} and {second}: no difference; they name the same videos rightly."
    interval = f", 95 % interval {_ends(one.interval, signed=True)}" if one.interval else ""
    how = "surely" if one.is_sure else "not surely"
    return (
        f"{first} is {how} better than {second}: by {100 * one.value:.1f} points{interval}, p = {one.p:.2g}; "
        f"{one.num_unlike} videos are named rightly by one of them alone."
    )


def write_leaderboard(folder: Path, board: Leaderboard, title: str, notes: Sequence[str]) -> None:
    """Write compare.html, compare.md, runs.csv and pairs.csv; all pairs are in the last."""
    runs, pairs, seeds = runs_table(board), pairs_table(board), seeds_table(board)
    texts = [f"# {sanitize(title)}\n", as_markdown(runs), *(f"{sanitize(note)}\n" for note in notes)]
    texts += [
        f"## {name}\n\n{as_markdown(table)}" for name, table in (("Pairs", pairs), ("Seeds", seeds)) if table.rows
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "compare.md", "\n".join(texts).encode())
    page = render_page("compare.html", title=title, notes=notes, runs=runs, pairs=pairs, seeds=seeds)
    write_atomically(folder / "compare.html", page)
    write_atomically(folder / "runs.csv", as_csv(_all_of_runs(board)))
    write_atomically(folder / "pairs.csv", as_csv(_all_of_pairs(board)))


def _all_of_runs(board: Leaderboard) -> Table:
    known = {key: None for entry in board.entries for key in entry.metrics if key not in ("top1_low", "top1_high")}
    names = [key for key in known if not (len(board.splits) > 1 and key.endswith(("_low", "_high")))]  # of one split
    header = ["run", *board.keys, "top1_low", "top1_high", *names]
    rows = [
        [
            entry.name,
            *(entry.choices.get(key, "") for key in board.keys),
            *(entry.interval or ("", "")),
            *(entry.metrics.get(name, "") for name in names),
        ]
        for entry in board.entries
    ]
    return Table(header, rows)


def _all_of_pairs(board: Leaderboard) -> Table:
    header = ["run", "against", "difference", "low", "high", "p", "p_holm", "num_unlike", "verdict"]
    names = [entry.name for entry in board.entries]
    rows = [
        [
            *(names[one.one], names[one.other], one.value),
            *(one.interval or ("", "")),
            *(one.p, one.corrected, one.num_unlike, one.verdict),
        ]
        for one in _surest(board)
    ]
    return Table(header, rows)


def _surest(board: Leaderboard) -> list[Difference]:
    return sorted(board.differences, key=lambda one: (one.corrected, -abs(one.value)))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _ends(interval: Interval | None, signed: bool = False) -> str:
    if interval is None:
        return ""
    sign = "+" if signed else ""
    return f"{100 * interval.low:{sign}.1f} to {100 * interval.high:{sign}.1f}"

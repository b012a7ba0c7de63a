"""Turns a leaderboard into tables and sentences: rounded to be read, and with all digits."""

from collections.abc import Iterator, Mapping

from vidclf.comparison.differences import Difference
from vidclf.comparison.leaderboard import Leaderboard, Pair, Setting, Videos, why_not_paired
from vidclf.evaluation.intervals import Interval
from vidclf.pages.rendering import Table
from vidclf.system.text import first_five, plural

SCORE_COLUMNS = ("", "name", "top1", "n", "seeds")  # of settings_table, before the settings that vary
PAIR_COLUMNS = ("first", "second", "difference", "p", "verdict")
BASELINES = {
    "chance_top1": "chance",
    "majority_top1": "the most frequent class of train",
    "container_top1": "the container alone",
    "one_frame_top1": "one frame alone",
}


def settings_table(board: Leaderboard) -> Table:
    """Return a row for each setting, the best first: its score, then what varied, unless all names say that."""
    keys = board.keys if any(len(setting.runs) == 1 for setting in board.settings) else {}
    rows = [
        [
            *(rank, setting.name, score_of(setting), len(setting.videos.contents), len(setting.top1s)),
            *(setting.choices.get(key, "") for key in keys),
        ]
        for rank, setting in enumerate(board.settings, start=1)
    ]
    return Table([*SCORE_COLUMNS, *keys.values()], rows)


def pairs_table(board: Leaderboard, num_shown: int) -> Table:
    """Return a row for each of the most significant pairs; p is Holm's."""
    rows = [
        [first.name, second.name, difference_of(difference), f"{difference.corrected:.2g}", difference.verdict]
        for first, second, difference in board.pairs[:num_shown]
    ]
    return Table(PAIR_COLUMNS, rows)


def exact_settings(board: Leaderboard) -> Table:
    """Return a row for each setting, with all digits of all metrics."""
    seen = dict.fromkeys(key for setting in board.settings for key in setting.metrics if not key.startswith("top1_"))
    # The means of intervals are not the intervals of means.
    is_mean = any(len(setting.runs) > 1 for setting in board.settings)
    names = [key for key in seen if not (is_mean and key.endswith(("_low", "_high")))]
    rows = [
        [
            *(setting.name, *(setting.interval or ("", ""))),
            " ".join(run.folder.name for run in setting.runs),
            *(len(setting.videos.contents), len(setting.top1s), setting.deviation or ""),
            *(setting.choices.get(key, "") for key in board.keys),
            *(setting.metrics.get(name, "") for name in names),
        ]
        for setting in board.settings
    ]
    counted = "runs", "n", "seeds", "deviation"
    return Table(["name", "top1_low", "top1_high", *counted, *board.keys, *names], rows)


def exact_pairs(board: Leaderboard) -> Table:
    """Return a row for each pair, the most significant first, with all digits."""
    header = ["first", "second", "difference", "low", "high", "p", "p_holm", "num_discordant", "verdict"]
    rows = [
        [
            *(first.name, second.name, difference.value, *(difference.interval or ("", ""))),
            *(difference.p, difference.corrected, difference.num_discordant, difference.verdict),
        ]
        for first, second, difference in board.pairs
    ]
    return Table(header, rows)


def notes_on(board: Leaderboard, part: str) -> Iterator[str]:
    """Yield sentences on how to read the tables."""
    best, by_videos = board.settings[0], _by_videos(board)
    yield (
        f"n: {part} videos; those of the first are of {plural(len(best.predictions.clusters), 'group')}. The 95 % "
        "intervals are over groups, not single videos, and hold for these trained models."
    )
    if baselines := [f"{name} {best.metrics[key]:.3f}" for key, name in BASELINES.items() if key in best.metrics]:
        yield f"For comparison, the top1 of {', '.join(baselines)}."
    yield from dict.fromkeys(
        warning for first, *_ in by_videos.values() if (warning := first.predictions.clusters.warning)
    )
    yield from _notes_on_means(board)
    for first, *others in [*by_videos.values()][1:]:
        names = first_five([setting.name for setting in (first, *others)])
        paired = "paired only with each other, and not" if others else "not paired"
        yield f"{names}: {paired} with {best.name}: {why_not_paired(best, first)}."


def _by_videos(board: Leaderboard) -> Mapping[Videos, list[Setting]]:
    """Return the settings that are scored on the same videos."""
    by_videos: dict[Videos, list[Setting]] = {}
    for setting in board.settings:
        by_videos.setdefault(setting.videos, []).append(setting)
    return by_videos


def _notes_on_means(board: Leaderboard) -> Iterator[str]:
    most = max(board.settings, key=lambda setting: setting.num_splits)
    if most.num_splits > 1:
        num_repeated = most.videos.num_repeated
        how_often = f"{num_repeated} videos tested by several splits" if num_repeated else "each video tested once"
        yield (
            f"Scores are means over {most.num_splits} splits, groups pooled, {how_often}. Their training sets overlap, "
            "so the intervals leave out the variation between training sets (Bengio and Grandvalet, 2004)."
        )
    if any(len(setting.top1s) > 1 for setting in board.settings):
        yield "A setting's score is the mean over its seeds; seeds=true shows each."
    seeds = {tuple(setting.predictions.seeds) for pair in board.pairs for setting in pair[:2]}
    if len(seeds) > 1:
        yield "Two settings are compared by the seeds that both have, or by all if they share none."
    if len(board.pairs) > 1:
        yield (
            f"p and the intervals of differences are corrected for {len(board.pairs)} pairs (Holm); an interval "
            "excludes 0 where p is below 0.05."
        )


def verdict_on(pair: Pair) -> str:
    """Return a sentence on two settings."""
    first, second, difference = pair
    if difference.is_identical:
        return f"{first.name} and {second.name}: identical predictions."
    how = "significantly" if difference.is_significant else "not significantly"
    direction = "better" if difference.value >= 0 else "worse"
    return (
        f"{first.name} is {how} {direction} than {second.name}: by {difference_of(difference)}, "
        f"p = {difference.p:.2g}; {difference.num_discordant} videos are correct more often in one of them."
    )


def score_of(setting: Setting) -> str:
    """Return the top1 and its interval."""
    return f"{setting.metrics['top1']:.3f}{_ends(setting.interval)}"


def difference_of(difference: Difference) -> str:
    """Return a difference and its interval."""
    return f"{difference.value:+.3f}{_ends(difference.interval, sign='+')}"


def _ends(interval: Interval | None, sign: str = "") -> str:
    return f" [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]" if interval else ""

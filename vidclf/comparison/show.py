"""Compares runs: reads their scores, prints tables, and writes them into a file."""

from collections.abc import Sequence
from pathlib import Path

from vidclf.comparison.curve import sentences_on
from vidclf.comparison.files import check_target, write_comparison
from vidclf.comparison.leaderboard import build_leaderboard
from vidclf.comparison.scored import ScoredRun, read_scored
from vidclf.comparison.tables import notes_on, pairs_table, settings_table, verdict_on
from vidclf.errors import VidclfError
from vidclf.pages.rendering import print_table, print_text
from vidclf.run.sweep import find_runs, is_run, why_missing
from vidclf.system.terminal import say
from vidclf.system.text import plural

MAX_PAIRS = 10  # that are printed


def show(paths: Sequence[Path], part: str, seeds: bool = False, to: Path | None = None) -> None:
    """Print tables of runs and of the runs of sweeps, by their scores on a part; write them to the file `to`.

    Raises:
        VidclfError: `to` cannot be written, a run that `paths` names cannot be compared, or no run of a sweep can.
    """
    if to is not None:
        check_target(to)
    scored, left_out = read_all(paths, part)
    for reason in left_out:
        say(f"left out: {reason}")
    board = build_leaderboard(scored, pool_seeds=not seeds)
    title = f"{plural(len(board.settings), 'setting')} ({plural(len(scored), 'run')}) on {part}"
    notes = [*sentences_on(board), *notes_on(board, part)]
    print_text(f"Compared: {title}, the best first")
    print_table(settings_table(board), breaks=(2, 5))
    for note in notes:
        print_text(note)
    if len(board.pairs) == 1:
        print_text(verdict_on(board.pairs[0]))
    elif board.pairs:
        print_table(pairs_table(board, MAX_PAIRS), breaks=(2, 3))
    if (num_more := len(board.pairs) - MAX_PAIRS) > 0:
        where = f"{to}" if to else f"vidclf compare {' '.join(map(str, paths))} part={part}"
        print_text(f"{num_more} more pairs, less significant: {where}")
    if to is not None:
        write_comparison(to, board, title, [*notes, *(f"Left out: {reason}" for reason in left_out)])
        print_text(f"results {to}")


def read_all(paths: Sequence[Path], part: str) -> tuple[list[ScoredRun], list[str]]:
    """Return the scores of the runs, and why runs of sweeps are left out."""
    runs, incomplete = find_runs(paths)
    left_out = [f"{job}: {why_missing(job)}" for job in incomplete]
    scored = []
    for run in runs:
        try:
            scored.append(read_scored(run, part))
        except VidclfError as error:
            if run in paths and is_run(run):
                raise
            left_out.append(str(error))
    if not scored:
        first = f" The first: {left_out[0]}" if left_out else ""
        raise VidclfError(f"None of {len(left_out)} runs can be compared.{first}")
    return scored, left_out

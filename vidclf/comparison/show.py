"""Compares runs: reads their scores, prints tables, and writes them to a folder."""

from collections.abc import Sequence
from pathlib import Path

from vidclf.comparison.leaderboard import build_leaderboard
from vidclf.comparison.scored import ScoredRun, read_scored
from vidclf.comparison.tables import notes_on, pairs_table, runs_table, seeds_table, verdict_on, write_leaderboard
from vidclf.errors import VidclfError
from vidclf.pages.rendering import print_table
from vidclf.run.sweep import find_runs, is_run, why_missing
from vidclf.system.disk import writing_to
from vidclf.system.terminal import say
from vidclf.system.text import sanitize


def show(paths: Sequence[Path], part: str, out: Path | None = None) -> None:
    """Print tables of runs and of the runs of sweeps, by their scores on a part; write them to the folder `out`.

    Raises:
        VidclfError: a run that `paths` names cannot be compared, or no run of a sweep can.
    """
    scored, left_out = _read(paths, part)
    for reason in left_out:
        say(f"left out: {sanitize(reason)}")
    board = build_leaderboard(scored, pool_splits=not all(map(is_run, paths)))
    notes = [*notes_on(board, part)]
    title = f"{len(board.entries)} on {part}"
    print(f"Compared: {title}, the best first")
    print_table(runs_table(board))
    for note in notes:
        print(sanitize(note))
    if len(board.differences) == 1:
        print(sanitize(verdict_on(board.differences[0], board)))
    elif board.differences:
        print_table(pairs_table(board))
    if board.seeds:
        print_table(seeds_table(board))
    if out is not None:
        with writing_to(out, "Name another folder with out=..., or out=null for none."):
            write_leaderboard(out, board, title, [*notes, *(f"Left out: {reason}" for reason in left_out)])
        print(sanitize(f"results {out}"))


def _read(paths: Sequence[Path], part: str) -> tuple[list[ScoredRun], list[str]]:
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

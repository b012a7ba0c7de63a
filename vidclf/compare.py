"""What differs between runs, what came out, and how sure that is: vidclf compare DIR..., or a sweep's folder."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from vidclf.cli import verb
from vidclf.errors import VidclfError


@verb
def main(cfg: DictConfig) -> None:
    """Print tables; leave them as a page, Markdown and CSV in the folder `out`."""
    from vidclf.contracts import PARTS
    from vidclf.run.config import asked, explicit_overrides, key_of, known_keys

    own = known_keys("compare") - known_keys("train")
    others = [override for override in explicit_overrides() if key_of(override) not in own]
    if others:
        raise VidclfError(f"compare {others[0]}: runs are compared as they are; it has {', '.join(sorted(own))}.")
    config, _ = asked(cfg, "compare")
    part, out = config["part"], config["out"]
    if part not in PARTS:
        raise VidclfError(f"part={part}: there is no such part; use one of {', '.join(PARTS)}.")
    show([Path(path) for path in config["run"]], part, None if out is None else Path(out))


def show(paths: Sequence[Path], part: str, out: Path | None = None) -> None:
    """Print tables of the runs that `paths` are, or hold, by their scores on a part; write them into `out`.

    Raises:
        VidclfError: a run that was named cannot be compared, or none of a sweep can.
    """
    from vidclf.comparison.leaderboard import build_leaderboard
    from vidclf.comparison.scored import is_run
    from vidclf.comparison.tables import (
        notes_on,
        pairs_table,
        runs_table,
        seeds_table,
        verdict_on,
        write_leaderboard,
    )
    from vidclf.pages.rendering import print_table
    from vidclf.system.disk import writing_to
    from vidclf.system.terminal import say
    from vidclf.system.text import sanitize

    scored, left_out = _read(paths, part)
    for reason in left_out:
        say(sanitize(f"left out: {reason}"))
    board = build_leaderboard(scored, pool_splits=not all(map(is_run, paths)))
    notes = notes_on(board, part)
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


def _read(paths: Sequence[Path], part: str) -> tuple[list, list[str]]:
    """Return what was scored, and why runs of sweeps are left out."""
    from vidclf.comparison.scored import find_runs, is_run, read_scored, why_missing

    found, failed = find_runs(paths)
    left_out = [f"{job}: {why_missing(job)}" for job in failed]
    scored = []
    for run in found:
        try:
            scored.append(read_scored(run, part))
        except VidclfError as error:
            if run in paths and is_run(run):
                raise
            left_out.append(str(error))
    if not scored:
        told = f" The first: {left_out[0]}" if left_out else ""
        raise VidclfError(f"None of {len(left_out)} runs can be compared.{told}")
    return scored, left_out


if __name__ == "__main__":
    main()

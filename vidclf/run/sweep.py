"""The folder of a sweep: its jobs, which of them are complete, and why the others are not."""

import re
from collections.abc import Sequence
from pathlib import Path

from vidclf.errors import VidclfError
from vidclf.system.disk import check_links, write_atomically

ERROR = "error.txt"  # in a job's folder: why it failed
MAX_REASON = 500  # characters of it that are shown


def find_runs(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the runs that `paths` name or, being sweeps, hold; and the jobs of those sweeps that left no run.

    Raises:
        VidclfError: a path is neither a run nor a sweep.
    """
    runs, incomplete = list[Path](), list[Path]()
    for path in paths:
        if is_run(path) or path.is_file():
            runs.append(path)
            continue
        if path.is_dir() and is_run(path.parent):
            raise VidclfError(
                f"{path}: this holds results of a run, not the run. Name the run, {path.parent}. Scores under other "
                f"settings, such as sampling.rate_hz=5, are in {path}/metrics.json."
            )
        if not path.is_dir():
            raise VidclfError(f"{path}: no such folder. Give runs, or the folder of a sweep, below runs/.")
        check_links(path)
        jobs = jobs_of(path)
        if not jobs:
            raise VidclfError(f"{path}: neither a run (it has no checkpoints/best.ckpt) nor a sweep with runs in it.")
        for job in jobs:
            (runs if is_complete(job) else incomplete).append(job)
    return runs, incomplete


def is_run(path: Path) -> bool:
    """Return whether a folder holds the best checkpoint of a run."""
    return (path / "checkpoints" / "best.ckpt").is_file()


def is_complete(job: Path) -> bool:
    """Return whether a job was trained to its end: its scores are written last."""
    return is_run(job) and (job / "metrics.json").is_file()


def why_missing(job: Path) -> str:
    """Return why a job is not complete, as far as its folder says."""
    if not (job / ERROR).is_file():
        return "not trained to the end. To go on, repeat the sweep's command with its hydra.sweep.dir."
    with (job / ERROR).open(encoding="utf-8", errors="replace") as file:
        return f"failed: {' '.join(file.read(MAX_REASON).split())}"


def write_failure(job: Path, reason: str) -> None:
    """Write into a job's folder why it failed."""
    write_atomically(job / ERROR, f"{reason}\n".encode("utf-8", "surrogateescape"))


def jobs_of(sweep: Path) -> list[Path]:
    """Return the folders of a sweep's jobs in order, including those of sweeps inside it."""
    jobs = list[Path]()
    inside = [path for path in sweep.iterdir() if path.is_dir() and not path.name.startswith(".")]
    inside = [path for path in inside if not path.is_symlink()]  # a link to `.` would never end
    for path in sorted(inside, key=lambda path: (int((re.match(r"\d+(?=_)", path.name) or ["-1"])[0]), path.name)):
        if (path / ".hydra").is_dir() or (path / "checkpoints").is_dir():
            jobs.append(path)
        elif (path / "multirun.yaml").is_file():
            jobs += jobs_of(path)
    return jobs

"""The folder of a sweep: its jobs, which of them are complete, and why the others are not."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from vidclf.errors import VidclfError
from vidclf.system.disk import check_links, write_atomically

ERROR = "error.txt"  # in a job's folder: why it failed
MAX_REASON = 500  # characters of it that are shown


def find_runs(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the runs that `paths` name or, being sweeps, hold; and what is no complete run.

    Raises:
        VidclfError: the only path is neither a run nor a sweep.
    """
    runs, others = list[Path](), list[Path]()
    for path in paths:
        if is_run(path) or path.is_file():
            runs.append(path)
            continue
        jobs = jobs_of(path) if path.is_dir() else []
        if jobs:
            check_links(path)
        if not jobs and len(paths) == 1:
            raise VidclfError(f"{path}: {why_missing(path)}")
        for job in jobs:
            (runs if is_complete(job) else others).append(job)
        others += [] if jobs else [path]
    return runs, others


def is_run(path: Path) -> bool:
    """Return whether a folder holds the best checkpoint of a run."""
    return (path / "checkpoints" / "best.ckpt").is_file()


def is_complete(job: Path) -> bool:
    """Return whether a job was trained to its end: its scores are written last."""
    return is_run(job) and (job / "metrics.json").is_file()


def why_missing(path: Path) -> str:
    """Return why a path is no complete run, as far as its folder says."""
    if not path.is_dir():
        return "no such folder. Give runs, or the folder of a sweep, below runs/."
    if is_run(path.parent):
        return (
            f"this holds results of a run, not the run. Name the run, {path.parent}. Scores under other settings, such "
            f"as sampling.rate_hz=5, are in {path}/metrics.json."
        )
    if (path / ERROR).is_file():
        with (path / ERROR).open(encoding="utf-8", errors="replace") as file:
            return f"failed: {' '.join(file.read(MAX_REASON).split())}"
    if (path / ".hydra").is_dir() or (path / "checkpoints").is_dir():
        return "not trained to the end. To go on, repeat the sweep's command with its hydra.sweep.dir."
    return "neither a run (it has no checkpoints/best.ckpt) nor a sweep with runs in it."


def remove_unused(folder: Path) -> None:
    """Remove the folder of a run into which only Hydra has written, so that a failed command leaves none."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} == {".hydra"}:
        shutil.rmtree(folder)


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

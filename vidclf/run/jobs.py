"""A job of a sweep that was called again: done, to go on with, or to begin; never of another configuration."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from vidclf.errors import VidclfError
from vidclf.run.compatible import flatten
from vidclf.run.config import CALL_KEYS, MEASURED_KEYS
from vidclf.run.folder import Run, UnreadableError, describe_checkpoint, load_checkpoint
from vidclf.run.sweep import ERROR
from vidclf.run.trust import check_plain
from vidclf.system.terminal import say
from vidclf.system.text import first_five, sanitize

SHOWN = 200  # characters of a setting


class Progress(Enum):
    """How far a job has come."""

    DONE = "done"
    BEGUN = "begun"
    NEW = "new"


@contextmanager
def job_of_sweep(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[Progress, Run | None]]:
    """Yield how far the job in `folder` has come, and the run to go on from; no other process is at it meanwhile.

    Outside a sweep, every run is new.

    Raises:
        VidclfError: it was trained by another configuration, or what is there is none of vidclf's.
    """
    if HydraConfig.get().mode is not RunMode.MULTIRUN:
        yield Progress.NEW, None
        return
    with _alone_in(folder):
        _check_siblings(folder)
        progress = read_job(folder, config)
        (folder / ERROR).unlink(missing_ok=True)  # of the time before
        if progress is Progress.DONE:
            say(f"{folder}: done before; its scores stand.")
        run = None
        if progress is Progress.BEGUN:
            run = load_checkpoint(folder / "checkpoints" / "last.ckpt")
            say(f"{folder}: goes on after epoch {run.num_epochs}.")
        elif progress is Progress.NEW:
            _put_aside_unreadable(folder)
        yield progress, run


def _check_siblings(folder: Path) -> None:
    """Raise VidclfError if the sweep's folder holds another sweep: its job of the same number has another name."""
    number = folder.name.partition("_")[0]
    others = [path for path in folder.parent.glob(f"{number}_*") if path != folder and (path / "checkpoints").is_dir()]
    if number.isdecimal() and others:
        raise VidclfError(
            f"{folder.parent}: it holds {others[0].name}, a job of another sweep; this one's job {number} is "
            f"{folder.name}. To go on with a sweep, repeat its command; for a new one, name another hydra.sweep.dir."
        )


def read_job(folder: Path, config: Mapping[str, Any]) -> Progress:
    """Return how far the job in `folder` has come, which is to be trained by `config`; nothing is written.

    Raises:
        VidclfError: it was trained by another configuration, or what is there is none of vidclf's.
    """
    checkpoints = folder / "checkpoints"
    for path in (folder, checkpoints, checkpoints / "best.ckpt", checkpoints / "last.ckpt"):
        if path.is_symlink():
            raise VidclfError(f"{path}: it is a link, and a sweep writes into its own folder. Remove it.")
    readable = set()
    for name in ("best.ckpt", "last.ckpt"):
        if (checkpoints / name).is_file():
            with suppress(UnreadableError):
                about = describe_checkpoint(checkpoints / name)
                check_plain(about["config"])
                _check_same(folder, about.get("asked", about["config"]), config)
                readable.add(name)
    if (folder / "metrics.json").is_file():
        if "best.ckpt" not in readable:
            raise VidclfError(
                f"{folder}: it has scores, and no checkpoints/best.ckpt that says of what. Remove that folder, or name "
                "another one for the sweep with hydra.sweep.dir=..."
            )
        return Progress.DONE
    lost_its_best = "best.ckpt" not in readable and (checkpoints / "best.ckpt").is_file()
    return Progress.BEGUN if "last.ckpt" in readable and not lost_its_best else Progress.NEW


def _check_same(folder: Path, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise VidclfError if a job was trained by other settings than it is asked for now."""
    before, asked = _of_job(was), _of_job(now)
    keys = sorted(key for key in before.keys() | asked.keys() if before.get(key) != asked.get(key))
    if keys:
        told = [f"{key}={_shown(asked, key)} (was {_shown(before, key)})" for key in keys]
        raise VidclfError(
            f"{folder}: the job there was trained otherwise: {sanitize(first_five(told))}. To go on with the sweep in "
            "that folder, call it as before; for another one, name another hydra.sweep.dir, or none."
        )


def _of_job(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a training what it is, dotted: all but where it is written to and what describes a machine."""
    flat = flatten(json.loads(json.dumps(config, default=str)))  # as a file tells it: no tuples, and inf equals inf
    return {
        key: value
        for key, value in flat.items()
        if not any(key == other or key.startswith(f"{other}.") for other in (*CALL_KEYS, *MEASURED_KEYS))
        and not (key.startswith("callbacks.") and key.endswith(".dirpath"))
        and value not in (None, {})
    }


def _shown(settings: Mapping[str, Any], key: str) -> str:
    text = str(settings.get(key))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _put_aside_unreadable(folder: Path) -> None:
    """Rename what a kill has left half written, or never was a checkpoint of ours, so that it is not written over."""
    for path in sorted((folder / "checkpoints").glob("*.ckpt")):
        try:
            describe_checkpoint(path)
        except UnreadableError:
            path.replace(path.with_name(f"{path.name}.unreadable"))
            say(f"{path}: it cannot be read, and stands aside as {path.name}.unreadable.")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let no other process train this job meanwhile: jobs outlive a killed sweep that ran several at once."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        say(f"{folder}: another process is training it; waiting for that.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()

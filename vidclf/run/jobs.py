"""Decide whether a job of a repeated sweep is done, goes on or begins; refuse one of another configuration."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any

from vidclf.errors import VidclfError
from vidclf.run.checkpoints import UnreadableError
from vidclf.run.compatible import changed_settings, flatten
from vidclf.run.config import CALL_KEYS, FETCH, MEASURED_KEYS
from vidclf.run.folder import Run, describe_checkpoint, load_checkpoint
from vidclf.run.sweep import ERROR
from vidclf.run.trust import check_plain
from vidclf.system.disk import check_links, locked
from vidclf.system.terminal import say
from vidclf.system.text import first_five


class Progress(Enum):
    """Says how far a job has come."""

    DONE = "done"
    BEGUN = "begun"
    NEW = "new"


@contextmanager
def job_of_sweep(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[Progress, Run | None]]:
    """Lock the job of a sweep in `folder`; yield how far it has come, and the run to go on from."""
    check_links(folder, within=folder.parent)
    # Jobs outlive a killed sweep that ran several at once.
    with locked(folder / ".lock", f"{folder}: another process is training this job; waiting for it."):
        _check_siblings(folder)
        progress, run = read_job(folder, config), None
        (folder / ERROR).unlink(missing_ok=True)
        if progress is Progress.DONE:
            say(f"{folder}: done before; its scores are kept.")
        elif progress is Progress.BEGUN:
            run = load_checkpoint(folder / "checkpoints" / "last.ckpt")
            say(f"{folder}: goes on after epoch {run.num_epochs}.")
        else:
            _rename_unreadable(folder)
        yield progress, run


def _check_siblings(folder: Path) -> None:
    """Raise VidclfError if a job of the same number and another name shows that the folder holds another sweep."""
    number = folder.name.partition("_")[0]
    namesakes = [
        path for path in folder.parent.glob(f"{number}_*") if path != folder and (path / "checkpoints").is_dir()
    ]
    if number.isdecimal() and namesakes:
        raise VidclfError(
            f"{folder.parent}: contains {namesakes[0].name}, a job of another sweep; job {number} of this sweep is "
            f"{folder.name}. Repeat that sweep's command to go on with it, or choose another hydra.sweep.dir."
        )


def read_job(folder: Path, config: Mapping[str, Any]) -> Progress:
    """Return how far the job of this configuration has come in `folder`; write nothing.

    Raises:
        VidclfError: it was trained with another configuration, a link leads out of the sweep, or its checkpoint is
            missing.
    """
    check_links(folder, within=folder.parent)
    checkpoints = folder / "checkpoints"
    readable = set()
    for name in ("best.ckpt", "last.ckpt"):
        if (checkpoints / name).is_file():
            with suppress(UnreadableError):
                description = describe_checkpoint(checkpoints / name)
                check_plain(description["config"])
                _check_same(folder, description.get("asked", description["config"]), config)
                readable.add(name)
    if (folder / "metrics.json").is_file():
        if "best.ckpt" not in readable:
            raise VidclfError(
                f"{folder}: has scores, but no readable checkpoints/best.ckpt. Delete the folder, or choose another "
                "hydra.sweep.dir."
            )
        return Progress.DONE
    best_is_damaged = "best.ckpt" not in readable and (checkpoints / "best.ckpt").is_file()
    return Progress.BEGUN if "last.ckpt" in readable and not best_is_damaged else Progress.NEW


def _check_same(folder: Path, old_config: Mapping[str, Any], new_config: Mapping[str, Any]) -> None:
    """Raise VidclfError if a job was trained with other settings than those of its command now."""
    if changed := changed_settings(_training_settings(old_config), _training_settings(new_config)):
        raise VidclfError(
            f"{folder}: this job was trained with other settings: {first_five(changed)}. Repeat the sweep's command "
            "unchanged to go on with it, or choose another hydra.sweep.dir."
        )


def _training_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with dotted keys, without those that name a place to write or describe a machine."""
    flat = flatten(json.loads(json.dumps(config, default=str)))  # as in a file: no tuples, and inf equals inf
    excluded = (*CALL_KEYS, *MEASURED_KEYS, FETCH)
    return {
        key: value
        for key, value in flat.items()
        if not any(key == name or key.startswith(f"{name}.") for name in excluded)
        and not (key.startswith("callbacks.") and key.endswith(".dirpath"))
        and value not in (None, {})
    }


def _rename_unreadable(folder: Path) -> None:
    """Rename checkpoints that are incomplete or not ours, so that training does not overwrite them."""
    for path in sorted((folder / "checkpoints").glob("*.ckpt")):
        try:
            describe_checkpoint(path)
        except UnreadableError:
            path.replace(path.with_name(f"{path.name}.unreadable"))
            say(f"{path}: cannot be read; renamed to {path.name}.unreadable.")

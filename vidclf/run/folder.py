"""A run's folder: written by train, read by everything after it.

.hydra/                  the configuration and the overrides, as Hydra writes them; nothing reads them
checkpoints/best.ckpt    the head at its lowest validation loss, and a description of the run: all that a run is
checkpoints/last.ckpt    to resume from
tensorboard/             losses, accuracies, sheets of views, the confusion matrix; in best/ what HParams shows
split.csv                the side of every video
metrics.json             validation scores of the best checkpoint
predictions.csv          and what it makes of each validation video
heads.csv                of all heads, where the best of several was chosen
failed.csv               damaged videos that were left out
error.txt                why a job of a sweep has failed
test/                    what evaluate found
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidclf.contracts import Video
from vidclf.errors import VidclfError, VideoError
from vidclf.run.trust import walk
from vidclf.system.disk import write_csv, write_json
from vidclf.system.terminal import say

Failed = Mapping[int, VideoError]  # by position in the videos
DESCRIPTION = "vidclf"  # the key in a checkpoint
FORMAT = 2  # of a description; the first had no number
# Classes that have moved since runs named them.
MOVED = {
    "vidclf.data.datasets.ucf101.Official": "vidclf.data.splits.Official",
    "vidclf.evaluation.sheets.ViewSheets": "vidclf.evaluation.figures.ViewSheets",
}
DESCRIBED = {"class_names": list, "config": dict, "split_fingerprint": str, "weights_hash": str}  # and read back


class UnreadableError(VidclfError):
    """A file is no checkpoint of vidclf, or a damaged one."""


@dataclass(frozen=True)
class Run:
    """A trained run, as the checkpoint at `path` tells it; `num_epochs` were trained when that was written."""

    path: Path
    num_epochs: int
    state_dict: dict[str, Any]
    callbacks: dict[str, dict[str, Any]]  # their states
    class_names: list[str]
    config: dict[str, Any]
    split_fingerprint: str
    weights_hash: str

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.path.absolute().parent.parent


def load_run(path: Path) -> Run:
    """Return the run that `path` names, at its best.

    Raises:
        VidclfError: it names none, or its checkpoint cannot be read.
    """
    return load_checkpoint(checkpoint_of(path))


def load_best(folder: Path, num_steps: int, classifier: nn.Module) -> Run:
    """Load what was trained into `folder` in `num_steps`, at its best, into the classifier; return the run.

    Raises:
        VidclfError: nothing was kept.
    """
    if not (folder / "checkpoints" / "best.ckpt").is_file():
        raise VidclfError(
            f"Training ended after {num_steps} steps, before its first validation, so nothing was kept. Give "
            "it more (trainer.max_steps, trainer.max_epochs, +trainer.max_time), or validate more often "
            "(+trainer.val_check_interval)."
        )
    run = load_run(folder)
    load_trained(run, classifier)
    return run


def load_checkpoint(path: Path) -> Run:
    """Return the run that `path`, in its folder checkpoints/, is of.

    Raises:
        VidclfError: it cannot be read, or was not written by this edition of vidclf.
    """
    checkpoint = read_checkpoint(path)
    known = {field: checkpoint[DESCRIPTION][field] for field in DESCRIBED}
    return Run(path, checkpoint["epoch"] + 1, checkpoint["state_dict"], checkpoint["callbacks"], **known)


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of its run, such as `config` and `class_names`; its weights stay on the disk.

    Raises:
        VidclfError: it cannot be read, or was not written by this edition of vidclf.
    """
    return read_checkpoint(path, mmap=True)[DESCRIPTION]


def read_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """Return what is in a checkpoint of vidclf; with `mmap` its weights stay on the disk.

    Raises:
        VidclfError: it cannot be read, or was not written by this edition of vidclf.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        about = checkpoint[DESCRIPTION]
        shapes: list[tuple[Any, type]] = [(about[field], kind) for field, kind in DESCRIBED.items()]
        shapes += [(checkpoint[key], kind) for key, kind in (("epoch", int), ("state_dict", dict), ("callbacks", dict))]
        shapes += [(state, dict) for state in checkpoint["callbacks"].values()]
        if not all(isinstance(value, kind) for value, kind in shapes):
            raise KeyError(DESCRIPTION)
    except Exception as error:  # whatever pickle, zip and tensors have to say of it
        raise UnreadableError(
            f"{path}: no checkpoint of vidclf, or a damaged one ({type(error).__name__}). Train the run again."
        ) from error
    if about.get("format") != FORMAT:
        raise VidclfError(
            f"{path}: written by {'another' if 'format' in about else 'the first'} version of vidclf (format "
            f"{about.get('format', 1)}; this one reads {FORMAT}). Use the version that wrote it, or train it again."
        )
    for config in (about["config"], about.get("asked")):
        for _, node in walk(config if isinstance(config, dict) else {}):
            if isinstance(node, dict) and isinstance(node.get("_target_"), str):
                node["_target_"] = MOVED.get(node["_target_"], node["_target_"])
    return checkpoint


def checkpoint_of(path: Path) -> Path:
    """Return the best checkpoint of the run that `path` names: its folder, a checkpoint in it, or a link to either.

    Raises:
        VidclfError: it names none.
    """
    best = _checkpoints(path) / "best.ckpt"
    if best.is_file():
        return best
    if not path.exists():
        raise VidclfError(f"run={path}: there is no such folder. Give one that vidclf train wrote, under runs/.")
    if path.is_file():
        raise VidclfError(f"run={path}: no checkpoint of a run. Give the folder that vidclf train wrote, under runs/.")
    there = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing"
    raise VidclfError(
        f"run={path}: no run; a run has checkpoints/best.ckpt, this folder has {there}. "
        "Give one that vidclf train wrote, under runs/."
    )


def checkpoint_to_resume(path: Path) -> Path:
    """Return the checkpoint to go on from: last.ckpt of the run that `path` names, or another one that it names.

    Raises:
        VidclfError: there is none.
    """
    named = path.resolve()
    last = _checkpoints(path) / "last.ckpt"
    chosen = named if named.is_file() and named.name != "best.ckpt" else last
    if chosen.is_file():
        return chosen
    if last.with_name("best.ckpt").is_file():
        raise VidclfError(
            f"resume={path}: it has no last.ckpt to go on from; runs of head=grid, knn and logistic leave none. "
            "Train anew."
        )
    raise VidclfError(f"resume={path}: neither a checkpoint nor a run. Give a run's folder or its last.ckpt.")


def _checkpoints(path: Path) -> Path:
    """Return the folder of checkpoints that `path` means; for a file that lies in none, where there are none."""
    above = path.resolve().parent
    return above if path.is_file() and above.name == "checkpoints" else path / "checkpoints"


def results_folder(run: Run, name: str) -> Path:
    """Return a new folder in the run's, or one that is there.

    Raises:
        VidclfError: a link is there, which leads who knows where.
    """
    folder = run.folder / name
    if folder.is_symlink():
        raise VidclfError(f"{folder}: it is a link, and results are written into the run's own folder. Remove it.")
    folder.mkdir(exist_ok=True)
    return folder


def load_trained(run: Run, classifier: nn.Module) -> None:
    """Load the run's head, and its backbone if that was trained, strictly."""
    was_trained = any(name.startswith("backbone.") for name in run.state_dict)
    is_trained = any(
        parameter.requires_grad for name, parameter in classifier.named_parameters() if name.startswith("backbone.")
    )
    if was_trained != is_trained:
        raise VidclfError(
            f"The backbone of {run.folder} was {'trained' if was_trained else 'frozen'}, and it would be "
            f"{'trained' if is_trained else 'frozen'} here; leave out backbone.trainable=..."
        )
    # A loss of one's own may hold numbers, which a classifier that is not trained has no place for.
    wanted = [name for name in run.state_dict if hasattr(classifier, "loss") or not name.startswith("loss.")]
    try:
        classifier.load_state_dict({name: run.state_dict[name] for name in wanted})
    except RuntimeError as error:
        raise VidclfError(
            f"The head does not fit the checkpoint of {run.folder}; leave out head=... ({error})"
        ) from error


def write_scores(folder: Path, metrics: Mapping[str, float], videos: Sequence[Video], failed: Failed) -> None:
    """Write metrics.json (flat, sorted, finite, without times or paths) and failed.csv: who was left out, and why."""
    rows = [(videos[index].name, str(error)) for index, error in sorted(failed.items())]
    write_csv(folder / "failed.csv", ("video", "reason"), rows)
    write_json(folder / "metrics.json", metrics)  # last: where it is, all of it is
    for error in failed.values():
        say(f"left out: {error}")

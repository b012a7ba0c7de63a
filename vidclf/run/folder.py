"""Read and write a run's folder.

.hydra/                  the configuration and the overrides, as Hydra writes them; vidclf does not read them
checkpoints/best.ckpt    the head at its lowest validation loss, and a complete description of the run
checkpoints/last.ckpt    the last epoch, to resume from
tensorboard/             losses, accuracies, sheets of views, the confusion matrix; best/ for HParams
split.csv                the part of every video, its content and its segment
metrics.json             validation scores of the best checkpoint
predictions.csv          its predictions of the validation videos
heads.csv                scores of all heads, if the best of several was chosen
failed.csv               damaged videos that were skipped
error.txt                why a job of a sweep failed
test/                    results of vidclf evaluate
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vidclf.contracts import Video
from vidclf.errors import VidclfError, VideoError
from vidclf.run.checkpoints import DESCRIBED, DESCRIPTION, read_checkpoint
from vidclf.system.disk import check_links, write_csv, write_json
from vidclf.system.terminal import say

Failed = Mapping[int, VideoError]  # by position in the videos


@dataclass(frozen=True)
class Run:
    """A trained run, read from the checkpoint at `path`, which was written after `num_epochs`.

    `callbacks` are the states of the Trainer's callbacks.
    """

    path: Path
    num_epochs: int
    state_dict: dict[str, Any]
    callbacks: dict[str, dict[str, Any]]
    class_names: list[str]
    config: dict[str, Any]
    split_fingerprint: str
    weights_hash: str
    split_digest: str = ""  # SHA-256 of split.csv; "": of an older run, whose split.csv has no contents

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.path.absolute().parent.parent


def load_best(folder: Path, num_steps: int, classifier: nn.Module) -> Run:
    """Load the best checkpoint of a training into its classifier; return the run."""
    if not (folder / "checkpoints" / "best.ckpt").is_file():
        raise VidclfError(
            f"Training ended after {num_steps} steps, before its first validation, so nothing was kept. Train longer "
            "(trainer.max_steps, trainer.max_epochs, +trainer.max_time), or validate more often "
            "(+trainer.val_check_interval)."
        )
    run = load_checkpoint(folder / "checkpoints" / "best.ckpt")
    load_trained(run, classifier)
    return run


def load_checkpoint(path: Path) -> Run:
    """Return the run of a checkpoint in its folder checkpoints/; see `read_checkpoint` and `check_links` for errors."""
    check_links(path.absolute().parent.parent)
    checkpoint = read_checkpoint(path)
    fields = (*DESCRIBED, "split_digest")
    description = {field: value for field, value in checkpoint[DESCRIPTION].items() if field in fields}
    return Run(path, checkpoint["epoch"] + 1, checkpoint["state_dict"], checkpoint["callbacks"], **description)


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """Return the description of the run in a checkpoint (`config`, `class_names`, ...) without loading its weights."""
    return read_checkpoint(path, mmap=True)[DESCRIPTION]


def checkpoint_of(path: Path) -> Path:
    """Return the best checkpoint of the run that `path` names: its folder, a checkpoint in it, or a link to either."""
    best = _checkpoints(path) / "best.ckpt"
    if best.is_file():
        return best
    if not path.exists():
        problem = "no such folder"
    elif path.is_file():
        problem = "not a checkpoint of a run"
    else:
        content = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing"
        problem = f"not a run; a run has checkpoints/best.ckpt, this folder has {content}"
    raise VidclfError(f"run={path}: {problem}. Name a folder that vidclf train wrote, under runs/.")


def checkpoint_to_resume(path: Path) -> Path:
    """Return the checkpoint to go on from: last.ckpt of the run that `path` names, or another one that it names."""
    named = path.resolve()
    last = _checkpoints(path) / "last.ckpt"
    chosen = named if named.is_file() and named.name != "best.ckpt" else last
    if chosen.is_file():
        return chosen
    if last.with_name("best.ckpt").is_file():
        raise VidclfError(
            f"resume={path}: it has no last.ckpt to go on from; runs of head=grid, knn and logistic write none. "
            "Train again."
        )
    raise VidclfError(f"resume={path}: neither a checkpoint nor a run. Name a run's folder or its last.ckpt.")


def _checkpoints(path: Path) -> Path:
    """Return the folder of checkpoints that a run's folder, or a checkpoint, belongs to; it may not exist."""
    parent = path.resolve().parent
    return parent if path.is_file() and parent.name == "checkpoints" else path / "checkpoints"


def shown_folder(folder: Path) -> str:
    """Return a folder as a person would type it here: below the current folder, relative to it."""
    return shlex.quote(str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder))


def results_folder(run: Run, name: str) -> Path:
    """Return a folder for results in the run's folder, created if it is missing."""
    folder = run.folder / name
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
            f"The backbone of {run.folder} was {'trained' if was_trained else 'frozen'}, but would be "
            f"{'trained' if is_trained else 'frozen'} here. Leave out backbone.trainable=..."
        )
    # The weights of a loss have no place in a classifier that is not trained.
    names = [name for name in run.state_dict if hasattr(classifier, "loss") or not name.startswith("loss.")]
    try:
        classifier.load_state_dict({name: run.state_dict[name] for name in names})
    except RuntimeError as error:
        raise VidclfError(
            f"The head does not fit the checkpoint of {run.folder}. Leave out head=... ({error})"
        ) from error


def write_scores(folder: Path, metrics: Mapping[str, float], videos: Sequence[Video], failed: Failed) -> None:
    """Write metrics.json (flat, sorted, finite, without times or paths) and failed.csv (skipped videos and why)."""
    rows = [(videos[index].name, str(error)) for index, error in sorted(failed.items())]
    write_csv(folder / "failed.csv", ("video", "reason"), rows)
    write_json(folder / "metrics.json", metrics)  # last: it marks the results as complete
    for error in failed.values():
        say(f"left out: {error}")

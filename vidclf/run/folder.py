"""A run's folder: written by train, read by everything after it.

.hydra/                  the configuration and the overrides, as Hydra writes them
checkpoints/best.ckpt    the head at its lowest validation loss, and a description of the run
checkpoints/last.ckpt    to resume from
tensorboard/             losses, accuracies, sheets of views, the confusion matrix
split.csv                the side of every video
metrics.json             validation scores of the best checkpoint
failed.csv               damaged videos that were left out
test/                    what evaluate found
"""

import csv
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from vidclf.contracts import Video, VideoError
from vidclf.errors import VidclfError

DESCRIPTION = "vidclf"  # the key in a checkpoint
DESCRIBED = ("class_names", "config", "split_fingerprint", "weights_hash")  # of it, what a Run is read from


class Describe(Callback):
    """Writes into every checkpoint what it needs to be understood: see `describe`."""

    def __init__(self, config: dict[str, Any], overrides: list[str]) -> None:
        self.config, self.overrides = config, overrides

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        checkpoint[DESCRIPTION] = {
            "class_names": list(datamodule.dataset.class_names),
            "config": self.config,
            "overrides": self.overrides,
            "versions": versions(),
            "split_fingerprint": datamodule.sides.fingerprint,
            "weights_hash": datamodule.weights_hash,
        }


@dataclass(frozen=True)
class Run:
    """A trained run, as one of its checkpoints tells it; `num_epochs` were trained when that was written."""

    folder: Path
    num_epochs: int
    state_dict: dict[str, Any]
    class_names: list[str]
    config: dict[str, Any]
    split_fingerprint: str
    weights_hash: str


def versions() -> dict[str, str]:
    """Return the versions of the libraries that a run's numbers come from."""
    from importlib.metadata import version

    return {name: version(name) for name in ("vidclf", "torch", "torchvision", "lightning", "av")}


def load_run(folder: Path) -> Run:
    """Return the run in `folder`, at its best.

    Raises:
        VidclfError: the folder is no run, or its checkpoint cannot be read.
    """
    return load_checkpoint(checkpoint_of(folder))


def load_checkpoint(path: Path) -> Run:
    """Return the run that `path`, in its folder checkpoints/, is of.

    Raises:
        VidclfError: it cannot be read, or was not written by vidclf.
    """
    checkpoint = _read(path)
    known = {field: checkpoint[DESCRIPTION][field] for field in DESCRIBED}
    return Run(path.absolute().parent.parent, checkpoint["epoch"] + 1, checkpoint["state_dict"], **known)


def _read(path: Path) -> dict[str, Any]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not {*DESCRIBED} <= {*checkpoint[DESCRIPTION]}:
            raise KeyError(DESCRIPTION)
    except Exception as error:  # whatever pickle, zip and tensors have to say of it
        raise VidclfError(
            f"{path}: no checkpoint of vidclf, or a damaged one ({type(error).__name__}). Train the run again."
        ) from error
    return checkpoint


def checkpoint_of(folder: Path) -> Path:
    """Return the path of the run's best checkpoint.

    Raises:
        VidclfError: the folder is no run.
    """
    path = folder / "checkpoints" / "best.ckpt"
    if path.is_file():
        return path
    if not folder.is_dir():
        raise VidclfError(f"run={folder}: there is no such folder. Give one that vidclf train wrote, under runs/.")
    there = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
    raise VidclfError(
        f"run={folder}: no run; a run has checkpoints/best.ckpt, this folder has {there}. "
        "Give one that vidclf train wrote, under runs/."
    )


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
    try:
        classifier.load_state_dict(run.state_dict)
    except RuntimeError as error:
        raise VidclfError(
            f"The head does not fit the checkpoint of {run.folder}; leave out head=... ({error})"
        ) from error


def checkpoint_to_resume(path: Path) -> Path:
    """Return the checkpoint to go on from: `path`, or that of the run it names.

    Raises:
        VidclfError: there is none.
    """
    for candidate in (path, path / "checkpoints" / "last.ckpt"):
        if candidate.is_file():
            return candidate
    raise VidclfError(f"resume={path}: neither a checkpoint nor a run. Give a run's folder or its last.ckpt.")


def take_over(checkpoint: Path, folder: Path) -> Path:
    """Copy a checkpoint and those beside it into the run `folder` that goes on from it; return the copy.

    The copy says that all was written there: elsewhere Lightning would not know which epoch was best so far.
    """
    target = (folder / "checkpoints").resolve()
    if checkpoint.resolve().parent == target:
        return checkpoint
    shutil.copytree(checkpoint.parent, target)
    content = _read(checkpoint)
    for state in content["callbacks"].values():
        for key in {"best_model_path", "kth_best_model_path", "last_model_path"} & {*state}:
            state[key] = str(target / Path(state[key]).name)
        if "dirpath" in state:
            state["dirpath"] = str(target)
            state["best_k_models"] = {
                str(target / Path(path).name): score for path, score in state["best_k_models"].items()
            }
    torch.save(content, target / checkpoint.name)
    return target / checkpoint.name


def write_metrics(folder: Path, metrics: Mapping[str, float]) -> None:
    """Write metrics.json: flat, sorted, without times or paths."""
    (folder / "metrics.json").write_text(json.dumps(dict(metrics), indent=2, sort_keys=True) + "\n")


def write_failed(folder: Path, videos: list[Video], failed: Mapping[int, VideoError]) -> None:
    """Write failed.csv: the videos that were left out, and why."""
    rows = [(videos[index].name, str(error)) for index, error in sorted(failed.items())]
    write_csv(folder / "failed.csv", ("video", "reason"), rows)


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table, UTF-8."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)

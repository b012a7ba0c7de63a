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
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf
from torch import nn

from vidclf.data.video import Video, VideoError
from vidclf.errors import VidclfError

DESCRIPTION = "vidclf"  # the key in a checkpoint


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
    """A trained run, as its best checkpoint tells it."""

    folder: Path
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
    """Return the run in `folder`.

    Raises:
        VidclfError: the folder is no run, or its checkpoint cannot be read.
    """
    path = checkpoint_of(folder)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        known = checkpoint[DESCRIPTION]
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError) as error:
        raise VidclfError(
            f"{path}: no checkpoint of vidclf, or a damaged one ({type(error).__name__}). Train the run again."
        ) from error
    return Run(
        folder,
        checkpoint["state_dict"],
        known["class_names"],
        known["config"],
        known["split_fingerprint"],
        known["weights_hash"],
    )


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


def saved_overrides(folder: Path, explicit: Iterable[str]) -> list[str]:
    """Return the overrides that the run was trained with, without those that `explicit` ones replace.

    Choosing another option of a group (`sampling=dense`) also drops what was set inside the old one.
    """
    checkpoint_of(folder)
    path = folder / ".hydra" / "overrides.yaml"
    if not path.is_file():
        raise VidclfError(f"{path}: missing; evaluate and predict need the overrides of the run. Train it again.")
    replaced = {override.partition("=")[0].lstrip("+~") for override in explicit}
    saved = [str(override) for override in OmegaConf.load(path)]
    return [override for override in saved if not _is_replaced(override, replaced)]


def load_head(run: Run, classifier: nn.Module) -> None:
    """Load the run's head, strictly."""
    try:
        classifier.load_state_dict(run.state_dict)
    except RuntimeError as error:
        raise VidclfError(
            f"The head does not fit the checkpoint of {run.folder}; leave out head=... ({error})"
        ) from error


def checkpoint_to_resume(path: str | None) -> str | None:
    """Return the checkpoint to go on from: `path`, or that of the run it names.

    Raises:
        VidclfError: there is none.
    """
    if path is None:
        return None
    for candidate in (Path(path), Path(path) / "checkpoints" / "last.ckpt"):
        if candidate.is_file():
            return str(candidate)
    raise VidclfError(f"resume={path}: neither a checkpoint nor a run. Give a run's folder or its last.ckpt.")


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


def _is_replaced(override: str, replaced: set[str]) -> bool:
    key = override.partition("=")[0].lstrip("+~")
    return any(key == name or key.startswith(f"{name}.") for name in replaced)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"

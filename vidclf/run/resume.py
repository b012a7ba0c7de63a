"""Going on with a run: what must be as it was, and its checkpoints in the folder of the run that goes on."""

import io
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from vidclf.data.splits import Split
from vidclf.errors import VidclfError
from vidclf.run.compatible import TRAINED_BY, TRAINER, check_classes, check_weights, flatten
from vidclf.run.config import as_yaml
from vidclf.run.folder import Run, read_checkpoint
from vidclf.system.disk import write_atomically
from vidclf.system.ranks import is_first
from vidclf.system.text import first_five


def is_complete(run: Run, config: Mapping[str, Any], callbacks: Iterable[Callback]) -> bool:
    """Whether nothing of the training is left: all epochs are done, or early stopping has ended it, and would again.

    Raises:
        VidclfError: the run is complete and scored.
    """
    settings = config["trainer"]
    ended = 0 <= (-1 if settings["max_epochs"] is None else settings["max_epochs"]) <= run.num_epochs
    for callback in callbacks:
        state = run.callbacks.get(callback.state_key)
        if isinstance(callback, EarlyStopping) and state and run.num_epochs >= (settings.get("min_epochs") or 0):
            patience = (EarlyStoppingReason.NOT_STOPPED.value, EarlyStoppingReason.PATIENCE_EXHAUSTED.value)
            ended |= state.get("wait_count", 0) >= callback.patience or state.get("stopping_reason") not in patience
    if ended and (run.folder / "metrics.json").is_file():
        raise VidclfError(
            f"resume: {run.folder} is complete and scored, with {run.num_epochs} of trainer.max_epochs="
            f"{settings['max_epochs']} trained. Ask for more epochs, or for more patience of early stopping."
        )
    return ended


def check_resumed(run: Run, config: Mapping[str, Any], class_names: list[str], split: Split, weights_hash: str) -> None:
    """Raise VidclfError if training cannot go on from `run` as if it had never stopped."""
    check_classes(run, class_names)
    check_weights(run, weights_hash)
    num_epochs, planned = (one["trainer"]["max_epochs"] for one in (config, run.config))
    if num_epochs is not None and 0 <= num_epochs < run.num_epochs:
        raise VidclfError(f"trainer.max_epochs={num_epochs}: {run.folder} has trained {run.num_epochs} already.")
    if num_epochs != planned and not str(config["scheduler"]["_target_"]).endswith(".constant"):
        raise VidclfError(
            f"trainer.max_epochs={num_epochs}: the learning rate of {run.folder} was planned for {planned} epochs. "
            f"Give trainer.max_epochs={planned}, or train anew."
        )
    was, now = (_of_training(one) for one in (run.config, config))
    changed = [
        f"{key}={now.get(key)} (was {was.get(key)})"
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key)
    ]
    if split.fingerprint != run.split_fingerprint:
        changed.append("the videos or their sides")
    if changed:
        raise VidclfError(
            f"resume: {run.folder} was trained otherwise: {first_five(changed)}. "
            "Give the settings and the data of that run, or train anew without resume."
        )


def _of_training(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changes what is learned, dotted; data and weights may have moved, for they are compared."""
    callbacks = config.get("callbacks") or {}
    kept = {key: config.get(key) for key in TRAINED_BY if key != "dataset"}
    kept["trainer"] = {key: config["trainer"].get(key) for key in TRAINER}
    kept["callbacks"] = {k: v for k, v in callbacks.items() if str(v.get("_target_")).endswith("WeightAveraging")}
    return {key: value for key, value in flatten(kept).items() if key not in ("backbone.weights", "backbone.fetch")}


def take_over(run: Run, folder: Path, config: Mapping[str, Any], trainer: L.Trainer) -> Path:
    """Copy a run's checkpoints into the run `folder` that goes on from it; return the one to go on from.

    It says that all was written there: elsewhere Lightning would not know which epoch was best so far, and it removes
    files that a state names. What callbacks are set to holds, not what their states say they were. Of several
    processes, the first does it; Hydra's copy of the configuration becomes the one that is trained by.
    """
    path = (folder / "checkpoints" / run.path.name).resolve()
    if is_first():
        _take_over(run, path, trainer.callbacks)  # type: ignore[attr-defined]
        if (folder / ".hydra").is_dir():
            (folder / ".hydra" / "config.yaml").write_text(as_yaml(config), encoding="utf-8")
    trainer.strategy.barrier()
    return path


def _take_over(run: Run, path: Path, callbacks: Iterable[Callback]) -> None:
    target = path.parent
    if run.path.resolve().parent != target:
        target.mkdir(parents=True)
        for other in run.path.parent.glob("*.ckpt"):
            if other.is_file():
                shutil.copyfile(other, target / other.name)
    here = {callback.state_key: callback for callback in callbacks}
    content, written = read_checkpoint(run.path), io.BytesIO()
    content["callbacks"] = {
        key: _at_home(state, here[key], target) for key, state in content["callbacks"].items() if key in here
    }
    torch.save(content, written)
    write_atomically(path, written.getvalue())


def _at_home(state: dict[str, Any], callback: Callback, folder: Path) -> dict[str, Any]:
    """Return the state of a callback as if it had been in `folder` from the beginning, and set as it is now."""

    def moved(path: object) -> str:
        name = Path(str(path)).name
        return str(folder / name) if name.endswith(".ckpt") else ""

    changed: dict[str, Any] = {key: moved(value) for key, value in state.items() if key.endswith("_model_path")}
    if isinstance(callback, EarlyStopping):
        changed["patience"] = callback.patience
    if isinstance(callback, ModelCheckpoint):
        changed["dirpath"] = str(folder)
        changed["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}
    return {**state, **changed}

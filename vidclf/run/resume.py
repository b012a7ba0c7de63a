"""Resume a run: what must be unchanged, and its checkpoints in the folder where it goes on."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from vidclf.data.splits import Split
from vidclf.errors import VidclfError
from vidclf.run.compatible import TRAINED_BY, TRAINER, check_classes, check_weights, flatten
from vidclf.run.folder import Run
from vidclf.system.ranks import barrier, is_rank_zero
from vidclf.system.text import first_five

PREVIOUS = "metrics.previous.json"  # scores of a run that was resumed and is not scored again yet


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


def move_in(run: Run, folder: Path) -> None:
    """Prepare the folder that a resumed run goes on in; rank zero does it for all processes.

    In the run's own folder, its scores stand aside until new ones are written. Into another folder, its checkpoints
    are copied: the best so far stays the best until a better epoch replaces it.
    """
    target = folder / "checkpoints"
    if is_rank_zero() and run.path.resolve().parent == target.resolve():
        if (folder / "metrics.json").is_file():
            (folder / "metrics.json").replace(folder / PREVIOUS)
    elif is_rank_zero():
        target.mkdir(parents=True, exist_ok=True)
        for path in run.path.parent.glob("*.ckpt"):
            if path.is_file() and path.name != run.path.name:
                shutil.copyfile(path, target / path.name)
    barrier()


def relocate_states(states: dict[str, dict[str, Any]], callbacks: Iterable[Callback], folder: Path) -> None:
    """Change the states of a checkpoint's callbacks, in place, as if everything had been written to `folder`.

    Lightning forgets which epoch was best so far where a folder has moved, and deletes files that a state names. What
    callbacks are set to now holds, not what their states say.
    """

    def moved(path: object) -> str:
        name = Path(str(path)).name
        return str(folder / name) if name.endswith(".ckpt") else ""

    by_key = {callback.state_key: callback for callback in callbacks}
    for key in [*states]:
        state, callback = states[key], by_key.get(key)
        if callback is None:
            del states[key]
            continue
        state |= {name: moved(value) for name, value in state.items() if name.endswith("_model_path")}
        if isinstance(callback, EarlyStopping):
            state["patience"] = callback.patience
        if isinstance(callback, ModelCheckpoint):
            state["dirpath"] = str(folder)
            state["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}

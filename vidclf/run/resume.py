"""Resume a run: check that its settings are unchanged, and prepare the folder in which it goes on."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from vidclf.data.splits import Split
from vidclf.errors import VidclfError
from vidclf.run.checkpoints import reading
from vidclf.run.compatible import TRAINED_BY, TRAINER, changed_settings, check_classes, check_weights, flatten
from vidclf.run.folder import Run
from vidclf.system.ranks import barrier, is_rank_zero
from vidclf.system.text import first_five

PREVIOUS = "metrics.previous.json"  # scores of a resumed run, until it is scored again


def is_complete(run: Run, config: Mapping[str, Any], callbacks: Iterable[Callback]) -> bool:
    """Return whether training is over: all epochs are done, or early stopping has ended it and would do so again.

    Raises:
        VidclfError: the run is complete and scored.
    """
    settings = config["trainer"]
    max_epochs = settings["max_epochs"]
    ended = max_epochs is not None and 0 <= max_epochs <= run.num_epochs
    for callback in callbacks:
        state = run.callbacks.get(callback.state_key)
        if isinstance(callback, EarlyStopping) and state and run.num_epochs >= (settings.get("min_epochs") or 0):
            may_go_on = (EarlyStoppingReason.NOT_STOPPED.value, EarlyStoppingReason.PATIENCE_EXHAUSTED.value)
            with reading(run.path):
                ended |= int(state.get("wait_count", 0)) >= callback.patience
                ended |= state.get("stopping_reason") not in may_go_on
    if ended and (run.folder / "metrics.json").is_file():
        raise VidclfError(
            f"resume: {run.folder} is complete and scored, with {run.num_epochs} of trainer.max_epochs="
            f"{max_epochs} trained. Set more epochs, or more patience of early stopping."
        )
    return ended


def check_resumed(
    run: Run, config: Mapping[str, Any], class_names: list[str], split: Split, digest: str, weights_hash: str
) -> None:
    """Raise VidclfError if training could not go on from `run` as if it had never stopped.

    `digest` is of split.csv, which names the content of every video.
    """
    check_classes(run, class_names)
    check_weights(run, weights_hash)
    num_epochs, planned = config["trainer"]["max_epochs"], run.config["trainer"]["max_epochs"]
    if num_epochs is not None and 0 <= num_epochs < run.num_epochs:
        raise VidclfError(f"trainer.max_epochs={num_epochs}: {run.folder} has trained {run.num_epochs} already.")
    if num_epochs != planned and not str(config["scheduler"]["_target_"]).endswith(".constant"):
        raise VidclfError(
            f"trainer.max_epochs={num_epochs}: the learning rate of {run.folder} was planned for {planned} epochs. "
            f"Set trainer.max_epochs={planned}, or train again without resume."
        )
    changed = changed_settings(_training_settings(run.config), _training_settings(config))
    if split.fingerprint != run.split_fingerprint or run.split_digest not in ("", digest):
        changed.append("the videos, their contents or their parts")
    if changed:
        raise VidclfError(
            f"resume: {run.folder} was trained with other settings or data: {first_five(changed)}. "
            "Use those of the run, or train again without resume."
        )


def _training_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that change what is learned, with dotted keys; the paths of data and weights may change."""
    callbacks = config.get("callbacks") or {}
    settings = {key: config.get(key) for key in TRAINED_BY if key != "dataset"}
    settings["trainer"] = {key: config["trainer"].get(key) for key in TRAINER}
    settings["callbacks"] = {
        name: node for name, node in callbacks.items() if str(node.get("_target_")).endswith("WeightAveraging")
    }
    return {key: value for key, value in flatten(settings).items() if key not in ("backbone.weights", "backbone.fetch")}


def prepare_folder(run: Run, folder: Path) -> None:
    """Prepare the folder in which a resumed run goes on; rank zero does it for all processes.

    In the folder of the run, its scores are renamed until new ones are written. Into another folder its checkpoints
    are copied, so that the best so far stays the best until a better epoch replaces it.
    """
    target = folder / "checkpoints"
    goes_on_in_place = run.path.resolve().parent == target.resolve()
    if is_rank_zero() and goes_on_in_place and (folder / "metrics.json").is_file():
        (folder / "metrics.json").replace(folder / PREVIOUS)
    if is_rank_zero() and not goes_on_in_place:
        target.mkdir(parents=True, exist_ok=True)
        for path in run.path.parent.glob("*.ckpt"):
            if path.is_file() and path.name != run.path.name:
                shutil.copyfile(path, target / path.name)
    barrier()


def relocate_states(states: dict[str, dict[str, Any]], callbacks: Iterable[Callback], folder: Path) -> None:
    """Point the states of a checkpoint's callbacks, in place, at files in `folder`; current settings replace theirs.

    When a folder has moved, Lightning forgets which epoch was best, and deletes files that a state names.
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

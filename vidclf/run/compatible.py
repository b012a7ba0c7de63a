"""What must agree between a run and what it is used on, and what its results are called where they do not."""

import csv
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vidclf.errors import VidclfError
from vidclf.run.config import key_of, value_at
from vidclf.run.folder import Run
from vidclf.system.terminal import say
from vidclf.system.text import first_five

if TYPE_CHECKING:  # scikit-learn, which splits, takes a second
    from vidclf.data.corpus import Corpus
    from vidclf.data.splits import Split

# What changes a score.
SCORED_BY = ("dataset", "split", "sampling", "transform", "backbone", "scaling", "head", "aggregation")
TRAINED_BY = (
    *SCORED_BY,
    "optimizer",
    "scheduler",
    "seed",
    "batch_size",
    "augmentation",
    "mixing",
    "loss",
    "layer_decay",
)
TRAINER = (  # settings of Lightning's Trainer that change what is learned
    *("precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "max_steps"),
    *("limit_train_batches", "overfit_batches", "reload_dataloaders_every_n_epochs", "sync_batchnorm", "plugins"),
)
MAX_NAME_BYTES = 200  # of a folder; file systems allow 255


def differences(run: Run, config: Mapping[str, Any], explicit: Sequence[str]) -> list[str]:
    """Return the explicit overrides that make scoring differ from the run's own."""
    keys = [(override, key_of(override)) for override in explicit]
    scored = [(override, key) for override, key in keys if key.partition(".")[0] in SCORED_BY]
    return [override for override, key in scored if value_at(config, key) != value_at(run.config, key)]


def results_name(part: str, changed: Iterable[str]) -> str:
    """Return the folder that results go to: the part, and what differs from the run's own settings."""
    name = "-".join([part, *(re.sub(r"[^\w.]+", "-", override).strip("-") for override in changed)])
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name.encode()[: MAX_NAME_BYTES - 9].decode(errors="ignore") + f"-{digest}"


def check_classes(run: Run, class_names: list[str]) -> None:
    """Raise VidclfError if the data set's classes are not the run's, in order."""
    if class_names == run.class_names:
        return
    if set(class_names) == set(run.class_names):
        raise VidclfError(
            f"The classes of {run.folder} are the data set's in another order: {first_five(run.class_names)} in the "
            f"run and {first_five(class_names)} in the data set. Use the lists (classInd.txt) that it was trained with."
        )
    only_run = [name for name in run.class_names if name not in class_names]
    only_data = [name for name in class_names if name not in run.class_names]
    raise VidclfError(
        f"The run {run.folder} knows {len(run.class_names)} classes, the data set has {len(class_names)}: "
        f"only the run has {first_five(only_run)}; only the data set has {first_five(only_data)}. "
        "Point dataset.root at the run's data, or choose its classes with dataset.classes=[...]."
    )


def check_weights(run: Run, weights_hash: str) -> None:
    """Raise VidclfError if the backbone's weights are not those that the head was trained on."""
    if weights_hash != run.weights_hash:
        raise VidclfError(
            f"The head of {run.folder} was trained on a backbone with weights {run.weights_hash[:8]}, "
            f"these are {weights_hash[:8]}. Use the run's own backbone, its weights file and its backbone.precision "
            "(auto is bfloat16 on one machine and float32 on another: name the one it was trained with)."
        )


def check_split(run: Run, split: "Split", part: str) -> None:
    """Raise VidclfError if videos of `part` were on another side when the run was trained; say what else differs."""
    if split.fingerprint == run.split_fingerprint:
        return
    path = run.folder / "split.csv"
    if not path.is_file():
        raise VidclfError(
            f"{path}: missing, and the data's split is not the run's, so what it was trained on is not known. "
            "Copy the run's whole folder, or train it again."
        )
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        was = {row["video"]: row["side"] for row in csv.DictReader(file)}
    now = dict(split.rows())
    moved = [name for name, side in now.items() if part in side.split("+") and was.get(name, side) != side]
    if moved or (now == was and part != "test"):
        raise VidclfError(
            f"part={part}: {len(moved) or 'single'} views or videos of it were on another side when {run.folder} was "
            f"trained: {first_five(moved)}. Score them with the split and the sampling of the run."
        )
    gone, new = was.keys() - now.keys(), now.keys() - was.keys()
    if gone or new:
        say(f"The data differ from the run's: {len(gone)} videos are gone, {len(new)} are new.")


def check_scored(run: Run, corpus: "Corpus", part: str) -> None:
    """Raise VidclfError if a part of the data is not what the run may be scored on."""
    check_classes(run, corpus.class_names)
    check_split(run, corpus.split, part)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
    if not isinstance(config, Mapping):
        return {prefix: config}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat

"""Check that a run fits the data and settings it is used with, and name results after settings that differ."""

import csv
import hashlib
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vidclf.errors import VidclfError
from vidclf.run.config import key_of, value_at
from vidclf.run.folder import Run
from vidclf.system.disk import csv_bytes
from vidclf.system.terminal import say
from vidclf.system.text import first_five, sanitize

if TYPE_CHECKING:  # scikit-learn, which splits, takes a second
    from vidclf.data.corpus import Corpus

# These change a score.
SCORED_BY = ("dataset", "split", "sampling", "transform", "backbone", "scaling", "head", "aggregation")
TRAINED_BY = (
    *SCORED_BY,
    *("optimizer", "scheduler", "seed", "train_groups", "batch_size", "augmentation", "mixing", "loss", "layer_decay"),
)
TRAINER = (  # arguments of Lightning's Trainer that change what is learned
    *("precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "max_steps"),
    *("limit_train_batches", "overfit_batches", "reload_dataloaders_every_n_epochs", "sync_batchnorm", "plugins"),
)
PLACES = ("dataset.root", "dataset.lists", "split.lists", "backbone.weights")  # paths of what is compared by content
MAX_NAME_BYTES = 200  # of a folder; file systems allow 255
SEGMENT = {"start_s": 0.0, "end_s": math.inf}  # columns of split.csv, and what an empty one means
MAX_SHOWN = 200  # characters of a setting in a message


def differences(run: Run, config: Mapping[str, Any], explicit: Sequence[str], same_videos: bool) -> list[str]:
    """Return the explicit overrides that change a setting of the run which affects scores.

    A path affects none if the videos there are the same, as files that have moved; weights are compared by their hash.
    """
    scoring = [override for override in explicit if key_of(override).partition(".")[0] in (*SCORED_BY, "timeline")]
    if same_videos:
        scoring = [override for override in scoring if key_of(override) not in PLACES]
    return [text for text in scoring if value_at(config, key_of(text)) != value_at(run.config, key_of(text))]


def results_name(part: str, changed: Iterable[str]) -> str:
    """Return the name of the folder for results: the part, and the overrides that differ from the run."""
    name = "-".join([part, *(re.sub(r"[^\w.]+", "-", override).strip("-") for override in changed)])
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name.encode()[: MAX_NAME_BYTES - 9].decode(errors="ignore") + f"-{digest}"


def check_classes(run: Run, class_names: list[str]) -> None:
    """Raise VidclfError if the data set's classes, in order, are not those of the run."""
    if class_names == run.class_names:
        return
    if set(class_names) == set(run.class_names):
        raise VidclfError(
            f"The classes of {run.folder} are in another order than those of the data set: "
            f"{first_five(run.class_names)} in the run, {first_five(class_names)} in the data set. Use the lists "
            "(classInd.txt) that it was trained with."
        )
    only_run = [name for name in run.class_names if name not in class_names]
    only_data = [name for name in class_names if name not in run.class_names]
    raise VidclfError(
        f"The run {run.folder} has {len(run.class_names)} classes, the data set has {len(class_names)}: "
        f"only the run has {first_five(only_run)}; only the data set has {first_five(only_data)}. "
        "Point dataset.root at the run's data, or choose its classes with dataset.classes=[...]."
    )


def check_weights(run: Run, weights_hash: str) -> None:
    """Raise VidclfError if the backbone's weights are not those that the head was trained with."""
    if weights_hash != run.weights_hash:
        raise VidclfError(
            f"The head of {run.folder} was trained on a backbone with weights {run.weights_hash[:8]}, "
            f"these are {weights_hash[:8]}. Use the run's backbone, weights file and backbone.precision "
            "(auto is bfloat16 on some machines and float32 on others: name the one it was trained with)."
        )


def split_table(corpus: "Corpus") -> bytes:
    """Return the content of split.csv: the part of every video, the hash of its file, and its segment."""
    rows = []
    for position, (name, side) in enumerate(corpus.split.rows()):
        video, facts = corpus.videos[position], corpus.facts.get(position)
        rows.append((name, side, facts.content if facts else "", video.start_s, video.end_s))
    return csv_bytes(("video", "side", "content", "start_s", "end_s"), rows)


def check_split(run: Run, corpus: "Corpus", part: str) -> None:
    """Raise VidclfError if videos of `part` were in another part when the run was trained; say what else differs.

    Videos are recognised by their names and by their files' contents.
    """
    has_changed = corpus.split.fingerprint != run.split_fingerprint
    if not has_changed and not run.split_digest:  # an older run, which kept no contents
        return
    old, new = read_split(run), _rows_of(split_table(corpus))
    by_name, by_content = {row["video"]: row for row in old}, defaultdict(list)
    for row in old:
        by_content[row.get("content", "")].append(row)
    moved = []
    for row in new:
        namesake = by_name.get(row["video"])
        if part not in row["side"].split("+") or namesake == row:
            continue
        same = [other for other in by_content[row["content"]] if row["content"] and _overlap(row, other)]
        is_elsewhere = any(part not in other["side"].split("+") for other in same)
        if is_elsewhere or (namesake and namesake["side"] != row["side"]):
            moved.append(row["video"])
    sides = [{row["video"]: row["side"] for row in rows} for rows in (old, new)]
    if moved or (has_changed and sides[0] == sides[1] and part != "test"):  # single views may have moved
        raise VidclfError(
            f"part={part}: {len(moved) or 'single'} views or videos were in another part when {run.folder} was "
            f"trained: {first_five(moved)}. Use the split and the sampling of the run."
        )
    missing, added = sides[0].keys() - sides[1].keys(), sides[1].keys() - sides[0].keys()
    if missing or added:
        say(f"The data differ from the run's: {len(missing)} videos are missing, {len(added)} are new.")


def read_split(run: Run) -> list[dict[str, str]]:
    """Return the rows of a run's split.csv, if they are those that training wrote."""
    path = run.folder / "split.csv"
    if not path.is_file():
        raise VidclfError(
            f"{path}: missing, so it is unknown which videos the run was trained on. Copy the run's whole folder, or "
            "train again."
        )
    content = path.read_bytes()
    if run.split_digest:
        is_whole = hashlib.sha256(content).hexdigest() == run.split_digest
    else:
        from vidclf.data.splits import Split

        try:
            rows = _rows_of(content)
            split = Split([row["video"] for row in rows], [row["side"] for row in rows], [1] * len(rows))
        except (KeyError, TypeError, csv.Error):
            rows, split = [], Split([], [], [])
        is_by_frame = any("+" in part for part in split.parts)
        is_whole = is_by_frame or split.fingerprint == run.split_fingerprint
    if not is_whole:
        raise VidclfError(f"{path}: not the split that the run was trained with. Copy it again, or train again.")
    return _rows_of(content)


def _rows_of(table: bytes) -> list[dict[str, str]]:
    return [*csv.DictReader(io.StringIO(table.decode("utf-8", "surrogateescape"), newline=""))]


def _overlap(row: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Return whether two segments of one file have a moment in common."""
    starts, ends = ([float(each[key] or default) for each in (row, other)] for key, default in SEGMENT.items())
    return max(starts) < min(ends)


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return `key=value (was value)` for each dotted key whose values differ."""
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [f"{key}={_shorten(new.get(key))} (was {_shorten(old.get(key))})" for key in keys]


def _shorten(value: object) -> str:
    text = sanitize(str(value))
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one mapping with dotted keys."""
    if not isinstance(config, Mapping):
        return {prefix: config}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat

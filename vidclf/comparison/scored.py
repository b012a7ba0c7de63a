"""What evaluate and train have left of a part's scores, read as data from elsewhere: nothing of it is run."""

import csv
import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from vidclf.errors import VidclfError
from vidclf.evaluation.results import PREDICTIONS
from vidclf.run.folder import checkpoint_of, describe_checkpoint
from vidclf.run.trust import check_plain
from vidclf.system.text import first_five

MAX_BYTES = 1_000_000  # of metrics.json, which is flat and short


@dataclass(frozen=True, eq=False)
class Scored:
    """A run's scores on a part, and what it made of each video.

    Attributes:
        folder: the run's.
        config: what it was trained by, plain data.
        class_names: in label order.
        metrics: of metrics.json.
        videos: their names.
        labels: of each video, its class.
        is_correct: of each video, whether it was named rightly.
        units: of each video, what it is not independent of: its group, of its class or of all ("").
        contents: of each video, the hash of its file.
    """

    folder: Path
    config: dict[str, Any]
    class_names: list[str]
    metrics: dict[str, float]
    videos: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    is_correct: list[bool] = field(default_factory=list)
    units: list[tuple[str, str]] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)


def read_scored(run: Path, part: str) -> Scored:
    """Return what a run scored on a part.

    Raises:
        VidclfError: it was not scored on it, or not to the end, or what is there does not fit together.
    """
    path = checkpoint_of(run)
    folder = path.absolute().parent.parent
    about = describe_checkpoint(path)
    check_plain(about["config"])
    results = folder if part == "val" and (folder / "predictions.csv").is_file() else folder / part
    if not (results / "metrics.json").is_file():
        how = "only half" if (results / "logits.safetensors").is_file() else "not"
        others = sorted(path.name for path in folder.glob(f"{part}-*") if (path / "metrics.json").is_file())
        told = f" by the run's own settings (but by others: {first_five(others)})" if others else ""
        raise VidclfError(f"{run}: {how} evaluated on {part}{told}. Call vidclf evaluate run={run} part={part}")
    scored = Scored(folder, about["config"], about["class_names"], read_metrics(results))
    _read_predictions(results / "predictions.csv", scored)
    _check_logits(results, scored)
    return scored


def _read_predictions(path: Path, scored: Scored) -> None:
    again = "Evaluate the run again."
    if not path.is_file():
        raise VidclfError(f"{path}: missing, so the run is only half evaluated. {again}")
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != PREDICTIONS or any(len(row) != len(PREDICTIONS) for row in rows):
            raise ValueError("other columns")
    except (ValueError, csv.Error) as error:
        raise VidclfError(f"{path}: not the predictions that this version writes ({error}). {again}") from error
    for row in rows:
        video, label, predicted, _, group, shared, content = map(sys.intern, row)  # runs share them: memory
        scored.videos.append(video)
        scored.labels.append(label)
        scored.is_correct.append(label == predicted)
        scored.units.append(("" if shared == "yes" else label, group))
        scored.contents.append(content)
    unknown = sorted({*scored.labels} - {*scored.class_names})
    if unknown:
        raise VidclfError(f"{path}: the run knows no class {first_five(unknown)}: scores of another run? {again}")
    top1 = sum(scored.is_correct) / len(rows) if rows else math.nan
    if len({*scored.videos}) != len(rows) or not math.isclose(top1, scored.metrics.get("top1", -1), abs_tol=1e-5):
        raise VidclfError(
            f"{path}: {len(rows)} videos of which {top1:.4f} are named rightly, while metrics.json says "
            f"{scored.metrics.get('top1')}: they are not of one evaluation. {again}"
        )


def _check_logits(results: Path, scored: Scored) -> None:
    """Raise VidclfError where stored logits are of other videos or classes than the scores beside them."""
    path, names = results / "logits.safetensors", results / "videos.txt"
    if not path.is_file():
        return
    try:
        with safe_open(path, "numpy") as file:
            num_classes = file.get_slice("logits").get_shape()[1]
            of_views = dict(zip(file.get_tensor("video").tolist(), file.get_tensor("labels").tolist(), strict=True))
        with names.open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
            known = list(csv.reader(lines))
        labels = {known[video][0]: label for video, label in of_views.items()}
    except Exception as error:  # whatever safetensors has to say of it
        raise VidclfError(f"{path}: it cannot be read ({type(error).__name__}). Evaluate the run again.") from error
    numbers = {name: label for label, name in enumerate(scored.class_names)}
    of_videos = {video: numbers[label] for video, label in zip(scored.videos, scored.labels, strict=True)}
    if num_classes != len(scored.class_names) or labels != of_videos:
        raise VidclfError(
            f"{path}: logits of {len(labels)} videos and {num_classes} classes, while predictions.csv has "
            f"{len(of_videos)} videos and the run {len(numbers)} classes, or others. They are of another split or "
            "class list. Evaluate the run again."
        )


def read_metrics(folder: Path) -> dict[str, float]:
    """Return the content of metrics.json in a folder of results.

    Raises:
        VidclfError: it is not there, or not what vidclf writes.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise VidclfError(f"{path}: there is none; {folder} has not been scored, or not to its end.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        numbers = {str(key): float(value) for key, value in content.items()}
        if not all(math.isfinite(value) for value in numbers.values()):
            raise ValueError("a number is not finite")
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise VidclfError(f"{path}: not the scores that vidclf writes ({error}). Evaluate the run again.") from error
    return numbers


def temperature_in(folder: Path) -> float | None:
    """Return the temperature that was fitted on the val part scored in `folder`; None where there is none."""
    if not (folder / "metrics.json").is_file():
        return None
    temperature = read_metrics(folder).get("temperature")
    if temperature is not None and not temperature > 0:
        raise VidclfError(f"{folder / 'metrics.json'}: temperature={temperature}; it must be above 0. Train it again.")
    return temperature

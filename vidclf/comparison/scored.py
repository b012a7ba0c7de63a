"""Reads the scores that train and evaluate wrote, as untrusted data: nothing in them is executed."""

import csv
import json
import math
import operator
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidclf.errors import VidclfError
from vidclf.evaluation.results import PREDICTIONS
from vidclf.run.folder import checkpoint_of, describe_checkpoint
from vidclf.run.trust import check_plain
from vidclf.system.disk import check_links
from vidclf.system.text import first_five

MAX_BYTES = 1_000_000  # of metrics.json, which is flat and short
AGAIN = "Evaluate the run again."
SEGMENT = re.compile(r"#[\d.e+]*-[\d.e+-]*$")  # of a video's name


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """A run's scores on a part, and its predictions.

    Attributes:
        folder: of the run.
        config: that it was trained with, plain data.
        class_names: in label order.
        metrics: from metrics.json.
        videos: their names, sorted by `contents`; the lists below have one value for each.
        labels: class names.
        predicted: class names.
        probabilities: of the predicted classes.
        units: class and group, or "" and the group if it means one thing in all classes.
        contents: the hash of the file, and the segment of it: the same whatever the file's name.
    """

    folder: Path
    config: dict[str, Any]
    class_names: list[str]
    metrics: dict[str, float]
    videos: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    predicted: list[str] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    units: list[tuple[str, str]] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)


def read_scored(run: Path, part: str) -> ScoredRun:
    """Return the scores of a run on a part.

    Raises:
        VidclfError: the part was not evaluated, or not completely, or its files do not fit together.
    """
    path = checkpoint_of(run)
    folder = path.absolute().parent.parent
    check_links(folder)
    description = describe_checkpoint(path)
    check_plain(description["config"])
    results = folder if part == "val" and (folder / "predictions.csv").is_file() else folder / part
    if not (results / "metrics.json").is_file():
        state = "only half" if (results / "logits.safetensors").is_file() else "not"
        changed = sorted(path.name for path in folder.glob(f"{part}-*") if (path / "metrics.json").is_file())
        settings = f" with the run's own settings (but with others: {first_five(changed)})" if changed else ""
        raise VidclfError(f"{run}: {state} evaluated on {part}{settings}. Call vidclf evaluate run={run} part={part}")
    scored = ScoredRun(folder, description["config"], description["class_names"], read_metrics(results))
    _read_predictions(results / "predictions.csv", scored)
    return scored


def _read_predictions(path: Path, scored: ScoredRun) -> None:
    """Fill in the videos of `scored`, and check that they fit its classes and its metrics."""
    if not path.is_file():
        raise VidclfError(f"{path}: missing, so the run is only half evaluated. {AGAIN}")
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != PREDICTIONS or any(len(row) != len(PREDICTIONS) for row in rows):
            raise ValueError("other columns")
    except (ValueError, csv.Error) as error:
        raise VidclfError(f"{path}: not the predictions that this version writes ({error}). {AGAIN}") from error
    keyed = [(f"{row[-1]}{''.join(SEGMENT.findall(row[0]))}", *row) for row in rows]
    for row in sorted(keyed):  # copies of one file by their names
        content, video, label, predicted, probability, group, shared, _ = map(sys.intern, row)  # shared: less memory
        scored.videos.append(video)
        scored.labels.append(label)
        scored.predicted.append(predicted)
        scored.probabilities.append(_probability(probability, path))
        scored.units.append(("" if shared == "yes" else label, group))
        scored.contents.append(content)
    unknown = sorted({*scored.labels, *scored.predicted} - {*scored.class_names})
    if unknown:
        raise VidclfError(f"{path}: the run knows no class {first_five(unknown)}: scores of another run? {AGAIN}")
    num_correct = sum(map(operator.eq, scored.labels, scored.predicted))
    top1 = num_correct / len(rows) if rows else math.nan
    if len({*scored.videos}) != len(rows) or not math.isclose(top1, scored.metrics.get("top1", -1), abs_tol=1e-5):
        raise VidclfError(
            f"{path}: {len(rows)} videos with a top1 of {top1:.4f}, while metrics.json says "
            f"{scored.metrics.get('top1')}: they are not of one evaluation. {AGAIN}"
        )


def _probability(text: str, path: Path) -> float:
    with suppress(ValueError):
        if 0 <= (probability := float(text)) <= 1 + 1e-5:  # rounding
            return min(probability, 1.0)
    raise VidclfError(f"{path}: {text[:50]!r} is no probability. {AGAIN}")


def read_metrics(folder: Path) -> dict[str, float]:
    """Return the content of metrics.json in a folder of results.

    Raises:
        VidclfError: it is missing, or not in vidclf's format.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise VidclfError(f"{path}: missing, so {folder} is not, or only half, evaluated. {AGAIN}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        metrics = {str(key): float(value) for key, value in content.items()}
        if not all(math.isfinite(value) for value in metrics.values()):
            raise ValueError("a number is not finite")
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise VidclfError(f"{path}: not the scores that vidclf writes ({error}). {AGAIN}") from error
    return metrics


def temperature_in(folder: Path) -> float | None:
    """Return the temperature that was fitted on the val part scored in `folder`, if any."""
    if not (folder / "metrics.json").is_file():
        return None
    temperature = read_metrics(folder).get("temperature")
    if temperature is not None and not temperature > 0:
        raise VidclfError(f"{folder / 'metrics.json'}: temperature={temperature}: must be above 0. Train it again.")
    return temperature

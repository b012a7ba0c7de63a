"""Read what a report shows of a run from the run's files, as data from a stranger: nothing in them is executed."""

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vidclf.comparison.scored import AGAIN, ScoredRun, read_metrics, read_scored
from vidclf.errors import VidclfError
from vidclf.evaluation.intervals import Clusters
from vidclf.evaluation.probes import PROBES
from vidclf.evaluation.scores import VideoPredictions
from vidclf.models import aggregation
from vidclf.models.classifier import aggregate_videos
from vidclf.run.compatible import results_name
from vidclf.run.folder import checkpoint_of, describe_checkpoint

MAX_BYTES = 500_000_000  # of a file that is read whole
OURS = ("mean", "logit_mean", "median", "mode", "max", "topk_mean")  # aggregations: pure functions
CLOSE = 1e-3  # probabilities in predictions.csv to those from the logits

Scores = Mapping[str, float]
Rows = list[dict[str, str]]


@dataclass(frozen=True, eq=False)
class Results:
    """The scores of a run on a part. Videos are in the order of `scored`.

    Attributes:
        scored: the run's metrics and predictions.
        part: that was scored.
        folder: of the part's results.
        description: the facts about the training in the checkpoint.
        labels: class indices.
        predicted: class indices.
        clusters: the groups of the videos.
        predictions: all classes' probabilities; None: the logits are missing, or an aggregation of the user's own.
        views: of each video, its views' probabilities (V, K) in order; empty where the logits are missing.
        val: the scores and predictions on val; None: not known, or `part` is val.
        probes: the scores without the order of frames, by probe.
        split: the rows of split.csv.
        tables: the rows of other files, by name; of a file that is missing, none.
    """

    scored: ScoredRun
    part: str
    folder: Path
    description: Mapping[str, Any]
    labels: Int[np.ndarray, " M"]
    predicted: Int[np.ndarray, " M"]
    clusters: Clusters
    predictions: VideoPredictions | None
    views: Sequence[Float[Tensor, "V K"]]
    val: ScoredRun | None
    probes: Mapping[str, Scores]
    split: Rows
    tables: Mapping[str, Rows]

    @property
    def is_correct(self) -> Float[np.ndarray, " M"]:
        """1 where the prediction is the label, else 0."""
        return (self.labels == self.predicted).astype(float)

    @property
    def probabilities(self) -> Float[np.ndarray, " M"]:
        """The probabilities of the predicted classes."""
        return np.asarray(self.scored.probabilities)

    @property
    def names(self) -> list[str]:
        """The classes in label order."""
        return self.scored.class_names


def read_results(run: Path, part: str) -> Results:
    """Return the results of a run on a part.

    Raises:
        VidclfError: the part was not evaluated, or a file is not as vidclf writes it.
    """
    scored = read_scored(run, part)
    if not scored.videos:
        raise VidclfError(f"{run}: no video of {part} was scored. {AGAIN}")
    folder = scored.folder if part == "val" and not (scored.folder / part).is_dir() else scored.folder / part
    number = {name: label for label, name in enumerate(scored.class_names)}
    labels, predicted = (np.asarray([number[name] for name in names]) for names in (scored.labels, scored.predicted))
    predictions, views = _read_logits(folder, scored, labels, predicted)
    tables = ("views", "failed", "bouts", "timeline", "timeline_classes")
    return Results(
        scored,
        part,
        folder,
        describe_checkpoint(checkpoint_of(run)),
        labels,
        predicted,
        Clusters.of(scored.units),
        predictions,
        views,
        _read_val(run) if part != "val" else None,
        _read_probes(scored.folder, part),
        read_rows(scored.folder / "split.csv"),
        {name: read_rows(folder / f"{name}.csv") for name in tables},
    )


def read_rows(path: Path) -> Rows:
    """Return the rows of a table; none where there is no file.

    Raises:
        VidclfError: it is not a table of vidclf's.
    """
    if not path.is_file():
        return []
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES:,} bytes")
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *rows = csv.reader(file)
        return [dict(zip(header, row, strict=True)) for row in rows]
    except (ValueError, csv.Error) as error:
        raise VidclfError(f"{path}: not a table that vidclf writes ({error}). {AGAIN}") from error


def numbers_of(rows: Rows, *columns: str) -> list[list[float | None]]:
    """Return columns of numbers; None where the end of an interval is missing.

    Raises:
        VidclfError: a cell is no finite number, or the column is missing.
    """
    return [[_number(row, column) for column in columns] for row in rows]


def _number(row: Mapping[str, str], column: str) -> float | None:
    text = row.get(column, "?")
    try:
        value = None if text == "" and column.endswith(("_low", "_high")) else float(text)
    except ValueError:
        value = math.nan
    if value is not None and not math.isfinite(value):
        raise VidclfError(f"A table of the run has {column}={text[:50]!r}, which is no number. {AGAIN}")
    return value


def parts_of(split: Rows) -> dict[str, int]:
    """Return the number of videos in each part."""
    return dict(Counter(row.get("side", "") for row in split).most_common())


def _read_val(run: Path) -> ScoredRun | None:
    try:
        return read_scored(run, "val")
    except VidclfError:  # of an older run
        return None


def _read_probes(run: Path, part: str) -> dict[str, Scores]:
    folders = {name: run / results_name(part, [f"probe={name}"]) for name in PROBES}
    return {name: read_metrics(folder) for name, folder in folders.items() if (folder / "metrics.json").is_file()}


def _read_logits(
    folder: Path, scored: ScoredRun, labels: Int[np.ndarray, " M"], predicted: Int[np.ndarray, " M"]
) -> tuple[VideoPredictions | None, Sequence[Float[Tensor, "V K"]]]:
    """Return the predictions and the views' probabilities of each video; (None, ()) if the logits are of no use."""
    logits, video, views = _read_tensors(folder, scored)
    if logits is None:
        return None, ()
    ordered = video.argsort(stable=True)
    counts = torch.bincount(video, minlength=len(labels)).tolist()
    view_probabilities = [one.softmax(1) for one in logits[ordered][_by_view(video, views, ordered)].split(counts)]
    aggregate = _aggregation_of(scored.config)
    if aggregate is None:
        return None, view_probabilities
    try:
        log_probabilities, _ = aggregate_videos(logits, torch.from_numpy(labels)[video], video, aggregate)
    except (VidclfError, TypeError, ValueError, RuntimeError):  # settings that a stranger chose
        return None, view_probabilities
    best = log_probabilities.exp().gather(1, torch.from_numpy(predicted)[:, None])[:, 0].double().numpy()
    is_same = np.allclose(best, scored.probabilities, atol=CLOSE)
    if not is_same or not bool(log_probabilities.isfinite().all()):
        return None, view_probabilities
    clusters = Clusters.of(scored.units)
    predictions = VideoPredictions(log_probabilities, torch.from_numpy(labels), range(len(labels)), clusters)
    return predictions, view_probabilities


def _by_view(video: Int[Tensor, " N"], view: Int[Tensor, " N"], ordered: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Return the order that sorts the rows `ordered` by video, and each video's by view."""
    by_view = view[ordered].argsort(stable=True)
    return by_view[video[ordered][by_view].argsort(stable=True)]


def _read_tensors(folder: Path, scored: ScoredRun) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return the logits and each one's video and view; None if they are missing.

    Raises:
        VidclfError: they are not those of the predictions.
    """
    path, names = folder / "logits.safetensors", folder / "videos.txt"
    nothing = torch.empty(0, dtype=torch.int64)
    if not (path.is_file() and names.is_file()):
        return None, nothing, nothing
    try:
        if max(path.stat().st_size, names.stat().st_size) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES:,} bytes")
        tensors = load_file(path)
        logits, video, view = (tensors[name] for name in ("logits", "video", "view"))
        with names.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            listed = [name for (name,) in csv.reader(file)]
        if not (
            logits.is_floating_point() and logits.isfinite().all() and logits.shape[1:] == (len(scored.class_names),)
        ):
            raise ValueError("other logits")
        if any(one.dtype != torch.int64 or one.shape != logits.shape[:1] for one in (video, view)):
            raise ValueError("other videos")
        position = {name: number for number, name in enumerate(scored.videos)}
        own = torch.tensor([position[listed[number]] for number in video.tolist() if number >= 0])
        if len(own) != len(logits) or len(own.unique()) != len(scored.videos):
            raise ValueError("other videos")
    except (ValueError, KeyError, IndexError, csv.Error, SafetensorError, OSError) as error:
        raise VidclfError(f"{path}: not the logits of {folder / 'predictions.csv'} ({error}). {AGAIN}") from error
    return logits.float(), own, view


def _aggregation_of(config: Mapping[str, Any]) -> Any:
    """Return the run's aggregation if it is one of ours; None otherwise, for nothing that a run names is imported."""
    node = config.get("aggregation")
    module, _, name = str(node.get("_target_") if isinstance(node, dict) else "").rpartition(".")
    if module != aggregation.__name__ or name not in OURS:
        return None
    settings = {key: value for key, value in node.items() if isinstance(key, str) and key[:1] != "_"}  # type: ignore[union-attr]
    return partial(getattr(aggregation, name), **settings)

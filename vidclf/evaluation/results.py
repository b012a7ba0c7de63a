"""What evaluate leaves beside metrics.json: logits of views, predictions of videos, tables and images."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from safetensors.torch import save
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import precision_recall_fscore_support

from vidclf.contracts import Video
from vidclf.data.corpus import Corpus
from vidclf.evaluation.calibration import reliability
from vidclf.evaluation.figures import draw_confusion
from vidclf.evaluation.intervals import Clusters, Interval, interval_of_accuracy
from vidclf.evaluation.logits import ViewLogits
from vidclf.evaluation.scores import Aggregation, VideoPredictions, score_numbers_of_views
from vidclf.models.classifier import most_probable
from vidclf.system.disk import write_atomically, write_csv

PREDICTIONS = ("video", "label", "predicted", "probability", "group", "shared", "content")
CLASSES = ("class", "videos", "groups", "precision", "recall", "recall_low", "recall_high", "rough", "f1")


def write_report(
    folder: Path, judged: ViewLogits, videos: VideoPredictions, aggregation: Aggregation, corpus: Corpus
) -> None:
    """Write logits.safetensors, predictions.csv, tables (see below) and images.

    Args:
        folder: for all of it.
        judged: the part.
        videos: what the run's aggregation makes of it.
        aggregation: that.
        corpus: whose part it is.
    """
    (folder / "metrics.json").unlink(missing_ok=True)  # written last: without it, what is here is half of something
    write_logits(folder, judged, corpus.videos)
    write_predictions(folder, videos, corpus)
    write_csv(folder / "classes.csv", CLASSES, classes_of(videos, corpus.class_names))
    write_csv(folder / "groups.csv", ("group", "shared", "videos", "top1"), _groups_of(videos, corpus))
    scored = score_numbers_of_views(judged.logits, judged.labels, judged.video, aggregation, corpus.videos)
    rows = [(num_views, top1, *_ends(interval)) for num_views, top1, interval in scored]
    write_csv(folder / "views.csv", ("views", "top1", "top1_low", "top1_high"), rows)
    write_reliability(folder, videos)
    write_confusion(folder, videos, corpus.class_names)


def write_aggregations(
    folder: Path, judged: ViewLogits, aggregations: Mapping[str, Aggregation], videos: Sequence[Video]
) -> None:
    """Write aggregations.csv: the top1 of each. It is no place to choose one: val is, see the run's metrics.json."""
    scored = {name: judged.aggregate(aggregation, videos) for name, aggregation in aggregations.items()}
    rows = [
        (name, float(one.is_correct.mean()), *_ends(interval_of_accuracy(one.is_correct, one.clusters)))
        for name, one in scored.items()
    ]
    write_csv(folder / "aggregations.csv", ("aggregation", "top1", "top1_low", "top1_high"), rows)


def write_logits(folder: Path, judged: ViewLogits, videos: Sequence[Video]) -> None:
    """Write logits.safetensors: `logits` (N, K), `labels`, `video`, `view` (N,), and the videos' names.

    `video` counts the names in videos.txt from 0: one a line, quoted as in CSV where a name holds a line's end.
    """
    tensors = {name: getattr(judged, name).contiguous() for name in ("logits", "labels", "video", "view")}
    write_atomically(folder / "logits.safetensors", save(tensors))
    with (folder / "videos.txt").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file, lineterminator="\n").writerows([video.name] for video in videos)


def write_predictions(folder: Path, judged: VideoPredictions, corpus: Corpus) -> None:
    """Write predictions.csv: a line a video, with the probability of the predicted class, its group and its content.

    `shared` says whether the group's name means one thing in all classes; content is the hash of the file.
    """
    names, rows = corpus.class_names, []
    for position, label, scores in zip(judged.positions, judged.labels.tolist(), judged.log_probabilities, strict=True):
        video, (predicted, probability) = corpus.videos[position], most_probable(scores, names, 1)[0]
        about = video.group, "yes" if video.shared else "no", corpus.facts[position].content
        rows.append((video.name, names[label], predicted, probability, *about))
    write_csv(folder / "predictions.csv", PREDICTIONS, rows)


def classes_of(judged: VideoPredictions, class_names: Sequence[str]) -> list[list[object]]:
    """Return the rows of classes.csv; what is not defined is empty, as the recall of a class without a video here."""
    labels, predicted, classes = judged.labels.numpy(), judged.predicted.numpy(), range(len(class_names))
    scores = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=np.nan)
    rows = []
    for name, label, precision, recall, f1, count in zip(class_names, classes, *scores, strict=True):
        own = labels == label
        clusters = Clusters.of(judged.clusters.of_video[own].tolist(), labels[own].tolist())
        ends = _ends(interval_of_accuracy(judged.is_correct[own], clusters) if count else None)
        rough = "yes" if clusters.are_few else "no"
        defined = ["" if np.isnan(value) else float(value) for value in (precision, recall, f1)]
        rows.append([name, int(count), len(clusters), *defined[:2], *ends, rough, defined[2]])
    return rows


def write_reliability(folder: Path, judged: VideoPredictions) -> None:
    """Write reliability.csv, and an image of it: are predictions right as often as their probabilities say?"""
    bins = reliability(judged.log_probabilities, judged.labels)
    write_csv(folder / "reliability.csv", ("probability", "top1", "videos"), bins)
    figure, axis = plt.subplots(figsize=(5, 5), layout="constrained")
    said, right, _ = (np.asarray(column) for column in zip(*bins, strict=True))
    CalibrationDisplay(right, said, judged.log_probabilities.max(1).values.exp().numpy()).plot(ax=axis, name="run")
    axis.set(xlabel="probability of the predicted class", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    figure.savefig(folder / "reliability.png", dpi=120)
    plt.close(figure)


def write_confusion(folder: Path, judged: VideoPredictions, class_names: list[str]) -> None:
    """Draw the confusion matrix into confusion.png."""
    figure = draw_confusion(judged.labels, judged.predicted, class_names)
    figure.savefig(folder / "confusion.png", dpi=120)
    plt.close(figure)


def _groups_of(judged: VideoPredictions, corpus: Corpus) -> list[tuple[object, ...]]:
    totals = judged.clusters.total(np.stack([np.ones(len(judged.positions)), judged.is_correct], axis=1))
    firsts = np.unique(judged.clusters.of_video, return_index=True)[1]
    videos = [corpus.videos[judged.positions[first]] for first in firsts]
    names = [video.group if video.shared else f"{corpus.class_names[video.label]}/{video.group}" for video in videos]
    return [
        (name, "yes" if video.shared else "no", int(count), float(right / count))
        for name, video, (count, right) in zip(names, videos, totals, strict=True)
    ]


def _ends(interval: Interval | None) -> tuple[float | str, float | str]:
    return ("", "") if interval is None else interval

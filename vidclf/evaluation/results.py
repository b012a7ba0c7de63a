"""Files that evaluate writes beside metrics.json: logits of views, predictions of videos, tables and plots."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from safetensors.torch import save
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import precision_recall_fscore_support

from vidclf.contracts import Video
from vidclf.data.corpus import Corpus
from vidclf.evaluation.calibration import reliability
from vidclf.evaluation.figures import draw_confusion, styled
from vidclf.evaluation.intervals import Clusters, interval_of_accuracy
from vidclf.evaluation.logits import ViewLogits
from vidclf.evaluation.scores import Aggregation, VideoPredictions, score_numbers_of_views
from vidclf.models.classifier import most_probable
from vidclf.system.disk import replacing, write_atomically, write_csv
from vidclf.system.ranks import is_rank_zero
from vidclf.system.terminal import table
from vidclf.system.text import plural, sanitize

PREDICTIONS = ("video", "label", "predicted", "probability", "group", "shared", "content")
CLASSES = ("class", "videos", "groups", "precision", "recall", "recall_low", "recall_high", "rough", "f1")
TOP1 = ("top1", "top1_low", "top1_high")
NO_INTERVAL = ("", "")
SUMMARY = (  # is printed, the first MAX_SCORES of them
    *("top1", "frame_accuracy", "frame_macro_f1", "segment_f1_50", "edit"),
    *("mean_class", "loss", "ece", "calibrated_loss"),
)
MAX_SCORES = 6
BASELINES = {"chance_top1": "chance", "majority_top1": "most frequent class"}


def summarize(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return the scores of metrics.json to print, each with its interval; the first says what it is compared with."""
    shown = [name for name in SUMMARY if name in metrics][:MAX_SCORES]
    rows = {name: score_of(metrics, name) for name in shown}
    baselines = [f"{words} {metrics[key]:.3f}" for key, words in BASELINES.items() if key in metrics]
    num_groups = metrics.get("num_groups")
    groups = f" in {plural(int(num_groups), 'group')}" if num_groups else ""
    rows["top1"] += f" on {metrics['num_videos']} videos{groups}" + (f" ({', '.join(baselines)})" if baselines else "")
    return rows | {name: str(metrics[name]) for name in ("num_failed", "num_skipped") if metrics.get(name)}


def print_scores(title: str, metrics: Mapping[str, float], last: str, in_one_line: bool) -> None:
    """Print the scores that `summarize` chooses, or a line with the first of them alone."""
    rows = summarize(metrics)
    if not in_one_line:
        table(title, rows, last)
    elif is_rank_zero():
        print(sanitize(f"{title}: top1 {rows['top1']}"), flush=True)


def score_of(metrics: Mapping[str, float], name: str) -> str:
    """Return a score of metrics.json, with its interval if it has one."""
    ends = [f"{metrics[key]:.3f}" for key in (f"{name}_low", f"{name}_high") if key in metrics]
    return f"{metrics[name]:.3f}" + (f" [{', '.join(ends)}]" if ends else "")


def write_report(
    folder: Path, view_logits: ViewLogits, predictions: VideoPredictions, aggregation: Aggregation, corpus: Corpus
) -> None:
    """Write logits.safetensors, predictions.csv, tables and plots; `predictions` are those of the aggregation."""
    (folder / "metrics.json").unlink(missing_ok=True)  # written last: without it, the results are incomplete
    write_logits(folder, view_logits, corpus.videos)
    write_predictions(folder, predictions, corpus)
    write_csv(folder / "classes.csv", CLASSES, classes_of(predictions, corpus.class_names))
    write_csv(folder / "groups.csv", ("group", "shared", "videos", "top1"), _groups_of(predictions, corpus))
    views = view_logits.logits, view_logits.labels, view_logits.video
    scores = score_numbers_of_views(*views, aggregation, corpus.videos)
    rows = [(num_views, top1, *(interval or NO_INTERVAL)) for num_views, top1, interval in scores]
    write_csv(folder / "views.csv", ("views", *TOP1), rows)
    write_reliability(folder, predictions)
    confusion = draw_confusion(predictions.labels, predictions.predicted, corpus.class_names)
    with replacing(folder / "confusion.png") as temporary:
        confusion.savefig(temporary, format="png")


def write_aggregations(
    folder: Path, view_logits: ViewLogits, aggregations: Mapping[str, Aggregation], videos: Sequence[Video]
) -> None:
    """Write aggregations.csv: the top1 of each on this part. To choose one, read the val scores in metrics.json."""
    rows = []
    for name, aggregation in aggregations.items():
        top1, interval = view_logits.aggregate(aggregation, videos).accuracy
        rows.append((name, top1, *(interval or NO_INTERVAL)))
    write_csv(folder / "aggregations.csv", ("aggregation", *TOP1), rows)


def write_logits(folder: Path, view_logits: ViewLogits, videos: Sequence[Video]) -> None:
    """Write logits.safetensors: `logits` (N, K), `labels`, `video`, `view` (N,), and videos.txt.

    `video` is the 0-based number of a line of videos.txt; a name with a line break is quoted there as in CSV.
    """
    tensors = {name: getattr(view_logits, name).contiguous() for name in ("logits", "labels", "video", "view")}
    write_atomically(folder / "logits.safetensors", save(tensors))
    with (
        replacing(folder / "videos.txt") as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows([video.name] for video in videos)


def write_predictions(folder: Path, predictions: VideoPredictions, corpus: Corpus) -> None:
    """Write predictions.csv, one line per video.

    `probability` is that of the predicted class, `shared` whether the group's name means one thing in all classes, and
    `content` the hash of the file.
    """
    names, rows = corpus.class_names, []
    columns = predictions.positions, predictions.labels.tolist(), predictions.log_probabilities
    for position, label, log_probabilities in zip(*columns, strict=True):
        video, (predicted, probability) = corpus.videos[position], most_probable(log_probabilities, names, 1)[0]
        group = video.group, "yes" if video.shared else "no"
        rows.append((video.name, names[label], predicted, probability, *group, corpus.facts[position].content))
    write_csv(folder / "predictions.csv", PREDICTIONS, rows)


def classes_of(predictions: VideoPredictions, class_names: Sequence[str]) -> list[list[object]]:
    """Return the rows of classes.csv; an undefined number is empty, such as the recall of a class without a video."""
    labels, predicted, classes = predictions.labels.numpy(), predictions.predicted.numpy(), range(len(class_names))
    scores = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=np.nan)
    rows = []
    for name, label, precision, recall, f1, count in zip(class_names, classes, *scores, strict=True):
        in_class = labels == label
        clusters = Clusters.of(predictions.clusters.of_video[in_class].tolist())
        interval = interval_of_accuracy(predictions.is_correct[in_class], clusters) if count else None
        rough = "yes" if clusters.are_few else "no"
        defined = ["" if np.isnan(value) else float(value) for value in (precision, recall, f1)]
        rows.append([name, int(count), len(clusters), *defined[:2], *(interval or NO_INTERVAL), rough, defined[2]])
    return rows


@styled
def write_reliability(folder: Path, predictions: VideoPredictions) -> None:
    """Write reliability.csv and reliability.png: accuracy against the predicted probability."""
    bins = reliability(predictions.log_probabilities, predictions.labels)
    write_csv(folder / "reliability.csv", ("probability", "top1", "videos"), bins)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    probability, accuracy, _ = (np.asarray(column) for column in zip(*bins, strict=True))
    confidence = predictions.log_probabilities.max(1).values.exp().numpy()
    CalibrationDisplay(accuracy, probability, confidence).plot(ax=axis, name="run")
    axis.set(xlabel="probability of the predicted class", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    with replacing(folder / "reliability.png") as temporary:
        figure.savefig(temporary, format="png")


def _groups_of(predictions: VideoPredictions, corpus: Corpus) -> list[tuple[object, ...]]:
    clusters, positions = predictions.clusters, predictions.positions
    totals = clusters.total(np.stack([np.ones(len(positions)), predictions.is_correct], axis=1))
    rows: list[tuple[object, ...]] = []
    firsts = np.unique(clusters.of_video, return_index=True)[1]
    for first, (count, num_correct) in zip(firsts, totals, strict=True):
        video = corpus.videos[positions[first]]
        name = video.group if video.shared else f"{corpus.class_names[video.label]}/{video.group}"
        rows.append((name, "yes" if video.shared else "no", int(count), float(num_correct / count)))
    return rows

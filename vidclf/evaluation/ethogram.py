"""Score and draw the labels of long videos along their time, beside what the clock alone would say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from sklearn.tree import DecisionTreeClassifier

from vidclf.contracts import PARTS, Dataset, optional
from vidclf.data.corpus import Corpus
from vidclf.data.opening import open_video
from vidclf.data.timelines import duration_of, instants, labels_at
from vidclf.errors import VideoError
from vidclf.evaluation.calibration import confidence
from vidclf.evaluation.cleaning import CHOSEN, DEFAULT, chosen_in, cleaning_of, step_of
from vidclf.evaluation.figures import PALETTE, styled
from vidclf.evaluation.intervals import Clusters, interval_of_accuracy
from vidclf.evaluation.scores import VideoPredictions
from vidclf.evaluation.segments import Counts, bouts_of, rows_of_classes, scores_of
from vidclf.evaluation.timeline import (
    FileTimeline,
    RankedInstants,
    choose_cleaning,
    clean,
    count_files,
    intervals_over_groups,
    score_timelines,
    timelines_of,
)
from vidclf.system.disk import write_csv
from vidclf.system.text import sanitize

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
MAX_LEAVES, MIN_LEAF_S = 32, 2.0  # of the tree that sees the clock
MAX_DRAWN = 20  # videos
WITH_INTERVAL = ("precision", "recall", "f1", "average_precision", "predicted_s", "predicted_bouts")
Labels = Int[np.ndarray, " N"]


def report_timelines(
    folder: Path,
    predictions: VideoPredictions,
    corpus: Corpus,
    settings: Mapping[str, Any] | None,
    val: Path | None,
) -> dict[str, float]:
    """Return scores over time, each with an interval over groups, and write tables and the ethogram into `folder`.

    Nothing is done for a data set of clips, which have no timelines.

    Args:
        folder: for timeline.csv, bouts.csv, timeline_classes.csv, coverage.csv and ethogram.png.
        predictions: of the windows of a part.
        corpus: whose data set knows the labels over time.
        settings: `step_s` of the grid; `smooth_s` and `min_bout_s`, null where they are to be chosen; None: of a run
            that does not know them.
        val: the folder with val's scores, whose smoothing is used; None: choose on these predictions, which are val's.
    """
    if optional(corpus.dataset, Dataset, "timelines") is None:
        return {}
    settings = settings or DEFAULT
    step_s, names = step_of(settings), corpus.class_names
    background = optional(corpus.dataset, Dataset, "background")
    label = names.index(background) if background in names else None
    windows = [corpus.videos[position] for position in predictions.positions]
    truths: Any = optional(corpus.dataset, Dataset, "timelines")
    probabilities = predictions.log_probabilities.exp().numpy()
    films = timelines_of(probabilities, windows, truths, names, background, step_s)
    best = None if val else choose_cleaning(films, step_s, label)
    chosen = dict(zip(CHOSEN, best, strict=True)) if best else chosen_in(val or folder)
    cleaning = cleaning_of(settings, chosen)
    predicted = [clean(film.probabilities, **cleaning, step_s=step_s) for film in films]
    metrics = {**score_timelines(films, predicted, label), **cleaning}
    metrics |= _baselines(films, corpus, step_s, label)
    rows = _class_rows(films, count_files(films, predicted, label), names, step_s)
    write_csv(folder / "timeline_classes.csv", tuple(rows[0]), (tuple(row.values()) for row in rows))
    _write_timelines(folder, films, predicted, names, step_s)
    draw_ethogram(films, predicted, names, step_s, label).savefig(folder / "ethogram.png")
    return metrics


def _class_rows(
    films: Sequence[FileTimeline], counts: Counts, names: Sequence[str], step_s: float
) -> list[dict[str, object]]:
    """Return the rows of timeline_classes.csv: scores, bouts and seconds of each class, with intervals over groups."""
    is_there = counts.total().confusion.sum(1) > 0
    ranked = [RankedInstants(films, label) if there else None for label, there in enumerate(is_there)]

    def rows_of(weights: Sequence[float] | None = None) -> list[dict[str, Any]]:
        rows = rows_of_classes(counts.total(weights), names, step_s)
        for row, one in zip(rows, ranked, strict=True):
            row["average_precision"] = "" if one is None else one.average_precision(weights) if weights else one.value
        return rows

    def scores(weights: Sequence[float]) -> dict[str, float]:
        return {
            f"{key} {row['class']}": row[key] for row in rows_of(weights) for key in WITH_INTERVAL if row[key] != ""
        }

    intervals = intervals_over_groups([film.group for film in films], scores)
    rows = rows_of()
    for row in rows:
        for key in WITH_INTERVAL:
            row[f"{key}_low"], row[f"{key}_high"] = intervals.get(f"{key} {row['class']}", ("", ""))
    return rows


def _truth(corpus: Corpus, path: Path, position: int, step_s: float) -> tuple[Float[np.ndarray, " N"], Labels]:
    """Return the instants of a file and the label at each; -1 where there is none."""
    timelines: Any = optional(corpus.dataset, Dataset, "timelines")
    background = optional(corpus.dataset, Dataset, "background") or ""
    times_s = instants(duration_of(corpus.facts[position].info), step_s)
    numbers = {name: number for number, name in enumerate(corpus.class_names)}
    labels = labels_at(timelines[str(path)], times_s, background)
    return times_s, np.asarray([numbers.get(name, -1) for name in labels])


def _baselines(
    films: Sequence[FileTimeline], corpus: Corpus, step_s: float, background: int | None
) -> dict[str, float]:
    """Return the scores of the most frequent label of train, and of a tree that sees the clock and the container."""
    first_of: dict[Path, int] = {}
    for position in sorted(corpus.facts):
        if corpus.split.parts[position] in PARTS[:2]:
            first_of.setdefault(corpus.videos[position].path, position)
    scored = {film.path for film in films}
    inputs, labels = [], []
    for path, position in first_of.items():
        if path not in scored:  # val's own films, where val is scored
            times_s, truth = _truth(corpus, path, position, step_s)
            inputs.append(_clock(corpus, path, position, times_s)[truth >= 0])
            labels.append(truth[truth >= 0])
    if not inputs:
        return {}
    fitted = np.concatenate(labels)
    tree = DecisionTreeClassifier(
        max_leaf_nodes=MAX_LEAVES, min_samples_leaf=round(MIN_LEAF_S / step_s), random_state=0
    )
    tree.fit(np.concatenate(inputs), fitted)
    positions = {corpus.videos[position].path: position for position in corpus.facts}
    guesses = {
        "majority": [np.full(len(film.truth), np.bincount(fitted).argmax()) for film in films],
        "clock": [tree.predict(_clock(corpus, film.path, positions[film.path], film.times_s)) for film in films],
    }
    found: dict[str, float] = {}
    for name, guessed in guesses.items():
        scores = scores_of(count_files(films, guessed, background).total())
        found |= {f"{name}_{key}": scores[key] for key in ("frame_accuracy", "frame_macro_f1")}
    return found


def _clock(corpus: Corpus, path: Path, position: int, times_s: Float[np.ndarray, " N"]) -> Float[np.ndarray, "N 7"]:
    """Return the place in the file, in s and as a share, the time of day, and the file's rate, size and length."""
    info = corpus.facts[position].info
    duration_s = duration_of(info)
    constant = [_time_of_day(path), info.fps, info.width, info.height, duration_s]
    return np.column_stack([times_s, times_s / duration_s, *(np.full(len(times_s), value) for value in constant)])


def _time_of_day(path: Path) -> float:
    """Return when a file's container says that the recording began, in hours; -1: it does not say."""
    try:
        with open_video(path) as (container, _):
            hours, minutes, *_ = container.metadata.get("creation_time", "").partition("T")[2].split(":")
            return int(hours) + int(minutes) / 60
    except (VideoError, ValueError):
        return -1.0


def write_coverage(folder: Path, predictions: VideoPredictions, temperature: float | None) -> None:
    """Write coverage.csv: of predictions whose calibrated probability is high enough, how many are right.

    A row has the threshold, the share of windows that reach it, their accuracy, and its interval over groups.
    """
    probability = confidence(predictions.log_probabilities, temperature).numpy()
    rows: list[tuple[object, ...]] = []
    for threshold in THRESHOLDS:
        reached = probability >= threshold
        accuracy: tuple[object, ...] = ("", "", "")
        if reached.any():
            clusters = Clusters.of(predictions.clusters.of_video[reached].tolist())
            is_correct = predictions.is_correct[reached]
            accuracy = float(is_correct.mean()), *(interval_of_accuracy(is_correct, clusters) or ("", ""))
        rows.append((threshold, float(reached.mean()), *accuracy))
    write_csv(folder / "coverage.csv", ("threshold", "coverage", "top1", "top1_low", "top1_high"), rows)


def _write_timelines(
    folder: Path, films: Sequence[FileTimeline], predicted: Sequence[Labels], names: Sequence[str], step_s: float
) -> None:
    """Write timeline.csv, one row an instant, and bouts.csv, one row a run of one label."""
    instants_rows, bouts = list[tuple[object, ...]](), list[tuple[object, ...]]()
    for film, labels in zip(films, predicted, strict=True):
        columns = zip(film.times_s.tolist(), film.truth, labels, film.probabilities.tolist(), strict=True)
        for time_s, truth, label, probabilities in columns:
            row = film.name, round(time_s, 4), names[truth] if truth >= 0 else "", names[label]
            instants_rows.append((*row, *(round(probability, 4) for probability in probabilities)))
        for source, of_source in (("truth", film.truth), ("prediction", labels)):
            for first, stop, label in (bout for bout in bouts_of(of_source) if bout.label >= 0):
                start_s, end_s = film.times_s[first] - step_s / 2, film.times_s[stop - 1] + step_s / 2
                bouts.append((film.name, source, round(float(start_s), 4), round(float(end_s), 4), names[label]))
    header = ("path", "time_s", "truth", "predicted", *(f"p_{name}" for name in names))
    write_csv(folder / "timeline.csv", header, instants_rows)
    write_csv(folder / "bouts.csv", ("path", "source", "start_s", "end_s", "label"), bouts)


@styled
def draw_ethogram(
    films: Sequence[FileTimeline],
    predicted: Sequence[Labels],
    names: Sequence[str],
    step_s: float,
    background: int | None,
) -> Figure:
    """Return a figure with a row a film: truth, prediction, and where they differ, in black."""
    shown = list(zip(films, predicted, strict=True))[:MAX_DRAWN]
    figure = Figure(figsize=(12, 1.2 + 0.8 * len(shown)), layout="constrained")
    colours = [PALETTE[number % len(PALETTE)] for number in range(len(names))]
    if background is not None:
        colours[background] = "lightgrey"
    cmap = ListedColormap([*colours, "black", "white"])
    longest_s = max(film.times_s[-1] for film, _ in shown) + step_s / 2
    for axis, (film, labels) in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
        differs = np.where((film.truth == labels) | (film.truth < 0), len(names) + 1, len(names))
        end_s = film.times_s[-1] + step_s / 2
        strips = np.stack([np.where(film.truth < 0, len(names) + 1, film.truth), labels, differs])
        axis.imshow(strips, aspect="auto", interpolation="nearest", cmap=cmap, vmin=0, vmax=len(names) + 1,
                    extent=(0, end_s, 2.5, -0.5))  # fmt: skip
        axis.set(xlim=(0, longest_s), yticks=[0, 1, 2], yticklabels=["truth", "prediction", "differ"])
        axis.set_title(sanitize(film.name), loc="left", parse_math=False)
    axis.set_xlabel("seconds")
    figure.legend(
        handles=[Patch(color=colour, label=sanitize(name)) for colour, name in zip(colours, names, strict=True)],
        loc="outside upper center", ncols=min(len(names), 6),
    )  # fmt: skip
    return figure

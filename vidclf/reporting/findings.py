"""What a person should know before believing a score: rules, each a sentence with numbers and where they are shown.

A rule yields nothing where nothing is wrong. It says what was measured, and never more than its interval allows.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from vidclf.evaluation.intervals import MIN_CLUSTERS, Clusters, interval_of_accuracy, korn_graubard
from vidclf.evaluation.results import TOP1, score_of
from vidclf.reporting.results import Results, Scores
from vidclf.reporting.scores import accuracy, class_scores, group_scores
from vidclf.system.text import first_five, plural

FEW_VIDEOS = 5  # of a class: fewer say nothing about it
MIN_MISTAKES = 10
CONFIDENT = 0.9
WIDE = 0.2  # an interval of an accuracy
MAX_FACTOR = 32  # times the groups that there are
GAIN = ("top1", "top1_in_order", "temporal_gain", "temporal_gain_low", "temporal_gain_high")
SHORTCUTS = {"container": "The file's container alone", "one_frame": "One frame alone"}


class Finding(NamedTuple):
    """A sentence, and the section of the page that shows its evidence."""

    sentence: str
    section: str


Rule = Callable[[Results], Iterator[Finding]]


def find(results: Results) -> list[Finding]:
    """Return the findings on a run, the worst first."""
    return [finding for rule in RULES for finding in rule(results)]


def leaks(results: Results) -> Iterator[Finding]:
    """Yield what is in two parts: views of one video, copies of a file, groups, and what `check` found."""
    both = sum("+" in row.get("side", "") for row in results.split)
    if both:
        yield Finding(
            f"Views of {plural(both, 'video')} are in train and in val at once: validation scores are of videos that "
            "were trained on.",
            "data",
        )
    parts: dict[tuple[str, ...], set[str]] = {}
    for row in results.split:
        if row.get("content") and "+" not in row.get("side", ""):
            segment = row["content"], row.get("start_s", ""), row.get("end_s", "")
            parts.setdefault(segment, set()).add(row.get("side", ""))
    copied = sum(len(sides - {"unused"}) > 1 for sides in parts.values())
    if copied:
        yield Finding(f"{plural(copied, 'file')} in two parts of the split at once, under other names.", "data")
    shared = {*results.scored.units} & {*(results.val.units if results.val else ())}
    if shared:
        names = first_five([group for _, group in sorted(shared)])
        yield Finding(f"{plural(len(shared), 'group')} with videos in val and in {results.part}: {names}.", "data")
    if num_leaks := int(results.scored.metrics.get("num_leaks", 0)):
        yield Finding(f"vidclf check found {plural(num_leaks, 'leak')} between the parts of this split.", "data")


def validation_above_test(results: Results) -> Iterator[Finding]:
    """Yield a sentence if val's accuracy is above test's beyond both intervals."""
    val, test = (scored.metrics if scored else {} for scored in (results.val, results.scored))
    if _has(val, *TOP1) and _has(test, *TOP1) and val["top1_low"] > test["top1_high"]:
        yield Finding(
            f"Validation is above {results.part} beyond both intervals: {score_of(val, 'top1')} against "
            f"{score_of(test, 'top1')}. Val may hold what was trained on, or was chosen on too often.",
            "headline",
        )


def exchanged_classes(results: Results) -> Iterator[Finding]:
    """Yield a sentence for two classes that are each predicted as the other in more than half of their videos."""
    counts, totals = _counts(results)
    for (label, predicted), count in sorted(counts.items(), key=lambda item: -item[1]):
        back = counts[predicted, label]
        is_half = 2 * count > totals[label] and 2 * back > totals[predicted]
        if label < predicted and is_half and min(totals[label], totals[predicted]) >= FEW_VIDEOS:
            first, second = results.names[label], results.names[predicted]
            yield Finding(
                f"{first} and {second} are exchanged: {count} of {totals[label]} {first} are predicted as {second}, "
                f"and {back} of {totals[predicted]} {second} as {first}. Check their labels and the class list.",
                "confusion",
            )


def shortcuts(results: Results) -> Iterator[Finding]:
    """Yield a sentence if the container or one frame alone is as good as the model, within its interval."""
    metrics = results.scored.metrics
    for name, words in SHORTCUTS.items():
        if _has(metrics, f"{name}_top1", *TOP1) and metrics[f"{name}_top1"] >= metrics["top1_low"]:
            yield Finding(
                f"{words} classifies {metrics[f'{name}_top1']:.3f} of the videos correctly, and the model "
                f"{score_of(metrics, 'top1')}: the score does not show that the model sees more.",
                "headline",
            )


def weak_classes(results: Results) -> Iterator[Finding]:
    """Yield a sentence for classes that are never predicted, and for those below chance beyond their interval."""
    chance, rows = 1 / len(results.names), class_scores(results)
    never = [row["name"] for row in rows if row["videos"] and not row["predicted"]]
    if never:
        yield Finding(f"Never predicted: {first_five(never)} ({len(never)} of {len(rows)} classes).", "classes")
    below = [row for row in rows if row["predicted"] and row["recall"].high is not None and row["recall"].high < chance]
    if below:
        shown = [f"{row['name']} {row['recall'].value:.3f}" for row in below]
        yield Finding(f"Below chance ({chance:.3f}), beyond their intervals: {first_five(shown)}.", "classes")


def one_sided_confusions(results: Results) -> Iterator[Finding]:
    """Yield a sentence if more than half of a class is predicted as another one, and not the other way round."""
    counts, totals = _counts(results)
    sided = [
        f"{count} of {totals[label]} {results.names[label]} as {results.names[predicted]}"
        for (label, predicted), count in sorted(counts.items(), key=lambda item: -item[1] / totals[item[0][0]])
        if label != predicted and totals[label] >= FEW_VIDEOS and 2 * count > totals[label]
        if not 2 * counts[predicted, label] > totals[predicted]
    ]
    if sided:
        yield Finding(
            f"Predicted as another class in more than half of their videos: {first_five(sided)}.", "confusion"
        )


def order(results: Results) -> Iterator[Finding]:
    """Yield a sentence if a probe without the order of frames loses nothing beyond its interval."""
    for name, scores in results.probes.items():
        if name in ("shuffle", "reverse") and _has(scores, *GAIN) and scores["temporal_gain_low"] <= 0:
            yield Finding(
                f"No gain from the order of frames can be shown: top1 is {scores['top1_in_order']:.3f} in order and "
                f"{scores['top1']:.3f} with probe={name}, a gain of {score_of(scores, 'temporal_gain')}.",
                "probes",
            )


def mistakes_in_few_groups(results: Results) -> Iterator[Finding]:
    """Yield a sentence if three groups hold most mistakes, and at most a quarter of the videos."""
    rows = [(name, count, round(count * (1 - top1))) for name, count, top1 in group_scores(results)]
    num_mistakes = sum(mistakes for *_, mistakes in rows)
    worst = sorted(rows, key=lambda row: -row[2])[:3]
    in_worst, videos = (sum(column) for column in [*zip(*worst, strict=True)][:0:-1])
    if (
        len(rows) >= MIN_CLUSTERS
        and num_mistakes >= MIN_MISTAKES
        and 2 * in_worst > num_mistakes
        and 4 * videos <= len(results.labels)
    ):
        yield Finding(
            f"Three of {len(rows)} groups hold {in_worst} of {num_mistakes} mistakes, and {videos} of "
            f"{len(results.labels)} videos: {', '.join(name for name, *_ in worst)}.",
            "groups",
        )


def confident_mistakes(results: Results) -> Iterator[Finding]:
    """Yield a sentence if confident predictions are wrong more often than they say, beyond the interval."""
    used = results.probabilities >= CONFIDENT
    if not used.any():
        return
    score, promised = accuracy(results, used), float(results.probabilities[used].mean())
    if score.value is not None and score.high is not None and score.high < promised:
        num_wrong = int((used * (1 - results.is_correct)).sum())
        yield Finding(
            f"{num_wrong} of {int(used.sum())} predictions with a probability of {CONFIDENT} or more are wrong: "
            f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}] are correct, and their probabilities promise "
            f"{promised:.3f}.",
            "calibration",
        )


def wide_interval(results: Results) -> Iterator[Finding]:
    """Yield a sentence if the interval is missing, rough or wide, and how many groups would halve it."""
    clusters, is_correct = results.clusters, results.is_correct
    interval = interval_of_accuracy(is_correct, clusters)
    if interval is None:
        yield Finding(clusters.warning, "groups")
        return
    width = interval.high - interval.low
    if not clusters.are_few and width <= WIDE:
        return
    advice = ""
    if factor := _factor_to_halve(is_correct, clusters, width):
        advice = f" About {factor * len(clusters)} groups like these would make it half as wide."
    yield Finding(
        f"The interval of the accuracy is {width:.3f} wide, because the {len(is_correct)} videos are of "
        f"{plural(len(clusters), 'group')}.{advice}",
        "groups",
    )


def _factor_to_halve(is_correct: np.ndarray, clusters: Clusters, width: float) -> int | None:
    """Return the smallest multiple of the groups, as they are, with an interval of half the width."""
    correct, sizes = clusters.total(is_correct), clusters.sizes
    for factor in range(2, MAX_FACTOR + 1):
        low, high = korn_graubard(np.tile(correct, factor), np.tile(sizes, factor))
        if high - low <= width / 2:
            return factor
    return None


def missing_videos(results: Results) -> Iterator[Finding]:
    """Yield a sentence for videos that are damaged, or not on disk."""
    for key, words in (("num_failed", "damaged and not scored"), ("num_skipped", "in the official list, not on disk")):
        if count := int(results.scored.metrics.get(key, 0)):
            yield Finding(f"{plural(count, 'video')}: {words}.", "files")


def _counts(results: Results) -> tuple[Counter[tuple[int, int]], np.ndarray]:
    """Return how often each label has each prediction, and how often it is there."""
    counts = Counter(zip(results.labels.tolist(), results.predicted.tolist(), strict=True))
    return counts, np.bincount(results.labels, minlength=len(results.names))


def _has(metrics: Scores, *keys: str) -> bool:
    """Return whether all scores are there: a single group has no interval."""
    return all(key in metrics for key in keys)


RULES: tuple[Rule, ...] = (
    *(leaks, validation_above_test, exchanged_classes, shortcuts, weak_classes, one_sided_confusions, order),
    *(mistakes_in_few_groups, confident_mistakes, wide_interval, missing_videos),
)

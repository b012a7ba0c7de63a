"""Runs a classifier over a part of the data, one video at a time, and scores the logits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidclf.contracts import Source, Video, VideoViews, Views
from vidclf.data.corpus import Corpus
from vidclf.data.splits.parts import groups_per_class
from vidclf.errors import VidclfError
from vidclf.evaluation.calibration import fit_temperature
from vidclf.evaluation.intervals import effective_number
from vidclf.evaluation.scores import (
    Aggregation,
    VideoPredictions,
    intervals_of,
    predict_videos,
    score_aggregations,
    score_videos,
)
from vidclf.models.classifier import Classifier, gather_logits, inputs_to
from vidclf.system.terminal import say
from vidclf.system.text import first_five, sanitize


@dataclass(frozen=True)
class ViewLogits:
    """The logits of every view of a part, labelled with their video and view (see `Views`).

    `num_failed` videos of the part could not be read; `num_skipped` more are in an official list and not on disk.
    """

    logits: Float[Tensor, "N K"]
    labels: Int[Tensor, " N"]
    video: Int[Tensor, " N"]
    view: Int[Tensor, " N"]
    num_failed: int
    num_skipped: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """The number of videos that were scored, could not be read, and are not on disk."""
        num_videos = len(self.video.unique())
        return {"num_videos": num_videos, "num_failed": self.num_failed, "num_skipped": self.num_skipped}

    def aggregate(self, aggregation: Aggregation, videos: Sequence[Video]) -> VideoPredictions:
        """Return the predictions of an aggregation; `videos` are all of the data set."""
        return predict_videos(self.logits, self.labels, self.video, aggregation, videos)


class _LogitCollector(L.LightningModule):
    """Keeps the logits of all views, on the device that computed them, with the views' labels, videos and numbers."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.collected: list[tuple[Tensor, ...]] = []

    def predict_step(self, batch: Views, batch_idx: int = 0) -> Tensor:
        logits = self.classifier.predict_logits(batch.inputs)
        self.collected.append((logits, *batch[1:]))  # Lightning would move each batch's predictions, and wait for them
        return logits

    def transfer_batch_to_device(self, batch: Views, device: torch.device, dataloader_idx: int) -> Views:
        return inputs_to(batch, device)


def score_part(
    trainer: L.Trainer,
    classifier: Classifier,
    source: Source,
    corpus: Corpus,
    part: str,
    views: Sequence[VideoViews] | None = None,
) -> ViewLogits:
    """Return the logits of all views of a part (or of `views`) in the order of its videos, in every process."""
    corpus.require(part)
    batches = source.scoring_batches(corpus.views(part) if views is None else views)
    collector = _LogitCollector(classifier)
    trainer.predict(collector, dataloaders=batches, return_predictions=False)
    corpus.share_failed()
    corpus.require(part)
    logits, labels, video, view = gather_logits(collector.collected)
    classifier.check_finite(logits, f"The {part} part", batches)
    order = video.argsort(stable=True)
    logits, labels, video, view = logits[order], labels[order], video[order], view[order]
    expected = {position for position, _ in corpus.split.views_of(part)}
    scored, failed = {*video.tolist()}, expected & corpus.failed.keys()
    if scored ^ failed != expected or scored & failed:
        missing = first_five([corpus.videos[position].name for position in sorted(expected - scored - failed)])
        raise VidclfError(
            f"The {part} part has {len(expected)} videos; {len(scored)} were scored and {len(failed)} failed, which "
            f"does not add up (neither: {missing}). A missing video would change the score: this is a bug in vidclf."
        )
    num_skipped = corpus.split.num_missing if part == "test" else 0
    return ViewLogits(logits, labels, video, view, len(failed), num_skipped)


def compute_metrics(
    view_logits: ViewLogits,
    predictions: VideoPredictions,
    corpus: Corpus,
    part: str,
    aggregations: Mapping[str, Aggregation],
    temperature: float | None = None,
) -> dict[str, float | int]:
    """Return the content of metrics.json, see `vidclf/evaluation/scores.py`.

    `predictions` are those of the run's aggregation. Scores that a choice may rest on are computed on val alone:
    `top1/<aggregation>` and the best `temperature`, which is then given for other parts.
    """
    log_probabilities, labels = predictions.log_probabilities, predictions.labels
    metrics: dict[str, float | int] = {}
    bounds = intervals_of(predictions)
    for name, score in score_videos(log_probabilities, labels).items():
        metrics[name] = score
        metrics |= {end: bounds[end] for end in (f"{name}_low", f"{name}_high") if end in bounds}
    metrics |= {**_baselines(predictions, corpus), **view_logits.counts, "num_groups": len(predictions.clusters)}
    metrics["num_train_groups"] = groups_per_class(corpus.videos, corpus.split.parts, "train")
    if part == "val":
        views = view_logits.logits, view_logits.labels, view_logits.video
        metrics |= {f"top1/{name}": top1 for name, top1 in score_aggregations(*views, aggregations).items()}
        temperature = fit_temperature(log_probabilities, labels, float(effective_number(predictions.clusters.sizes)))
    elif temperature is not None:
        calibrated = score_videos((log_probabilities.double() / temperature).log_softmax(1), labels)
        metrics |= {f"calibrated_{name}": calibrated[name] for name in ("loss", "ece")}
    return metrics if temperature is None else {**metrics, "temperature": temperature}


def _baselines(predictions: VideoPredictions, corpus: Corpus) -> dict[str, float]:
    """Return the accuracy of guessing, and of always predicting the most frequent class of train."""
    counts = Counter(corpus.videos[video].label for video, _ in corpus.split.views_of("train"))
    baselines = {"chance_top1": 1 / len(corpus.class_names)}
    if counts:
        most_frequent = min(counts, key=lambda label: (-counts[label], label))
        baselines["majority_top1"] = float((predictions.labels == most_frequent).double().mean())
    return baselines


def print_warnings(predictions: VideoPredictions, class_names: Sequence[str]) -> None:
    """Warn on stderr of missing or rough intervals, and of classes without a video."""
    if warning := predictions.clusters.warning:
        say(warning)
    present = {*predictions.labels.tolist()}
    absent = [name for label, name in enumerate(class_names) if label not in present]
    if absent:
        names = sanitize(first_five(absent))
        say(f"{len(absent)} class(es) have no video in this part, so no score includes them: {names}.")

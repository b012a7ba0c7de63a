"""Runs a classifier over a part of the data, one video at a time, and scores what comes out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidclf.contracts import Source, Video, VideoViews, Views
from vidclf.data.corpus import Corpus
from vidclf.errors import VidclfError
from vidclf.evaluation.calibration import fit_temperature
from vidclf.evaluation.intervals import FEWEST_CLUSTERS
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
    """The logits of every view of a part, and whose they are.

    Of its videos `num_failed` could not be read, and `num_skipped` more are named by an official list and not there.
    """

    logits: Float[Tensor, "N K"]
    labels: Int[Tensor, " N"]
    video: Int[Tensor, " N"]
    view: Int[Tensor, " N"]
    num_failed: int
    num_skipped: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many videos were scored, could not be read, and are not there."""
        scored = len(self.video.unique())
        return {"num_videos": scored, "num_failed": self.num_failed, "num_skipped": self.num_skipped}

    def aggregate(self, aggregation: Aggregation, videos: Sequence[Video]) -> VideoPredictions:
        """Return what an aggregation makes of the views; `videos` are all of the data set."""
        return predict_videos(self.logits, self.labels, self.video, aggregation, videos)

    def score_all(self, aggregations: Mapping[str, Aggregation]) -> dict[str, float]:
        """Return the top1 of each aggregation, by name."""
        return score_aggregations(self.logits, self.labels, self.video, aggregations)


class _LogitCollector(L.LightningModule):
    """Keeps the classifier's logits of the views that it is shown, where they were computed, and whose they are."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.judged: list[tuple[Tensor, ...]] = []

    def predict_step(self, batch: Views, batch_idx: int = 0) -> Tensor:
        logits = self.classifier.predict_logits(batch.inputs)
        self.judged.append((logits, *batch[1:]))  # Lightning, asked for predictions, moves each, and waits for it
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
    """Return the logits of all views of a part, in the order of its videos; all processes return the same.

    Args:
        trainer: runs the classifier.
        classifier: of the run.
        source: of the batches.
        corpus: whose part it is.
        part: train, val or test.
        views: to be scored in place of the part's own.

    Raises:
        VidclfError: the part has no video that can be read, or a logit is not finite.
    """
    corpus.require(part)
    views = corpus.views(part) if views is None else views
    batches = source.scoring_batches(views)
    judging = _LogitCollector(classifier)
    trainer.predict(judging, dataloaders=batches, return_predictions=False)
    corpus.share_failed()
    corpus.require(part)
    logits, labels, video, view = gather_logits(judging.judged)
    classifier.check_finite(logits, f"The {part} part", batches)
    order = video.argsort(stable=True)
    logits, labels, video, view = logits[order], labels[order], video[order], view[order]
    wanted = {one for one, _ in corpus.split.views_of(part)}
    scored, failed = {*video.tolist()}, wanted & corpus.failed.keys()
    if scored ^ failed != wanted or scored & failed:
        lost = first_five([corpus.videos[one].name for one in sorted(wanted - scored - failed)])
        raise VidclfError(
            f"The {part} part has {len(wanted)} videos; {len(scored)} were scored and {len(failed)} failed, which does "
            f"not add up (neither: {lost}). A video that is missing would change the score: this is a mistake of ours."
        )
    skipped = corpus.split.num_missing if part == "test" else 0
    return ViewLogits(logits, labels, video, view, len(failed), skipped)


def compute_metrics(
    judged: ViewLogits,
    videos: VideoPredictions,
    corpus: Corpus,
    part: str,
    aggregations: Mapping[str, Aggregation],
    temperature: float | None = None,
) -> dict[str, float | int]:
    """Return the content of metrics.json, see `vidclf/evaluation/scores.py`.

    What may be chosen by is scored where choosing is allowed: `top1/<aggregation>` and the best `temperature`, on val.

    Args:
        judged: the part.
        videos: what the run's aggregation makes of it.
        corpus: whose part it is.
        part: train, val or test.
        aggregations: all of them, by name.
        temperature: fitted on val before, for another part; None: not known.
    """
    scores = videos.log_probabilities, videos.labels
    metrics: dict[str, float | int] = {}
    bounds = intervals_of(videos)
    for name, score in score_videos(*scores).items():
        metrics[name] = score
        metrics |= {end: bounds[end] for end in (f"{name}_low", f"{name}_high") if end in bounds}
    metrics |= {**baselines_of(videos, corpus), **judged.counts, "num_groups": len(videos.clusters)}
    if part == "val":
        metrics |= {f"top1/{name}": top1 for name, top1 in judged.score_all(aggregations).items()}
        temperature = fit_temperature(*scores)
    elif temperature is not None:
        calibrated = score_videos((scores[0].double() / temperature).log_softmax(1), scores[1])
        metrics |= {f"calibrated_{name}": calibrated[name] for name in ("loss", "ece")}
    return metrics if temperature is None else {**metrics, "temperature": temperature}


def baselines_of(videos: VideoPredictions, corpus: Corpus) -> dict[str, float]:
    """Return what guessing scores, and who always names the commonest class of train."""
    trained = Counter(corpus.videos[video].label for video, _ in corpus.split.views_of("train"))
    baselines = {"chance_top1": 1 / len(corpus.class_names)}
    if trained:
        commonest = min(trained, key=lambda label: (-trained[label], label))
        baselines["majority_top1"] = float((videos.labels == commonest).double().mean())
    return baselines


def print_warnings(videos: VideoPredictions, class_names: Sequence[str]) -> None:
    """Say what to know before the scores are believed."""
    if why := videos.clusters.why_none:
        say(f"There is no interval: {why}.")
    elif videos.clusters.are_few:
        say(
            f"The intervals are rough: the videos are of {len(videos.clusters)} groups, and {FEWEST_CLUSTERS} or more "
            "are needed to know how much groups differ."
        )
    tested = {*videos.labels.tolist()}
    untested = [name for label, name in enumerate(class_names) if label not in tested]
    if untested:
        found = sanitize(first_five(untested))
        say(f"{len(untested)} class(es) have no video in this part, and are in no score of it: {found}.")

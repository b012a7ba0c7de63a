"""Runs a classifier over a part of the data, one video at a time, and scores what comes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import lightning as L
from jaxtyping import Float, Int
from torch import Tensor

from vidclf.contracts import VideoViews
from vidclf.data.corpus import Corpus
from vidclf.data.frames import FrameReader
from vidclf.evaluation.scores import Aggregation, score_views
from vidclf.features.batches import StoredFeatures
from vidclf.models.classifier import Classifier, gather_views


@dataclass(frozen=True)
class Judged:
    """The logits of every view of a part, and whose they are; `num_failed` videos of it gave none."""

    logits: Float[Tensor, "N K"]
    labels: Int[Tensor, " N"]
    video: Int[Tensor, " N"]
    view: Int[Tensor, " N"]
    num_failed: int


def judge(
    trainer: L.Trainer,
    classifier: Classifier,
    source: StoredFeatures | FrameReader,
    corpus: Corpus,
    part: str,
    views: Sequence[VideoViews] | None = None,
) -> Judged:
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
    classifier.judged = []
    trainer.predict(classifier, dataloaders=batches, return_predictions=False)
    corpus.share_failed()
    corpus.require(part)
    logits, labels, video, view = gather_views(classifier.judged)
    classifier.check_finite(logits, f"The {part} part", batches)
    order = video.argsort(stable=True)
    logits, labels, video, view = logits[order], labels[order], video[order], view[order]
    return Judged(logits, labels, video, view, corpus.part_size(part) - len(video.unique()))


def scores_of(judged: Judged, classifier: Classifier, aggregations: Mapping[str, Aggregation]) -> dict[str, float]:
    """Return the content of metrics.json."""
    metrics = score_views(judged.logits, judged.labels, judged.video, classifier.aggregation, aggregations)
    return {**metrics, "num_videos": len(judged.video.unique()), "num_failed": judged.num_failed}

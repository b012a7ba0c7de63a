"""Runs a classifier over a part of the data, one video at a time, and scores what comes out."""

from collections.abc import Mapping
from dataclasses import dataclass

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidclf.datamodule import VideoDataModule
from vidclf.evaluation.scores import Aggregation, score_views
from vidclf.models.classifier import Classifier
from vidclf.system.ranks import gather


@dataclass(frozen=True)
class Judged:
    """The logits of every view of a part, and whose they are; `num_failed` videos of it gave none."""

    logits: Float[Tensor, "N K"]
    labels: Int[Tensor, " N"]
    video: Int[Tensor, " N"]
    view: Int[Tensor, " N"]
    num_failed: int


def judge(trainer: L.Trainer, classifier: Classifier, datamodule: VideoDataModule, part: str) -> Judged:
    """Return the logits of all views of a part, in the order of its videos; all processes return the same.

    Raises:
        VidclfError: the part has no video that can be read.
    """
    datamodule.scored_part = part
    own = trainer.predict(classifier, datamodule=datamodule) or []
    outputs = [output for part_of_rank in gather(own) for output in part_of_rank]
    outputs.sort(key=lambda output: int(output[1].video[0]))
    for failed in gather(datamodule.failed):
        datamodule.failed |= failed
    logits = torch.cat([logits for logits, _ in outputs])
    labels, video, view = (torch.cat([views[i] for _, views in outputs]) for i in (1, 2, 3))
    num_failed = datamodule.part_size(part) - len(outputs)
    return Judged(logits, labels, video, view, num_failed)


def scores_of(judged: Judged, classifier: Classifier, aggregations: Mapping[str, Aggregation]) -> dict[str, float]:
    """Return the content of metrics.json."""
    metrics = score_views(judged.logits, judged.labels, judged.video, classifier.aggregation, aggregations)
    return {**metrics, "num_videos": len(judged.video.unique()), "num_failed": judged.num_failed}

"""From logits of views to the numbers of metrics.json."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from vidclf.contracts import Video
from vidclf.evaluation.calibration import calibration_error, interval_of_calibration_error
from vidclf.evaluation.intervals import (
    Clusters,
    Interval,
    bootstrap_mean,
    interval_of_accuracy,
)
from vidclf.models.classifier import aggregate_videos

Aggregation = Callable[[Float[Tensor, "V K"]], Float[Tensor, " K"]]


@dataclass(frozen=True)
class VideoPredictions:
    """What was made of the M videos of a part.

    Attributes:
        log_probabilities: of each class, a row a video.
        labels: class indices.
        positions: of the videos in their data set's list.
        clusters: which of them hang together.
    """

    log_probabilities: Float[Tensor, "M K"]
    labels: Int[Tensor, " M"]
    positions: Sequence[int]
    clusters: Clusters

    @property
    def predicted(self) -> Int[Tensor, " M"]:
        """The most probable class of each."""
        return self.log_probabilities.argmax(1)

    @property
    def is_correct(self) -> Float[np.ndarray, " M"]:
        """1 where that is the label."""
        return (self.predicted == self.labels).double().numpy()


def predict_videos(
    logits: Float[Tensor, "N K"],
    labels: Int[Tensor, " N"],
    video: Int[Tensor, " N"],
    aggregation: Aggregation,
    videos: Sequence[Video],
) -> VideoPredictions:
    """Return what an aggregation makes of the logits of views; `video` counts `videos`."""
    log_probabilities, of_videos = aggregate_videos(logits, labels, video, aggregation)
    positions = video.unique().tolist()
    clusters = Clusters.of([videos[position].unit for position in positions], of_videos.tolist())
    return VideoPredictions(log_probabilities, of_videos, positions, clusters)


def score_videos(log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"]) -> dict[str, float]:
    """Return the share of videos whose label is first (`top1`) or among five (`top5`), the mean of the classes'
    own shares (`mean_class`, over the classes that occur), the mean negative log-likelihood in nats (`loss`), and the
    expected calibration error (`ece`): how far a prediction's probability lies from the share that is right.
    """
    num_classes = log_probabilities.shape[1]
    accuracy = partial(multiclass_accuracy, log_probabilities, labels, num_classes)
    # Not torchmetrics' macro average, which counts a class that is only predicted as one with no hit.
    of_classes = accuracy(average="none")[labels.unique()]
    return {
        "top1": accuracy(average="micro").item(),
        "top5": accuracy(average="micro", top_k=min(5, num_classes)).item(),
        "mean_class": of_classes.mean().item(),
        "loss": F.nll_loss(log_probabilities, labels).item(),
        "ece": calibration_error(log_probabilities, labels),
    }


def intervals_of(judged: VideoPredictions) -> dict[str, float]:
    """Return `<score>_low` and `<score>_high`, the 95 % interval of each score; nothing of a single group's videos."""
    log_probabilities, labels, clusters = judged.log_probabilities, judged.labels, judged.clusters
    among_five = _is_among(log_probabilities, labels, 5).double().numpy()
    losses = F.nll_loss(log_probabilities, labels, reduction="none").double().numpy()
    intervals = {
        "top1": interval_of_accuracy(judged.is_correct, clusters),
        "top5": interval_of_accuracy(among_five, clusters),
        "mean_class": interval_of_accuracy(judged.is_correct, clusters, labels.numpy()),
        "loss": bootstrap_mean(losses, clusters),
        "ece": interval_of_calibration_error(log_probabilities, labels, clusters),
    }
    return {key: value for name, found in intervals.items() for key, value in _named(name, found).items()}


def score_numbers_of_views(
    logits: Float[Tensor, "N K"],
    labels: Int[Tensor, " N"],
    video: Int[Tensor, " N"],
    aggregation: Aggregation,
    videos: Sequence[Video],
) -> list[tuple[int, float, Interval | None]]:
    """Return (number of views, top1, its interval): of 1, 2, 4, ... views spread over each video, and of all.

    A video with fewer counts with all it has.
    """
    counts = torch.unique_consecutive(video, return_counts=True)[1].tolist()
    most, rows = max(counts), []
    for num_views in [*(2**power for power in range(most.bit_length()) if 2**power < most), most]:
        kept = torch.cat([_spread(count, num_views) for count in counts])
        judged = predict_videos(logits[kept], labels[kept], video[kept], aggregation, videos)
        rows.append(
            (num_views, float(judged.is_correct.mean()), interval_of_accuracy(judged.is_correct, judged.clusters))
        )
    return rows


def score_aggregations(
    logits: Float[Tensor, "N K"],
    labels: Int[Tensor, " N"],
    video: Int[Tensor, " N"],
    aggregations: Mapping[str, Aggregation],
) -> dict[str, float]:
    """Return the top1 of each aggregation, by name."""
    scored = {name: aggregate_videos(logits, labels, video, one) for name, one in aggregations.items()}
    return {name: score_videos(*one)["top1"] for name, one in scored.items()}


def _named(name: str, interval: Interval | None) -> dict[str, float]:
    return {} if interval is None else {f"{name}_low": interval.low, f"{name}_high": interval.high}


def _is_among(log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"], top: int) -> Bool[Tensor, " M"]:
    first = log_probabilities.topk(min(top, log_probabilities.shape[1])).indices
    return (first == labels[:, None]).any(1)


def _spread(count: int, num_views: int) -> Bool[Tensor, " count"]:
    """Return which of `count` views are the middles of `num_views` equal stretches."""
    kept = torch.zeros(count, dtype=torch.bool)
    kept[((torch.arange(num_views) + 0.5) * (count / num_views)).long().clamp(max=count - 1)] = True
    return kept

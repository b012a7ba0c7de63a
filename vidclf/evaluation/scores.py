"""From logits of views to the numbers of metrics.json."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vidclf.contracts import Video
from vidclf.evaluation.calibration import calibration_error, interval_of_calibration_error
from vidclf.evaluation.intervals import Clusters, Interval, bootstrap_mean, interval_of_accuracy
from vidclf.models.classifier import aggregate_videos, top1_of

Aggregation = Callable[[Float[Tensor, "V K"]], Float[Tensor, " K"]]


@dataclass(frozen=True)
class VideoPredictions:
    """The predictions for the M videos of a part; `positions` are those in the data set's list of videos."""

    log_probabilities: Float[Tensor, "M K"]
    labels: Int[Tensor, " M"]
    positions: Sequence[int]
    clusters: Clusters

    @property
    def predicted(self) -> Int[Tensor, " M"]:
        """The most probable class of each video; of equally probable ones, the lowest index."""
        return self.log_probabilities.argmax(1)

    @property
    def is_correct(self) -> Float[np.ndarray, " M"]:
        """1 where the most probable class is the label, else 0."""
        return (self.predicted == self.labels).double().numpy()

    @property
    def accuracy(self) -> tuple[float, Interval | None]:
        """The share of correct videos, and its interval (None: all videos are of one group)."""
        return float(self.is_correct.mean()), interval_of_accuracy(self.is_correct, self.clusters)


def predict_videos(
    logits: Float[Tensor, "N K"],
    labels: Int[Tensor, " N"],
    video: Int[Tensor, " N"],
    aggregation: Aggregation,
    videos: Sequence[Video],
) -> VideoPredictions:
    """Return the predictions that an aggregation makes of the logits of views; `video` are positions in `videos`."""
    log_probabilities, video_labels = aggregate_videos(logits, labels, video, aggregation)
    positions = video.unique().tolist()
    clusters = Clusters.of([videos[position].unit for position in positions], video_labels.tolist())
    return VideoPredictions(log_probabilities, video_labels, positions, clusters)


def score_videos(log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"]) -> dict[str, float]:
    """Return the scores of M videos.

    They are the share of videos with the label first (`top1`) or among the first five (`top5`), the mean accuracy of
    the classes that occur (`mean_class`), the mean negative log-likelihood in nats (`loss`), and the expected
    calibration error (`ece`): how far the probability of a prediction is from the share of correct ones.
    """
    ranks = rank_labels(log_probabilities, labels)
    is_correct = (ranks == 0).float()
    class_accuracies = torch.stack([is_correct[labels == label].mean() for label in labels.unique()])
    return {
        "top1": is_correct.mean().item(),
        "top5": (ranks < 5).float().mean().item(),
        "mean_class": class_accuracies.mean().item(),
        "loss": F.nll_loss(log_probabilities, labels).item(),
        "ece": calibration_error(log_probabilities, labels),
    }


def rank_labels(log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"]) -> Int[Tensor, " M"]:
    """Return how many classes come before each video's label; of equally probable classes, the lower index is first."""
    of_label = log_probabilities.gather(1, labels[:, None])
    is_lower = torch.arange(log_probabilities.shape[1]) < labels[:, None]
    return ((log_probabilities > of_label) | ((log_probabilities == of_label) & is_lower)).sum(1)


def intervals_of(predictions: VideoPredictions) -> dict[str, float]:
    """Return `<score>_low` and `<score>_high`, the 95 % interval of each score; nothing for a single group."""
    log_probabilities, labels = predictions.log_probabilities, predictions.labels
    is_correct, clusters = predictions.is_correct, predictions.clusters
    among_five = (rank_labels(log_probabilities, labels) < 5).double().numpy()
    losses = F.nll_loss(log_probabilities, labels, reduction="none").double().numpy()
    intervals = {
        "top1": interval_of_accuracy(is_correct, clusters),
        "top5": interval_of_accuracy(among_five, clusters),
        "mean_class": interval_of_accuracy(is_correct, clusters, labels.numpy()),
        "loss": bootstrap_mean(losses, clusters),
        "ece": interval_of_calibration_error(log_probabilities, labels, clusters),
    }
    return {
        f"{name}_{end}": value
        for name, interval in intervals.items()
        if interval
        for end, value in interval._asdict().items()
    }


def score_numbers_of_views(
    logits: Float[Tensor, "N K"],
    labels: Int[Tensor, " N"],
    video: Int[Tensor, " N"],
    aggregation: Aggregation,
    videos: Sequence[Video],
) -> list[tuple[int, float, Interval | None]]:
    """Return (number of views, top1, its interval) for 1, 2, 4, ... views spread over each video, and for all.

    A video with fewer views is scored with all that it has.
    """
    counts = torch.unique_consecutive(video, return_counts=True)[1].tolist()
    largest, rows = max(counts), []
    for num_views in [*(2**power for power in range(largest.bit_length()) if 2**power < largest), largest]:
        used = torch.cat([_spread(count, num_views) for count in counts])
        predictions = predict_videos(logits[used], labels[used], video[used], aggregation, videos)
        rows.append((num_views, *predictions.accuracy))
    return rows


def score_aggregations(
    logits: Float[Tensor, "N K"],
    labels: Int[Tensor, " N"],
    video: Int[Tensor, " N"],
    aggregations: Mapping[str, Aggregation],
) -> dict[str, float]:
    """Return the top1 of each aggregation, by name."""
    return {
        name: top1_of(*aggregate_videos(logits, labels, video, aggregation)).item()
        for name, aggregation in aggregations.items()
    }


def _spread(count: int, num_views: int) -> Bool[Tensor, " count"]:
    """Return which of `count` views are the middles of `num_views` equal stretches."""
    used = torch.zeros(count, dtype=torch.bool)
    used[((torch.arange(num_views) + 0.5) * (count / num_views)).long().clamp(max=count - 1)] = True
    return used

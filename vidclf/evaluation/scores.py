"""From logits of views to the numbers of metrics.json."""

from collections.abc import Callable, Mapping
from functools import partial

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from vidclf.models.classifier import aggregate_videos

Aggregation = Callable[[Float[Tensor, "V K"]], Float[Tensor, " K"]]


def score_videos(log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"]) -> dict[str, float]:
    """Return the share of videos whose label is first (`top1`) or among five (`top5`), the mean of the classes'
    own shares (`mean_class`, over the classes that occur), and the mean negative log-likelihood in nats (`loss`).
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
    }


def score_views(
    logits: Float[Tensor, "N K"],
    labels: Int[Tensor, " N"],
    video: Int[Tensor, " N"],
    chosen: Aggregation,
    aggregations: Mapping[str, Aggregation],
) -> dict[str, float]:
    """Return the scores by the `chosen` aggregation, and `top1/<name>` by every other one."""
    metrics = score_videos(*aggregate_videos(logits, labels, video, chosen))
    for name, aggregation in aggregations.items():
        scores = score_videos(*aggregate_videos(logits, labels, video, aggregation))
        metrics[f"top1/{name}"] = scores["top1"]
    return metrics

"""From the logits of a video's views to the log-probabilities of the video.

Every function takes logits (V, K) and returns log-probabilities (K,): finite, their exponentials sum to 1,
whatever the order of the views. It stays among logarithms, where a probability of 1e-5000 is still a number;
in float32, or in float64 if given.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vidclf.errors import VidclfError


def mode(logits: Float[Tensor, "V K"]) -> Float[Tensor, " K"]:
    """The class that most views vote for: log((votes + mean probability) / (V + 1)).

    The mean, less than one vote, breaks ties and keeps classes without a vote above zero.
    """
    votes = F.one_hot(logits.argmax(1), logits.shape[1]).sum(0)
    log_mean = mean(logits)
    return torch.logaddexp(votes.to(log_mean).log(), log_mean) - math.log(len(logits) + 1)


def mean(logits: Float[Tensor, "V K"]) -> Float[Tensor, " K"]:
    """The mean of the views' probabilities."""
    return _log_mean(_log_probabilities(logits))


def max(logits: Float[Tensor, "V K"]) -> Float[Tensor, " K"]:
    """The largest probability that a view gives each class, normalised."""
    return _log_probabilities(logits).amax(0).log_softmax(0)


def logit_mean(logits: Float[Tensor, "V K"]) -> Float[Tensor, " K"]:
    """The softmax of the mean logits: the geometric mean of the views' probabilities, normalised."""
    return _log_probabilities(logits).mean(0).log_softmax(0)


def median(logits: Float[Tensor, "V K"]) -> Float[Tensor, " K"]:
    """The median probability of each class (of an even V, the mean of the middle two), normalised."""
    ordered = _log_probabilities(logits).sort(0).values
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]  # one or two views
    return _log_mean(middle).log_softmax(0)


def topk_mean(logits: Float[Tensor, "V K"], k: int = 3) -> Float[Tensor, " K"]:
    """The mean of the `k` largest probabilities of each class (of all, where V is less), normalised."""
    if k < 1:
        raise VidclfError(f"aggregation.k={k}: the mean of the k largest needs a k of at least 1.")
    ordered = _log_probabilities(logits).sort(0, descending=True).values
    return _log_mean(ordered[:k]).log_softmax(0)


def _log_probabilities(logits: Float[Tensor, "V K"]) -> Float[Tensor, "V K"]:
    if not len(logits):
        raise VidclfError("A video without views has no label: the logits have shape (0, K), and V must be 1 or more.")
    return logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _log_mean(log_probabilities: Float[Tensor, "V K"]) -> Float[Tensor, " K"]:
    return log_probabilities.logsumexp(0) - math.log(len(log_probabilities))

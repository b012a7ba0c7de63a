"""From the logits of a video's views to the log-probabilities of the video.

Every function takes logits (V, K) and returns log-probabilities (K,) that do not depend on the order of the views. They
are finite, because they are computed as logarithms, in float32 or in the logits' format if that is wider.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vidclf.errors import VidclfError


def mode(logits: Float[Tensor, "V K"], ties: str = "mean") -> Float[Tensor, " K"]:
    """Return log((votes + mean probability) / (V + 1)), where each view votes for one class.

    The mean counts less than one vote: it breaks ties and keeps classes without a vote above zero. With `ties="first"`
    it is 1 / K for every class, so that the first class of a tie wins, as in the tutorial.
    """
    if ties not in ("mean", "first"):
        raise VidclfError(f"aggregation.ties={ties}: must be mean or first.")
    votes = F.one_hot(logits.argmax(1), logits.shape[1]).sum(0)
    log_share = mean(logits)
    if ties == "first":
        log_share = torch.full_like(log_share, -math.log(len(log_share)))
    # ONNX Runtime takes the sum of exponentials of minus infinity for minus infinity.
    log_votes = torch.where(votes > 0, (votes + log_share.exp()).log(), log_share)
    return log_votes - _log(logits.shape[0] + 1)


def mean(logits: Float[Tensor, "V K"]) -> Float[Tensor, " K"]:
    """Return the mean of the views' probabilities."""
    return _log_mean(_log_probabilities(logits))


def max(logits: Float[Tensor, "V K"]) -> Float[Tensor, " K"]:
    """Return the largest probability of each class over the views, normalised."""
    return _log_probabilities(logits).amax(0).log_softmax(0)


def logit_mean(logits: Float[Tensor, "V K"]) -> Float[Tensor, " K"]:
    """Return the softmax of the mean logits: the geometric mean of the views' probabilities, normalised."""
    return _log_probabilities(logits).mean(0).log_softmax(0)


def median(logits: Float[Tensor, "V K"]) -> Float[Tensor, " K"]:
    """Return the median probability of each class (for an even V the mean of the middle two), normalised."""
    ordered = _log_probabilities(logits).sort(0).values
    num_views = logits.shape[0]
    middle = torch.stack([ordered[(num_views - 1) // 2], ordered[num_views // 2]])  # the same one for an odd V
    return _log_mean(middle).log_softmax(0)


def topk_mean(logits: Float[Tensor, "V K"], k: int = 3) -> Float[Tensor, " K"]:
    """Return the mean of the `k` largest probabilities of each class (of all if V < k), normalised."""
    if k < 1:
        raise VidclfError(f"aggregation.k={k}: must be 1 or more.")
    ordered = _log_probabilities(logits).sort(0, descending=True).values
    is_left_out = torch.arange(logits.shape[0], device=logits.device) >= k
    return ordered.masked_fill(is_left_out[:, None], torch.finfo(ordered.dtype).min).logsumexp(0).log_softmax(0)


def _log_probabilities(logits: Float[Tensor, "V K"]) -> Float[Tensor, "V K"]:
    if not logits.shape[0]:
        raise VidclfError("logits: the shape is (0, K), so the video has no views. V must be 1 or more.")
    return logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _log_mean(log_probabilities: Float[Tensor, "V K"]) -> Float[Tensor, " K"]:
    return log_probabilities.logsumexp(0) - _log(log_probabilities.shape[0])


def _log(count: int | torch.SymInt) -> Float[Tensor, ""]:
    """Return a logarithm as a tensor, because the number of views varies in an exported model."""
    return torch.full((), count, dtype=torch.float64).log()

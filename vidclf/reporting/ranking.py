"""Choose what to label next: videos that a model is unsure of, unlike those with labels, and unlike each other."""

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


def uncertainty(log_probabilities: Float[Tensor, "M K"]) -> Float[Tensor, " M"]:
    """Return the entropy of each prediction, as a share of the largest: 0 sure, 1 all classes alike."""
    entropy = -(log_probabilities.exp() * log_probabilities.clamp(min=-1e4)).sum(1)
    return entropy / torch.tensor(log_probabilities.shape[1]).log()


def choose(
    log_probabilities: Float[Tensor, "M K"],
    features: Float[Tensor, "M D"],
    labelled: Float[Tensor, "L D"],
    groups: Sequence[Hashable],
    number: int,
) -> list[int]:
    """Return the positions of up to `number` videos, the most useful first.

    Each is the one with the largest product of its uncertainty and its distance to the nearest video that has a label
    or was chosen before: k-center (Sener and Savarese, ICLR 2018), weighted by uncertainty. A group is chosen twice
    only when all were chosen once.

    Args:
        log_probabilities: of M videos without a label.
        features: of these, one row each.
        labelled: features of videos that have labels; L may be 0.
        groups: of the videos; those of one group are alike.
        number: of videos to choose.
    """
    mean = torch.cat([features, labelled]).mean(0)  # what all videos share says nothing
    directions, known = normalize(features - mean), normalize(labelled - mean)
    cosines = (directions @ known.T).amax(1) if len(known) else torch.full((len(features),), -1.0)
    unsure, is_left = uncertainty(log_probabilities), torch.ones(len(features), dtype=torch.bool)
    chosen: list[int] = []
    used: set[Hashable] = set()
    for _ in range(min(number, len(features))):
        is_new = torch.tensor([group not in used for group in groups]) & is_left
        if not is_new.any():
            used, is_new = set(), is_left
        worth = (unsure * (1 - cosines)).where(is_new, torch.tensor(-1.0))
        best = int(worth.argmax())
        chosen.append(best)
        used.add(groups[best])
        is_left[best] = False
        cosines = cosines.maximum(directions @ directions[best])
    return chosen

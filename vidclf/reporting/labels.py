"""Which labels are probably wrong: those that the model finds least probable.

The rules are cleanlab's (Northcutt et al., JAIR 2021): self-confidence, and normalised margin.
"""

import numpy as np
from jaxtyping import Float, Int


def self_confidence(probabilities: Float[np.ndarray, "M K"], labels: Int[np.ndarray, " M"]) -> Float[np.ndarray, " M"]:
    """Return the probability of each video's label."""
    return probabilities[np.arange(len(labels)), labels]


def normalized_margin(
    probabilities: Float[np.ndarray, "M K"], labels: Int[np.ndarray, " M"]
) -> Float[np.ndarray, " M"]:
    """Return how far the label's probability is above the best other class's: from 0 (surely another one) to 1."""
    of_label = self_confidence(probabilities, labels)
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return (of_label - others.max(1) + 1) / 2


def rank_labels(probabilities: Float[np.ndarray, "M K"], labels: Int[np.ndarray, " M"]) -> Int[np.ndarray, " M"]:
    """Return the videos, the most doubtful label first: by self-confidence, and by margin where that is equal."""
    margin = normalized_margin(probabilities, labels)
    return np.lexsort((margin, self_confidence(probabilities, labels)))

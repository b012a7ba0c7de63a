"""Calibration: are predictions correct as often as their probabilities say?"""

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor

from vidclf.system.terminal import say

NUM_BINS = 15
MAX_TEMPERATURE = 20.0  # temperatures are searched from 1 / 20 to 20
PRIOR_STD = 0.5  # of the temperature's logarithm


def calibration_error(log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"]) -> float:
    """Return the expected calibration error, over 15 bins of equal width (Naeini et al., AAAI 2015).

    It is a mean of absolute values, so it is above 0 for a perfectly calibrated model, too, and more so the fewer
    videos there are. No interval that holds the truth often enough is known for it, so it has none.
    """
    bins = reliability(log_probabilities, labels)
    return sum(count * abs(probability - accuracy) for probability, accuracy, count in bins) / len(labels)


def reliability(log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"]) -> list[tuple[float, float, int]]:
    """Return (mean probability, accuracy, number of videos) for each bin that is not empty."""
    confidence, is_correct, bins = _bin_predictions(log_probabilities, labels)
    counts = np.bincount(bins)
    sums = zip(np.bincount(bins, confidence), np.bincount(bins, is_correct), counts, strict=True)
    return [
        (float(probability / count), float(num_correct / count), int(count))
        for probability, num_correct, count in sums
        if count
    ]


def fit_temperature(
    log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"], num_groups: float | int | None = None
) -> float:
    """Return the number to divide log-probabilities by so that their loss is smallest (Guo et al., ICML 2017).

    Without errors the smallest loss is at 0, and by chance at infinity. So a log-normal prior holds the temperature
    near 1, and the mean loss counts once a group (by default, a video): see experiments/temperature.
    """
    num_groups = num_groups or len(labels)

    def loss(log_temperature: float) -> float:
        mean_loss = F.cross_entropy(log_probabilities.double() / np.exp(log_temperature), labels).item()
        return num_groups * mean_loss + log_temperature**2 / (2 * PRIOR_STD**2)

    bounds = (-np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE))
    temperature = float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
    if max(temperature, 1 / temperature) > 0.999 * MAX_TEMPERATURE:
        say(f"temperature={temperature:.4g} is where the search ends: val's probabilities are far from its accuracy.")
    return temperature


def confidence(log_probabilities: Float[Tensor, "*M K"], temperature: float | None) -> Float[Tensor, "*M"]:
    """Return the calibrated probability of each prediction; without a temperature, as it is."""
    return (log_probabilities.double() / (temperature or 1.0)).softmax(-1).amax(-1)


def _bin_predictions(
    log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"]
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"], Int[np.ndarray, " M"]]:
    """Return each prediction's probability, whether it is correct, and its bin; the last one includes probability 1."""
    best, predicted = log_probabilities.max(1)
    confidence = best.exp().clamp(max=1).numpy()
    bins = np.digitize(confidence, np.linspace(0, 1, NUM_BINS + 1, dtype=confidence.dtype)) - 1
    bins = np.minimum(bins, NUM_BINS - 1)
    return confidence.astype(float), (predicted == labels).double().numpy(), bins

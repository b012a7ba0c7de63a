"""Calibration: are predictions correct as often as their probabilities say?"""

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from vidclf.evaluation.intervals import Clusters, Interval, percentiles
from vidclf.system.terminal import say

NUM_BINS = 15
MAX_TEMPERATURE = 20.0  # temperatures are searched from 1 / 20 to 20
PRIOR_STD = 0.5  # of the temperature's logarithm


def calibration_error(log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"]) -> float:
    """Return the expected calibration error, over 15 bins of equal width (Naeini et al., AAAI 2015)."""
    probabilities = log_probabilities.exp().clamp(max=1)  # torchmetrics takes a value above 1 for a logit
    return multiclass_calibration_error(probabilities, labels, probabilities.shape[1], n_bins=NUM_BINS).item()


def interval_of_calibration_error(
    log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"], clusters: Clusters
) -> Interval | None:
    """Return the interval of the calibration error by the cluster bootstrap; None for a single cluster.

    Resampling biases the error upwards, as it does any mean of absolute values. The basic bootstrap (Davison and
    Hinkley 1997, 5.2) mirrors the percentiles about the error; the interval is cut to 0..1 and contains the error.
    """
    if len(clusters) < 2:
        return None
    confidence, is_correct, bins = _bin_predictions(log_probabilities, labels)
    gaps = np.zeros((len(bins), NUM_BINS + 1))
    gaps[np.arange(len(bins)), bins] = confidence - is_correct
    weights = clusters.resample()
    counts = weights @ clusters.total(np.ones(len(bins)))
    resampled = np.abs(weights @ clusters.total(gaps)).sum(1) / counts
    error = np.abs(gaps.sum(0)).sum() / len(bins)
    low, high = np.clip([2 * error - end for end in reversed(percentiles(resampled))], 0, 1)
    return Interval(float(min(low, error)), float(max(high, error)))


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


def _bin_predictions(
    log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"]
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"], Int[np.ndarray, " M"]]:
    """Return each prediction's probability, whether it is correct, and its bin; probability 1 has a separate bin."""
    best, predicted = log_probabilities.max(1)
    confidence = best.exp().clamp(max=1).numpy()
    bins = np.digitize(confidence, np.linspace(0, 1, NUM_BINS + 1, dtype=confidence.dtype)) - 1
    return confidence.astype(float), (predicted == labels).double().numpy(), bins

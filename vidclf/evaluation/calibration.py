"""Whether predictions are right as often as their probabilities say."""

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from vidclf.evaluation.intervals import Clusters, Interval, percentiles

NUM_BINS = 15
HOTTEST = 20.0  # temperatures are looked for from 1 / 20 to 20


def calibration_error(log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"]) -> float:
    """Return the expected calibration error, over 15 bins of equal width (Naeini et al., AAAI 2015)."""
    # A rounding above 1 would be taken for a logit.
    probabilities = log_probabilities.exp().clamp(max=1)
    return multiclass_calibration_error(probabilities, labels, probabilities.shape[1], n_bins=NUM_BINS).item()


def interval_of_calibration_error(
    log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"], clusters: Clusters
) -> Interval | None:
    """Return its interval by the cluster bootstrap; None over one cluster.

    Resampled errors are too large by about what the error is, as any mean of absolute values; so the interval is the
    percentiles turned about the error (Davison and Hinkley 1997, 5.2), within 0 and 1, and holds it.
    """
    if len(clusters) < 2:
        return None
    confidence, is_correct, bins = _binned(log_probabilities, labels)
    gaps = np.zeros((len(bins), NUM_BINS + 1))
    gaps[np.arange(len(bins)), bins] = confidence - is_correct
    weights = clusters.resample()
    counts = weights @ clusters.total(np.ones(len(bins)))
    resampled = np.abs(weights @ clusters.total(gaps)).sum(1) / counts
    error = np.abs(gaps.sum(0)).sum() / len(bins)
    low, high = np.clip([2 * error - end for end in reversed(percentiles(resampled))], 0, 1)
    return Interval(float(min(low, error)), float(max(high, error)))


def reliability(log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"]) -> list[tuple[float, float, int]]:
    """Return (mean probability, share that is right, number of videos) of each bin of predictions that has any."""
    confidence, is_correct, bins = _binned(log_probabilities, labels)
    counts = np.bincount(bins)
    sums = zip(np.bincount(bins, confidence), np.bincount(bins, is_correct), counts, strict=True)
    return [(float(said / count), float(right / count), int(count)) for said, right, count in sums if count]


def fit_temperature(log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"]) -> float:
    """Return what log-probabilities are to be divided by so that their loss is least (Guo et al., ICML 2017)."""

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(log_probabilities.double() / np.exp(log_temperature), labels).item()

    found = minimize_scalar(loss, bounds=(-np.log(HOTTEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def _binned(
    log_probabilities: Float[Tensor, "M K"], labels: Int[Tensor, " M"]
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"], Int[np.ndarray, " M"]]:
    """Return of each prediction its probability, whether it is right, and its bin; 1 has a bin of its own."""
    best, predicted = log_probabilities.max(1)
    confidence = best.exp().clamp(max=1).numpy()
    bins = np.digitize(confidence, np.linspace(0, 1, NUM_BINS + 1, dtype=confidence.dtype)) - 1
    return confidence.astype(float), (predicted == labels).double().numpy(), bins

"""Measure how often intervals hold the truth: python -m experiments.intervals.coverage [num_draws=20000] [seed=0]."""

import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
from scipy import stats

from vidclf.evaluation.intervals import LEVEL, Clusters, korn_graubard

EXTRA_CLIPS = 4.4  # a cluster has 1 + Poisson(4.4) clips, as UCF101's
CORRELATIONS, ACCURACIES, NUM_CLUSTERS = (0.3, 0.6), (0.6, 0.8, 0.93), (20, 57, 707)
TAIL = (1 - LEVEL) / 2
AT_ONCE = 2000  # draws, or memory would grow with them


def draw(
    accuracy: float, correlation: float, num_clusters: int, num_draws: int, chance: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of correct clips and of clips of each cluster, (draws, C): beta-binomial."""
    sizes = 1 + chance.poisson(EXTRA_CLIPS, (num_draws, num_clusters))
    strength = 1 / correlation - 1
    chances = chance.beta(accuracy * strength, (1 - accuracy) * strength, sizes.shape)
    return chance.binomial(sizes, chances).astype(float), sizes.astype(float)


def naive(right: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the normal interval of independent clips."""
    total = sizes.sum(-1)
    mean = right.sum(-1) / total
    half = stats.norm.ppf(1 - TAIL) * np.sqrt(mean * (1 - mean) / total)
    return mean - half, mean + half


def percentile_bootstrap(right: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cluster bootstrap's percentiles; all draws share the resamples."""
    num_clusters = right.shape[1]
    weights = Clusters(np.arange(num_clusters), np.zeros(num_clusters, dtype=int)).resample(1000)
    means = (right @ weights.T) / (sizes @ weights.T)
    low, high = np.quantile(means, [TAIL, 1 - TAIL], axis=1)
    return low, high


METHODS = {"korn_graubard": korn_graubard, "bootstrap": percentile_bootstrap, "naive": naive}


def coverage(accuracy: float, correlation: float, num_clusters: int, num_draws: int, seed: int) -> dict[str, float]:
    """Return for each method the share of draws whose interval holds the truth, and the intervals' mean length."""
    chance = np.random.default_rng([seed, num_clusters, round(1000 * accuracy), round(1000 * correlation)])
    found = dict.fromkeys([*METHODS, *(f"{name}_length" for name in METHODS)], 0.0)
    for first in range(0, num_draws, AT_ONCE):
        right, sizes = draw(accuracy, correlation, num_clusters, min(AT_ONCE, num_draws - first), chance)
        for name, method in METHODS.items():
            low, high = method(right, sizes)
            found[name] += float(((low <= accuracy) & (accuracy <= high)).sum()) / num_draws
            found[f"{name}_length"] += float((high - low).sum()) / num_draws
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    settings = dict(argument.split("=") for argument in sys.argv[1:])
    num_draws, seed = int(settings.get("num_draws", 20000)), int(settings.get("seed", 0))
    started, rows = time.perf_counter(), []
    print("| clusters | accuracy | correlation | ours | percentile bootstrap | naive | length of ours |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for num_clusters in NUM_CLUSTERS:
        for accuracy in ACCURACIES:
            for correlation in CORRELATIONS:
                found = coverage(accuracy, correlation, num_clusters, num_draws, seed)
                rows.append({"clusters": num_clusters, "accuracy": accuracy, "correlation": correlation, **found})
                shares = " | ".join(f"{found[name]:.3f}" for name in METHODS)
                length = found["korn_graubard_length"]
                print(f"| {num_clusters} | {accuracy} | {correlation} | {shares} | {length:.2f} |", flush=True)
    content = {"num_draws": num_draws, "seed": seed, "python": platform.python_version(), "rows": rows}
    Path(__file__).with_name("results.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()

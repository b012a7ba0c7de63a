"""Measure how often one setting differs from itself: python -m experiments.intervals.seeds [studies=20] [seed=0]."""

import sys

import numpy as np

from vidclf.comparison.differences import compare_pairs
from vidclf.evaluation.intervals import Clusters

NUM_RUNS, NUM_CLUSTERS = 20, 57


def study(seed: int) -> bool:
    """Return whether any two of 20 runs that differ by chance only are reported as different.

    A video is correct with the chance of its group. In each run another tenth of the groups turn over as a whole.
    """
    chance = np.random.default_rng(seed)
    group = np.repeat(np.arange(NUM_CLUSTERS), 1 + chance.poisson(4.4, NUM_CLUSTERS))
    chances = chance.beta(1.2, 0.5, NUM_CLUSTERS)[group]
    turned = (chance.random((NUM_CLUSTERS, NUM_RUNS)) < 0.1)[group]
    is_correct = chance.random((len(group), NUM_RUNS)) < chances[:, None]
    is_correct = np.where(turned, (chances < 0.5)[:, None], is_correct).astype(float)
    clusters = Clusters.of(group.tolist(), (group % 8).tolist())
    return any(pair.is_significant for pair in compare_pairs(is_correct, np.full(len(group), 1 / len(group)), clusters))


def main() -> None:
    settings = {key: int(value) for key, value in (argument.split("=") for argument in sys.argv[1:])}
    studies, first = settings.get("studies", 20), 1000 * settings.get("seed", 0)
    wrong = sum(study(first + number) for number in range(studies))
    print(f"{wrong} of {studies} studies of {NUM_RUNS} runs of one setting find a difference")


if __name__ == "__main__":
    main()

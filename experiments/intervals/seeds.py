"""Are equal settings told apart? python -m experiments.intervals.seeds [studies=20] [settings=20] [seed=0]."""

import sys
from itertools import combinations

import numpy as np

from vidclf.comparison.differences import Predictions, compare_pairs
from vidclf.evaluation.intervals import Clusters

NUM_CLUSTERS = 57


def study(seed: int, num_settings: int = 20) -> bool:
    """Return whether any two settings, alike but for chance, are said to differ.

    A video's chance of a correct prediction is its group's; a tenth of the groups, others for each, turn over whole.
    """
    chance = np.random.default_rng(seed)
    group = np.repeat(np.arange(NUM_CLUSTERS), 1 + chance.poisson(4.4, NUM_CLUSTERS))
    own = chance.beta(1.2, 0.5, NUM_CLUSTERS)[group]
    turned = (chance.random((NUM_CLUSTERS, num_settings)) < 0.1)[group]
    is_correct = chance.random((len(group), num_settings)) < own[:, None]
    predicted = np.where(turned, (own < 0.5)[:, None], is_correct).astype(int)
    labels, weights = np.ones(len(group), dtype=int), np.ones(len(group))
    clusters = Clusters.of(group.tolist())
    settings = [Predictions([""], column[:, None], labels, weights, clusters) for column in predicted.T]
    return any(pair.is_significant for pair in compare_pairs([*combinations(settings, 2)]))


def main() -> None:
    settings = {key: int(value) for key, value in (argument.split("=") for argument in sys.argv[1:])}
    studies, num_settings, first = settings.get("studies", 20), settings.get("settings", 20), settings.get("seed", 0)
    wrong = sum(study(1000 * first + number, num_settings) for number in range(studies))
    print(f"{wrong} of {studies} studies of {num_settings} equal settings find a difference")


if __name__ == "__main__":
    main()

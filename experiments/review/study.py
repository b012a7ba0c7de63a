"""Compare what `vidclf review` chooses to label next with chance, where the labels are known.

    python -m experiments.review.study experiment=demo
    python -m experiments.review.study dataset.root=ucf3 backbone=custom \
        backbone._target_=experiments.real.lite0.Lite0 trust=true

A tenth of each class's train groups (at least one) has labels. In each round the truth answers for NUM videos of the
remaining train groups, and a logistic head is solved anew on all that have labels; val chooses its strength. `review`
and two halves of its rule are compared with a random choice, on the same first groups, over five draws of these.
Prints the test accuracy after each round, and by how much the mean over the rounds exceeds chance's, with a 95 %
interval by a bootstrap over test groups and draws.
"""

import sys
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vidclf import compose
from vidclf.build.datasets import build_corpus, build_source
from vidclf.build.parts import build_backbone, build_device
from vidclf.data.splits.drawing import keep_groups
from vidclf.evaluation.intervals import Clusters
from vidclf.models.heads.logistic import Logistic
from vidclf.models.loss import CrossEntropy
from vidclf.models.scaling import Scaling
from vidclf.reporting.ranking import choose
from vidclf.system.machine import keep_memory

SEEDS, NUM_ROUNDS, NUM, SHARE = range(5), 8, 20, 10
NUM_DRAWS = 2000
EQUAL = 0.5  # a probability that makes all predictions equally unsure


class Data:
    """The mean features (M, D), labels, groups and parts of all readable videos."""

    def __init__(self, overrides: Sequence[str]) -> None:
        config = compose("train", overrides)
        backbone, device = build_backbone(config), build_device(config)
        corpus = build_corpus(config).look()
        source = build_source(config, corpus, backbone.to(device).eval(), device)
        views = corpus.all_views()
        source.prepare(views)
        features = [source.features([video]).float().flatten(0, 1).mean(0) for video in views]
        self.features = torch.stack(features)
        self.positions = [video.video for video in views]
        self.videos = [corpus.videos[position] for position in self.positions]
        self.parts = [corpus.split.parts[position] for position in self.positions]
        self.labels = torch.tensor([video.label for video in self.videos])
        self.class_names = corpus.class_names

    def of(self, part: str) -> list[int]:
        return [row for row, part_of_row in enumerate(self.parts) if part_of_row == part]


def solve(data: Data, labelled: Sequence[int]) -> Callable[[Sequence[int]], Tensor]:
    """Return a function from rows to the log-probabilities that a head trained on `labelled` gives."""
    scaling = Scaling(data.features.shape[1], "standard")
    scaling.fit(data.features[list(labelled)][:, None])
    head = Logistic(data.features.shape[1], len(data.class_names), strengths=(1, 0.1, 0.01))
    train, val = (
        (scaling(data.features[rows][:, None]), data.labels[rows]) for rows in (list(labelled), data.of("val"))
    )
    head.fit(train, val, CrossEntropy(len(data.class_names)))
    return lambda rows: head(scaling(data.features[list(rows)][:, None])).detach().log_softmax(1)


def pick(
    rule: str, data: Data, pool: list[int], labelled: list[int], scores: Tensor, random: np.random.Generator
) -> list[int]:
    """Return the rows that a rule chooses from the pool."""
    if rule == "chance":
        return random.permutation(pool)[:NUM].tolist()
    features, known = data.features[pool], data.features[labelled]
    if rule == "unsure alone":  # without features that could be near
        features, known = torch.eye(len(pool)), torch.empty(0, len(pool))
    if rule == "far alone":
        scores = torch.full_like(scores, 1 / scores.shape[1]).log()
    groups = [data.videos[row].unit for row in pool]
    return [pool[position] for position in choose(scores, features, known, groups, NUM)]


def rounds(rule: str, data: Data, seed: int) -> np.ndarray:
    """Return which test videos are classified correctly before the first round and after each, (NUM_ROUNDS + 1, T)."""
    num_groups = len({video.group for video, part in zip(data.videos, data.parts, strict=True) if part == "train"})
    kept = keep_groups(data.videos, data.parts, max(1, num_groups // SHARE), seed)
    labelled, pool = ([row for row, part in enumerate(kept) if part == name] for name in ("train", "unused"))
    random, test, correct = np.random.default_rng(seed), data.of("test"), []
    for _ in range(NUM_ROUNDS + 1):
        predict = solve(data, labelled)
        correct.append((predict(test).argmax(1) == data.labels[test]).numpy())
        chosen = pick(rule, data, pool, labelled, predict(pool), random) if pool else []
        labelled = [*labelled, *chosen]
        pool = [row for row in pool if row not in {*chosen}]
    return np.stack(correct)


def interval(gains: np.ndarray, clusters: Clusters) -> tuple[float, float]:
    """Return the interval of the mean gain (seeds, T) over draws of seeds and of groups of test videos."""
    random, sums = np.random.default_rng(0), np.stack([clusters.total(of_seed) for of_seed in gains])  # (seeds, C)
    means = []
    for _ in range(NUM_DRAWS):
        groups = random.integers(0, len(clusters), len(clusters))
        seeds = random.integers(0, len(gains), len(gains))
        means.append(sums[seeds][:, groups].sum() / clusters.sizes[groups].sum() / len(seeds))
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    """Print the table."""
    keep_memory()
    data = Data(sys.argv[1:])
    rules = ("review", "unsure alone", "far alone", "chance")
    correct = {rule: np.stack([rounds(rule, data, seed) for seed in SEEDS]) for rule in rules}  # (seeds, rounds, T)
    clusters = Clusters.of([data.videos[row].unit for row in data.of("test")])
    print(f"{len(data.of('test'))} test videos of {len(clusters)} groups; {NUM} answers a round, {len(SEEDS)} draws")
    print(f"| rule | {' | '.join(f'{NUM * number} more' for number in range(NUM_ROUNDS + 1))} | over chance |")
    print(f"| --- |{' --- |' * (NUM_ROUNDS + 2)}")
    for rule, of_rule in correct.items():
        shown = " | ".join(f"{accuracy:.3f}" for accuracy in of_rule.mean(axis=(0, 2)))
        gains = (of_rule[:, 1:].astype(float) - correct["chance"][:, 1:]).mean(1)  # over the rounds
        low, high = interval(gains, clusters)
        print(f"| {rule} | {shown} | {gains.mean():+.3f} [{low:+.3f}, {high:+.3f}] |")


if __name__ == "__main__":
    main()

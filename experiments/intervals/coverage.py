"""How often 95 % intervals hold the truth: python -m experiments.intervals.coverage [draws=2000] [pairs=150] [seed=0].

Accuracies and differences of two classifiers, of videos in groups. The tables show the lowest and the mean share of
draws whose interval holds the truth, and the mean length; `results.json` has every line. `only=LINE` draws and prints
a single line of the differences again.
"""

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.special import ndtr, ndtri

from vidclf.evaluation.intervals import LEVEL, effective_number, korn_graubard
from vidclf.evaluation.paired import interval_of_difference

Ends = tuple[np.ndarray, np.ndarray]

TAIL = (1 - LEVEL) / 2
NUM_GROUPS, CORRELATIONS = (8, 12, 21, 57), (0.1, 0.4, 0.8)  # of the latent quality of two videos of a group
ACCURACIES = (0.05, 0.3, 0.6, 0.8, 0.9, 0.95, 0.99)
PAIRS = ((0.99, 0.97), (0.97, 0.93), (0.97, 0.87), (0.9, 0.8), (0.7, 0.6), (0.93, 0.93))
DEPENDENCE = ((0.1, 0.8), (0.8, 0.8), (0.4, 0.3))  # of videos of a group, and of the two classifiers on one video
NUM_RESAMPLES = 1000
DEFAULTS = {"draws": 2000, "pairs": 150, "seed": 0}


def sizes_of(kind: str, num_groups: int, num_draws: int, chance: np.random.Generator) -> np.ndarray:
    """Return the number of videos of each group, (draws, C)."""
    sizes = {
        "equal": np.full(num_groups, 7),
        "1..80": np.linspace(1, 80, num_groups).astype(int),
        "one giant": np.r_[5 * num_groups, np.full(num_groups - 1, 5)],
    }
    if kind == "UCF101":
        return 1 + chance.poisson(4.4, (num_draws, num_groups))
    return np.tile(sizes[kind], (num_draws, 1))


KINDS = ("equal", "UCF101", "1..80", "one giant")


def draw_accuracy(accuracy: float, correlation: float, sizes: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Return the number of correct videos of each group; a group's chance follows from its latent quality."""
    quality = ndtri(accuracy) + np.sqrt(correlation) * chance.standard_normal(sizes.shape)
    return chance.binomial(sizes, ndtr(quality / np.sqrt(1 - correlation))).astype(float)


def draw_gains(
    accuracies: tuple[float, float], correlation: float, likeness: float, sizes: np.ndarray, chance: np.random.Generator
) -> Ends:
    """Return how many videos of each group the first classifies correctly alone, and the second alone."""
    is_video = np.arange(sizes.max()) < sizes[..., None]  # (draws, C, videos)
    common = chance.standard_normal((*sizes.shape, 1)), chance.standard_normal(is_video.shape)
    correct = []
    for accuracy in accuracies:
        group, video = (
            np.sqrt(likeness) * part + np.sqrt(1 - likeness) * chance.standard_normal(part.shape) for part in common
        )
        quality = ndtri(accuracy) + np.sqrt(correlation) * group + np.sqrt(1 - correlation) * video
        correct.append((quality > 0) & is_video)
    first, second = correct
    return (first & ~second).sum(-1).astype(float), (second & ~first).sum(-1).astype(float)


def naive(correct: np.ndarray, sizes: np.ndarray) -> Ends:
    """The normal interval of independent videos."""
    total = sizes.sum(-1)
    mean = correct.sum(-1) / total
    half = stats.norm.isf(TAIL) * np.sqrt(mean * (1 - mean) / total)
    return mean - half, mean + half


def bootstrap(values: np.ndarray, sizes: np.ndarray) -> Ends:
    """The percentiles of resampled groups, C - 1 of C; all draws share the resamples."""
    num_groups = sizes.shape[1]
    chances = np.full(num_groups, 1 / num_groups)
    weights = np.random.default_rng(0).multinomial(num_groups - 1, chances, size=NUM_RESAMPLES)
    low, high = np.quantile((values @ weights.T) / np.maximum(sizes @ weights.T, 1), [TAIL, 1 - TAIL], axis=1)
    return low, high


def published(correct: np.ndarray, sizes: np.ndarray) -> Ends:
    """Korn and Graubard's interval as published, which counts groups of any size as one."""
    total, num_groups = sizes.sum(-1), sizes.shape[-1]
    mean = correct.sum(-1) / total
    variance = num_groups / (num_groups - 1) * ((correct - mean[:, None] * sizes) ** 2).sum(-1) / total**2
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.minimum(mean * (1 - mean) / variance, total)
    size = size * (stats.norm.isf(TAIL) / stats.t.isf(TAIL, num_groups - 1)) ** 2
    size = np.where(mean * (1 - mean) < 1e-12, num_groups, size)
    right, wrong = np.maximum(mean * size, 1e-9), np.maximum((1 - mean) * size, 1e-9)
    return stats.beta.ppf(TAIL, right, wrong + 1), stats.beta.isf(TAIL, right + 1, wrong)


def student(gains: np.ndarray, sizes: np.ndarray) -> Ends:
    """Student's interval of the ratio of sums over groups; it is what inverting a sign-flip test of residuals gives."""
    total, num_groups = sizes.sum(-1), sizes.shape[-1]
    mean = gains.sum(-1) / total
    residuals = gains - mean[:, None] * sizes
    error = np.sqrt(num_groups / (num_groups - 1) * (residuals**2).sum(-1)) / total
    half = stats.t.isf(TAIL, np.maximum(effective_number(sizes) - 1, 1)) * error
    return mean - half, mean + half


def square_and_add(first: np.ndarray, second: np.ndarray, sizes: np.ndarray) -> Ends:
    """Newcombe's (1998), from intervals of the two shares of discordant videos with C as the effective number."""
    ends = []
    for count in (first, second):
        share, size = count.sum(-1) / sizes.sum(-1), effective_number(sizes)
        low = np.where(share == 0, 0, stats.beta.ppf(TAIL, np.maximum(share * size, 1e-9), (1 - share) * size + 1))
        ends.append((share, low, stats.beta.isf(TAIL, share * size + 1, (1 - share) * size)))
    (a, low_a, high_a), (b, low_b, high_b) = ends
    return a - b - np.hypot(a - low_a, high_b - b), a - b + np.hypot(high_a - a, b - low_b)


def ours(gains: np.ndarray, sizes: np.ndarray) -> Ends:
    """`vidclf.evaluation.paired`, one draw after the other."""
    ends = [interval_of_difference(*one, unit=1) for one in zip(gains, sizes.astype(float), strict=True)]
    low, high = np.array(ends).T
    return low, high


def measure(intervals: dict[str, Ends], truth: float) -> dict[str, list[float]]:
    """Return the share of intervals that hold the truth, and their mean length, by method."""
    return {
        name: [float(((low <= truth) & (truth <= high)).mean()), float((high - low).mean())]
        for name, (low, high) in intervals.items()
    }


def accuracies(num_draws: int, seed: int) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Yield a line for each setting of an accuracy."""
    for kind, num_groups, accuracy, correlation in product(KINDS, NUM_GROUPS, ACCURACIES, CORRELATIONS):
        chance = np.random.default_rng([seed, num_groups, round(100 * accuracy), round(10 * correlation)])
        sizes = sizes_of(kind, num_groups, num_draws, chance)
        correct = draw_accuracy(accuracy, correlation, sizes, chance)
        methods: dict[str, Callable[..., Ends]] = {"ours": korn_graubard, "published": published}
        methods |= {"bootstrap": bootstrap, "naive": naive}
        intervals = {name: method(correct, sizes.astype(float)) for name, method in methods.items()}
        yield f"{kind} | {num_groups} | {accuracy} | {correlation}", measure(intervals, accuracy)


def differences(num_draws: int, seed: int, only: str = "") -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Yield a line for each setting of a difference."""
    settings = product(KINDS, NUM_GROUPS, PAIRS, DEPENDENCE)
    for kind, num_groups, (first, second), (correlation, likeness) in settings:
        line = f"{kind} | {num_groups} | {first}, {second} | {correlation}, {likeness}"
        if only not in line:
            continue
        chance = np.random.default_rng(
            [seed, num_groups, round(100 * first), round(100 * second), round(10 * correlation)]
        )
        sizes = sizes_of(kind, num_groups, num_draws, chance)
        only_first, only_second = draw_gains((first, second), correlation, likeness, sizes, chance)
        gains = only_first - only_second
        intervals = {"ours": ours(gains, sizes), "bootstrap": bootstrap(gains, sizes), "student": student(gains, sizes)}
        intervals["square-and-add"] = square_and_add(only_first, only_second, sizes)
        yield line, measure(intervals, first - second)


def summarise(lines: dict[str, dict[str, list[float]]]) -> None:
    """Print for each kind and number of groups the lowest and the mean coverage over its lines, and the mean length."""
    methods = list(next(iter(lines.values())))
    print(f"\n| sizes | groups | {' | '.join(methods)} |\n|{' --- |' * (len(methods) + 2)}")
    for kind, num_groups in product(KINDS, NUM_GROUPS):
        here = [found for line, found in lines.items() if line.startswith(f"{kind} | {num_groups} |")]
        cells = []
        for method in methods:
            shares, lengths = zip(*(found[method] for found in here), strict=True)
            cells.append(f"{min(shares):.2f}, {np.mean(shares):.2f}; {np.mean(lengths):.2f}")
        print(f"| {kind} | {num_groups} | {' | '.join(cells)} |")


def main() -> None:
    settings = dict(argument.split("=") for argument in sys.argv[1:])
    num_draws, num_pairs, seed = (int(settings.get(key, value)) for key, value in DEFAULTS.items())
    if "only" in settings:
        print(*differences(num_pairs, seed, settings["only"]), sep="\n")
        return
    started = time.perf_counter()
    content: dict[str, object] = {"draws": num_draws, "pairs": num_pairs, "seed": seed}
    for name, lines in (("accuracies", accuracies(num_draws, seed)), ("differences", differences(num_pairs, seed))):
        measured = dict(lines)
        summarise(measured)
        content[name] = {
            line: {key: [round(x, 4) for x in pair] for key, pair in found.items()} for line, found in measured.items()
        }
    content["python"] = platform.python_version()
    Path(__file__).with_name("results.json").write_text(json.dumps(content).replace("}, ", "},\n") + "\n")
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()

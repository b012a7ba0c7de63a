"""Print tables and a chart of `study.py`: python -m experiments.real.report folder=runs/real [chart=FILE.png]."""

import csv
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import matplotlib.pyplot as plt
import numpy as np

from experiments.real.study import HEADS, SPLITS
from vidclf.evaluation.intervals import Clusters, interval_of_accuracy

Row = dict[str, str]
Measured = tuple[float, float, float]  # a share, and where its 95 % interval over (class, group) begins and ends


def accuracy(rows: Iterable[Row]) -> Measured:
    """Return the mean accuracy of all seeds; a video counts once, by the share of seeds that classify it correctly."""
    of_video = {row["video"]: int(row["num_right"]) / int(row["num_seeds"]) for row in rows}
    values = np.array([*of_video.values()])
    groups = [re.sub(r"_c\d+\.avi$", "", video) for video in of_video]
    interval = interval_of_accuracy(values, Clusters.of(groups))
    assert interval is not None
    return float(values.mean()), *interval


def shown(measured: Measured) -> str:
    """Return a share and its interval as text."""
    return f"{measured[0]:.3f} [{measured[1]:.3f}, {measured[2]:.3f}]"


def accuracy_table(rows: list[Row], checks: dict[str, dict[str, str]]) -> dict[str, dict[str, Measured]]:
    """Print accuracy by head and split; return it."""
    columns = [("official", number) for number in SPLITS["official"]] + [("official", None), ("random", None)]
    print("| | split 1 | split 2 | split 3 | all three | random five-fold |\n|" + " --- |" * 6)
    found: dict[str, dict[str, Measured]] = defaultdict(dict)
    for head in HEADS.split(","):
        cells = []
        for split, number in columns:
            chosen = [row for row in rows if (row["split"], row["head"]) == (split, head)]
            measured = accuracy(row for row in chosen if number is None or row["number"] == str(number))
            found[head][f"{split} {number or 'all'}"] = measured
            cells.append(shown(measured))
        print(f"| `head={head}` | {' | '.join(cells)} |")
    for name, key in (("one frame, logistic regression", "one_frame"), ("the container alone", "container")):
        cells = [shown(tuple(float(one[f"{key}_{end}"]) for end in ("top1", "low", "high"))) for one in checks.values()]
        print(f"| {name} | {' | '.join(cells)} | | |")
    print(f"| the most frequent class | {' | '.join(one['majority_top1'][:5] for one in checks.values())} | | |")
    return found


def gain_table(metrics: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print the loss of heads without the order of frames: in order minus probed, means and intervals of seed 0."""
    print("\n| in order minus | shuffled | reversed | middle frame alone | middle frame repeated |\n|" + " --- |" * 5)
    for head in HEADS.split(","):
        cells = []
        for probe in ("shuffle", "reverse", "single_frame", "static"):
            gains, intervals = [], []
            for name, of_part in metrics.items():
                split, _, its_head, seed = name.split("-")
                if (split, its_head) == ("official", head):
                    scores = of_part[f"test-probe-{probe}"]
                    gains.append(scores["temporal_gain"])
                    if seed == "0":
                        intervals.append(f"[{scores['temporal_gain_low']:.2f}, {scores['temporal_gain_high']:.2f}]")
            cells.append(f"{fmean(gains):.3f} {' '.join(intervals)}")
        print(f"| `head={head}` | {' | '.join(cells)} |")


def draw(path: Path, found: dict[str, dict[str, Measured]], checks: dict[str, dict[str, str]]) -> None:
    """Draw the accuracy of each head on the official splits and on a random split, over the container's."""
    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    container = fmean(float(one["container_top1"]) for one in checks.values())
    majority = fmean(float(one["majority_top1"]) for one in checks.values())
    for place, measured in enumerate(found.values()):
        for shift, (name, colour) in enumerate((("official all", "tab:blue"), ("random all", "tab:red"))):
            share, low, high = measured[name]
            label = {"official all": "official splits", "random all": "random five-fold: leaks"}[name]
            bar = axis.bar(place + 0.3 * shift, share, 0.28, color=colour, label=label if place == 0 else None)
            axis.errorbar(bar[0].get_x() + 0.14, share, [[share - low], [high - share]], color="black", capsize=3)
    axis.axhline(container, color="tab:orange", linestyle="--", label="the container alone (a small tree)")
    axis.axhline(majority, color="grey", linestyle=":", label="the most frequent class")
    axis.set_xticks([place + 0.15 for place in range(len(found))], [f"head={head}" for head in found])
    axis.set(ylim=(0, 1.02), ylabel="test accuracy")
    axis.legend(loc="lower left", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the tables, draw the chart."""
    settings = dict(argument.split("=", 1) for argument in sys.argv[1:])
    folder = Path(settings.get("folder", "runs/real"))
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    checks = json.loads((folder / "checks.json").read_text())
    found = accuracy_table(rows, checks)
    gain_table(json.loads((folder / "metrics.json").read_text()))
    draw(Path(settings.get("chart", folder / "chart.png")), found, checks)


if __name__ == "__main__":
    main()

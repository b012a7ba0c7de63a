"""Study three real classes of UCF101: official splits, a random split, and predictions without any image.

    pip install -e '.[real]'
    python -m experiments.real.study dataset.root=UCF-101 [folder=runs/real] [seeds=0,1,2]

Calls `vidclf train`, `evaluate` and `check` as a user would. Writes results.csv (how many seeds classify each video
correctly, by setting), metrics.json and checks.json into `folder`; `report.py` turns them into tables and a chart.
When called again it continues with the missing runs.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

CLASSES = "CuttingInKitchen,JumpingJack,WallPushups"
HEADS = "linear,mlp,gru"
SAMPLING = ("sampling=uniform", "sampling.num_frames=16")
BACKBONE = ("backbone=custom", "backbone._target_=experiments.real.lite0.Lite0")
SPLITS = {"official": (1, 2, 3), "random": (1, 2, 3, 4, 5)}


def settings_of(split: str, root: str) -> list[str]:
    """Return the settings of UCF101's official splits, or of five random folds of clips, which leak."""
    if split == "official":
        return [f"dataset.root={root}", f"dataset.classes=[{CLASSES}]"]
    return [
        "dataset=folder",
        f"dataset.root={root}",
        f"dataset.classes=[{CLASSES}]",
        "dataset.group=file",
        "split=kfold",
    ]


def vidclf(verb: str, *arguments: str) -> str:
    """Return the output of a verb."""
    command = [sys.executable, "-m", f"vidclf.{verb}", *arguments]
    print("vidclf", verb, *arguments, flush=True)
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def results_of(folder: Path, split: str, number: int, head: str, seed: str, root: str) -> Iterator[tuple[str, bool]]:
    """Train and evaluate unless done before; yield each test video and whether it is classified correctly."""
    run = folder / f"{split}-{number}-{head}-{seed}"
    if not (run / "metrics.json").exists():
        chosen = [f"split.number={number}", f"head={head}", f"seed={seed}", f"hydra.run.dir={run}"]
        vidclf("train", *settings_of(split, root), *SAMPLING, *BACKBONE, *chosen)
    if not (run / "test" / "metrics.json").exists():
        vidclf("evaluate", f"run={run}", "trust=true")
    if split == "official" and not (run / "test-probe-static" / "metrics.json").exists():
        vidclf("evaluate", f"run={run}", "trust=true", "probe=all")
    with (run / "test" / "predictions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            yield row["video"], row["label"] == row["predicted"]


def main() -> None:
    """Write results.csv, metrics.json and checks.json."""
    settings = dict(argument.split("=", 1) for argument in sys.argv[1:])
    root, folder = os.path.abspath(settings["dataset.root"]), Path(settings.get("folder", "runs/real"))
    seeds = settings.get("seeds", "0,1,2").split(",")
    folder.mkdir(parents=True, exist_ok=True)
    counts, metrics = dict[tuple, list[int]](), dict[str, object]()
    for split, head in product(SPLITS, HEADS.split(",")):
        for number, seed in product(SPLITS[split], seeds if split == "official" else seeds[:1]):
            for video, is_correct in results_of(folder, split, number, head, seed, root):
                count = counts.setdefault((split, number, head, video), [0, 0])
                count[:] = count[0] + is_correct, count[1] + 1
            run = folder / f"{split}-{number}-{head}-{seed}"
            metrics[run.name] = {
                path.parent.name: json.loads(path.read_text()) for path in run.glob("test*/metrics.json")
            }
    checks = {}
    for number in SPLITS["official"]:
        printed = vidclf(
            "check", *settings_of("official", root), *BACKBONE, f"split.number={number}", "check.page=null"
        )
        checks[number] = dict(line.split(" ", 1) for line in printed.splitlines()[1:] if " " in line)
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["split", "number", "head", "video", "num_right", "num_seeds"])
        writer.writerows([*setting, *count] for setting, count in counts.items())
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
    (folder / "checks.json").write_text(json.dumps(checks, indent=1))


if __name__ == "__main__":
    main()

"""Folders of runs as train and evaluate write them: a checkpoint without weights, and scores of made-up videos."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

CLASSES = ["jump", "run", "walk"]
CONFIG = {
    "dataset": {"_target_": "vidclf.data.datasets.ucf101.UCF101", "root": "somewhere"},
    "split": {"_target_": "vidclf.data.splits.Official", "number": 1},
    "head": {"_target_": "vidclf.models.heads.linear.Linear", "_partial_": True},
    "trainer": {"max_epochs": 3},
    "seed": 0,
}
MLP = {"_target_": "vidclf.models.heads.mlp.MLP", "_partial_": True, "widths": [16], "dropout": 0.5}


def write_run(
    folder: Path,
    is_correct: Sequence[bool] | np.ndarray,
    part: str | None = "test",
    classes: Sequence[str] = CLASSES,
    videos_a_group: int = 3,
    first: int = 0,
    content: str = "c",
    more_metrics: Mapping[str, float] | None = None,
    **config: Any,
) -> Path:
    """Write a run that classifies videos `first`, `first + 1`, ... correctly or not; groups lie inside classes.

    Args:
        folder: of the run.
        is_correct: for each video.
        part: the part that was evaluated; None: none.
        classes: in label order.
        videos_a_group: how many videos are of one group.
        first: number of the first video.
        content: the beginning of the files' hashes.
        more_metrics: in metrics.json.
        config: settings that differ from CONFIG.
    """
    from vidclf.evaluation.results import PREDICTIONS  # not above: after jaxtyping's hook is set
    from vidclf.run.checkpoints import FORMAT
    from vidclf.system.disk import write_csv, write_json

    _write_checkpoint(folder, {"format": FORMAT, "class_names": list(classes), "config": CONFIG | config})
    write_json(folder / "metrics.json", {"top1": 0.5})  # of val
    if part is None:
        return folder
    results = folder if part == "val" else folder / part
    results.mkdir(exist_ok=True)
    rows = []
    for video, correct in enumerate(is_correct, start=first):
        group = video // videos_a_group
        label, incorrect = classes[group % len(classes)], classes[(group + 1) % len(classes)]
        predicted = label if correct else incorrect
        rows.append((f"{label}/v{video}.avi", label, predicted, 0.5, f"g{group}", "no", f"{content}{video}"))
    write_csv(results / "predictions.csv", PREDICTIONS, rows)
    top1 = float(np.mean(is_correct))
    metrics = {"top1": top1, "top5": 1.0, "mean_class": top1, "loss": 1.0, "ece": 0.1, "num_failed": 0}
    metrics |= {"num_videos": len(rows), "chance_top1": 1 / len(classes), **(more_metrics or {})}
    write_json(results / "metrics.json", metrics)
    return folder


def _write_checkpoint(folder: Path, description: dict[str, Any]) -> None:
    description |= {"split_fingerprint": "", "weights_hash": ""}
    (folder / "checkpoints").mkdir(parents=True)
    checkpoint = {"epoch": 2, "state_dict": {"head.weight": torch.zeros(4)}, "callbacks": {}, "vidclf": description}
    torch.save(checkpoint, folder / "checkpoints" / "best.ckpt")

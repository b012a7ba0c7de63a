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


def write_results(
    folder: Path,
    labels: Sequence[int],
    probabilities: np.ndarray | torch.Tensor,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] = CLASSES,
    names: Sequence[str] | None = None,
    part: str = "test",
    contents: Sequence[str] | None = None,
    metrics: dict[str, float] | None = None,
    **config: Any,
) -> Path:
    """Write a run with all that `evaluate` writes and a report reads, for made-up videos.

    Args:
        folder: of the run.
        labels: of the M videos.
        probabilities: of the views (M, V, K), or of the only view of each (M, K).
        groups: of the videos; by default, three videos of a class after each other are of one group.
        classes: in label order.
        names: of the videos.
        part: that was evaluated.
        contents: the hashes of the files.
        metrics: more of them.
        config: settings that differ from CONFIG.
    """
    from vidclf.contracts import Video
    from vidclf.evaluation.logits import ViewLogits
    from vidclf.evaluation.results import PREDICTIONS, write_logits
    from vidclf.evaluation.scores import intervals_of, score_numbers_of_views, score_videos
    from vidclf.models.aggregation import mean
    from vidclf.models.classifier import most_probable
    from vidclf.system.disk import write_csv, write_json

    of_view = torch.as_tensor(probabilities).float()
    of_view = of_view[:, None] if of_view.ndim == 2 else of_view
    names = names or [f"{classes[label]}/v{number}.avi" for number, label in enumerate(labels)]
    groups = groups or [f"g{number // 3}" for number in range(len(labels))]
    contents = contents or [f"{number:064x}" for number in range(len(labels))]
    videos = [
        Video(Path(name), label, group, name=name) for name, label, group in zip(names, labels, groups, strict=True)
    ]
    if not (folder / "checkpoints").is_dir():
        config = CONFIG | {"aggregation": {"_target_": "vidclf.models.aggregation.mean", "_partial_": True}} | config
        _write_checkpoint(folder, {"format": 2, "class_names": list(classes), "config": config})
        write_json(folder / "metrics.json", {"top1": 0.5})
    results = folder if part == "val" else folder / part
    results.mkdir(exist_ok=True)
    num_views = of_view.shape[1]
    video = torch.arange(len(labels)).repeat_interleave(num_views)
    view_logits = ViewLogits(
        of_view.clamp(min=1e-12).log().flatten(0, 1),
        torch.tensor(labels).repeat_interleave(num_views),
        video,
        torch.arange(num_views).repeat(len(labels)),
        0,
    )
    predictions = view_logits.aggregate(mean, videos)
    write_logits(results, view_logits, videos)
    rows = [
        (one.name, classes[one.label], *most_probable(log, list(classes), 1)[0], one.group, "no", content)
        for one, log, content in zip(videos, predictions.log_probabilities, contents, strict=True)
    ]
    write_csv(results / "predictions.csv", PREDICTIONS, rows)
    write_csv(folder / "split.csv", ("video", "side", "content"), [(row[0], part, row[-1]) for row in rows])
    by_views = score_numbers_of_views(
        *[getattr(view_logits, key) for key in ("logits", "labels", "video")], mean, videos
    )
    rows_of_views = [(number, top1, *(interval or ("", ""))) for number, top1, interval in by_views]
    write_csv(results / "views.csv", ("views", "top1", "top1_low", "top1_high"), rows_of_views)
    write_csv(results / "failed.csv", ("video", "reason"), [])
    scores = score_videos(predictions.log_probabilities, predictions.labels) | intervals_of(predictions)
    write_json(
        results / "metrics.json", scores | view_logits.counts | {"chance_top1": 1 / len(classes)} | (metrics or {})
    )
    return folder


def _write_checkpoint(folder: Path, description: dict[str, Any]) -> None:
    description |= {"split_fingerprint": "", "weights_hash": ""}
    (folder / "checkpoints").mkdir(parents=True)
    checkpoint = {"epoch": 2, "state_dict": {"head.weight": torch.zeros(4)}, "callbacks": {}, "vidclf": description}
    torch.save(checkpoint, folder / "checkpoints" / "best.ckpt")

"""Put what is known of a run into plain data, which its page shows and carries as JSON."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from vidclf.command.keys import as_yaml
from vidclf.comparison.settings import option_of
from vidclf.comparison.tables import BASELINES
from vidclf.evaluation.calibration import MAX_TEMPERATURE, calibration_error, confidence, reliability
from vidclf.reporting import scores
from vidclf.reporting.curves import charts_of, read_curves
from vidclf.reporting.findings import find
from vidclf.reporting.labels import normalized_margin, rank_labels, self_confidence
from vidclf.reporting.neighbours import find_neighbours
from vidclf.reporting.results import Results, numbers_of, parts_of
from vidclf.reporting.timelines import budget_of, timelines_of
from vidclf.reporting.videos import MAX_STRIPS, Pictures, draw, find_videos, folder_of
from vidclf.run.folder import shown_folder
from vidclf.system.text import sanitize

MAX_MISTAKES, MAX_UNSURE, MAX_LABEL_ERRORS = 240, 12, 40  # that are shown
MAX_OVERRIDES_BYTES = 1_000_000
PROBE_SCORES = ("top1", "temporal_gain", "temporal_gain_low", "temporal_gain_high")
STAGES = ("dataset", "split", "sampling", "backbone", "head", "aggregation")


def describe_run(results: Results, root: Path | None, store: Path) -> tuple[dict[str, Any], Pictures]:
    """Return the data of a run's page, and images of the videos in it.

    Args:
        results: of the run.
        root: the folder of its videos, if the command line names one.
        store: of features, and of facts about files.
    """
    page = {
        **_headline(results),
        "findings": find(results),
        "names": results.names,
        "classes": scores.class_scores(results),
        "confusion": scores.confusion(results),
        "groups": scores.group_scores(results),
        "num_views": numbers_of(results.tables["views"], "views", "top1", "top1_low", "top1_high"),
        "probes": [(name, *map(one.get, PROBE_SCORES)) for name, one in results.probes.items()],
        **_calibration(results),
        **_videos(results),
        "timelines": timelines_of(results),
        "budget": budget_of(results),
        "background": _background(results),
        "curves": charts_of(read_curves(results.scored.folder)),
        "configuration": as_yaml(results.scored.config),
        "versions": _versions(results),
        "failed": [(row.get("video", ""), row.get("reason", "")) for row in results.tables["failed"]],
    }
    folder, why = folder_of(results.scored.config, root)
    shown = _shown(page)
    pictures, seconds = Pictures(), np.full(len(results.labels), np.nan)
    if folder is not None:
        known, _ = find_videos(results, range(len(results.labels)), folder, store, known_only=True)
        seconds[[*known]] = [video.seconds for video in known.values()]
        local, missing = find_videos(results, shown, folder, store)
        pictures = draw(local)
        pictures.missing += missing
    page["durations"] = scores.durations(results, seconds)
    page["neighbours"] = find_neighbours(results, shown, store)
    page["lines"] = {position: _line(results, position) for position in shown if position < len(results.views)}
    page["clips"], page["no_clips"] = shown, [why] if why else _reasons(pictures, len(shown))
    return page, pictures


def _background(results: Results) -> int | None:
    """Return the class that stands for no event, if the data set has one."""
    dataset = results.scored.config.get("dataset")
    default = "other" if results.tables["bouts"] else None
    name = dataset.get("background", default) if isinstance(dataset, dict) else default
    return results.names.index(name) if name in results.names else None


def _versions(results: Results) -> dict[str, str]:
    versions = results.description.get("versions")
    return {str(key): str(value) for key, value in versions.items()} if isinstance(versions, dict) else {}


def plain(value: Any) -> Any:
    """Return data for JSON, with all texts safe to show."""
    if isinstance(value, Mapping):
        return {sanitize(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [*map(plain, value)]
    return sanitize(value) if isinstance(value, str) else value


def _headline(results: Results) -> dict[str, Any]:
    """Return the accuracy beside what needs no model, the data, and the commands to get them again."""
    scored, config = results.scored, results.scored.config
    options = {stage: option_of(stage, config[stage]) for stage in STAGES if isinstance(config.get(stage), dict)}
    bars = [("this run", scored.metrics["top1"])]
    bars += [(words, scored.metrics[key]) for key, words in BASELINES.items() if key in scored.metrics]
    val = results.val.metrics if results.val else {}
    return {
        "run": scored.folder.name,
        "part": results.part,
        "top1": [scored.metrics.get(key) for key in ("top1", "top1_low", "top1_high")],
        "bars": bars,
        "val": [val.get(key) for key in ("top1", "top1_low", "top1_high")],
        "num_videos": len(scored.videos),
        "num_groups": len(results.clusters),
        "options": options,
        "parts": parts_of(results.split),
        "fingerprint": str(results.description["split_fingerprint"]),
        "commands": _commands(scored.folder, results.part),
        "metrics": dict(sorted(scored.metrics.items())),
    }


def _commands(folder: Path, part: str) -> list[str]:
    """Return the commands that made the run, as Hydra has noted them: text, which is never executed."""
    path = folder / ".hydra" / "overrides.yaml"
    try:
        is_short = path.is_file() and path.stat().st_size < MAX_OVERRIDES_BYTES
        words = yaml.safe_load(path.read_text(encoding="utf-8")) if is_short else None
    except (OSError, ValueError, yaml.YAMLError):
        words = None
    words = words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None
    trained = [] if words is None else [shlex.join(["vidclf", "train", *words])]
    shown = shown_folder(folder if folder.is_relative_to(Path.cwd()) else Path(folder.name))
    return [*trained, f"vidclf evaluate run={shown}" + ("" if part == "test" else f" part={part}")]


def _calibration(results: Results) -> dict[str, Any]:
    """Return accuracy against probability, before and after the temperature, and what a threshold costs."""
    metrics, predictions = results.scored.metrics, results.predictions
    fitted = metrics.get("temperature", 0)
    temperature = fitted if 1 / MAX_TEMPERATURE <= fitted <= MAX_TEMPERATURE else None
    calibration: dict[str, Any] = {"temperature": temperature, "reliability": [], "calibrated": [], "ece": {}}
    confidences = results.probabilities
    if predictions is not None:
        log_probabilities, labels = predictions.log_probabilities, predictions.labels
        calibration["reliability"] = reliability(log_probabilities, labels)
        calibration["ece"] = {"as it is": calibration_error(log_probabilities, labels)}
        if temperature and results.part != "val":
            tempered = (log_probabilities.double() / temperature).log_softmax(1)
            calibration["calibrated"] = reliability(tempered, labels)
            calibration["ece"]["with the temperature"] = calibration_error(tempered, labels)
            confidences = confidence(log_probabilities, temperature).numpy()
    return {**calibration, "coverage": scores.coverage(results, confidences)}


def _videos(results: Results) -> dict[str, Any]:
    """Return all videos, and which are mistakes (the most confident first), barely correct, or doubtful labels."""
    scored, is_correct = results.scored, results.is_correct.astype(bool)
    groups = [group for _, group in scored.units]
    columns = (scored.videos, results.labels.tolist(), results.predicted.tolist(), scored.probabilities, groups)
    by_confidence = np.argsort(-results.probabilities, kind="stable")
    mistakes = by_confidence[~is_correct[by_confidence]].tolist()
    unsure = by_confidence[::-1][is_correct[by_confidence[::-1]]][:MAX_UNSURE].tolist()
    return {
        "videos": [*zip(*columns, strict=True)],
        "num_mistakes": len(mistakes),
        "mistakes": mistakes[:MAX_MISTAKES],
        "unsure": unsure,
        "doubtful": doubtful_labels(results),
    }


def doubtful_labels(results: Results) -> list[tuple[int, float, float]]:
    """Return the mistakes whose label is least probable, each with its self-confidence and margin."""
    if results.predictions is None:
        return []
    probabilities = results.predictions.log_probabilities.double().exp().numpy()
    rules = self_confidence(probabilities, results.labels), normalized_margin(probabilities, results.labels)
    ranked = rank_labels(probabilities, results.labels)[:MAX_LABEL_ERRORS].tolist()
    return [(video, *(float(rule[video]) for rule in rules)) for video in ranked if not results.is_correct[video]]


def _shown(page: Mapping[str, Any]) -> list[int]:
    """Return the videos that have a clip: mistakes, then doubtful labels, then barely correct ones."""
    doubtful = [video for video, *_ in page["doubtful"]]
    return [*dict.fromkeys([*page["mistakes"], *doubtful, *page["unsure"]])][:MAX_STRIPS]


def _line(results: Results, position: int) -> list[list[float]]:
    """Return the probabilities of the predicted class and of the label in each view."""
    columns = [int(results.predicted[position]), int(results.labels[position])]
    return results.views[position][:, torch.tensor(columns)].tolist()


def _reasons(pictures: Pictures, num_shown: int) -> list[str]:
    return [
        f"{count} of {num_shown} videos are shown without a clip: {why}." for why, count in pictures.missing.items()
    ]

"""Read the learning curves that a run's logger wrote: TensorBoard's events, or CSV."""

from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

from vidclf.reporting.results import MAX_BYTES, read_rows

MAX_POINTS = 300  # of a curve
KINDS = {"scalars": 0, "images": 1, "tensors": 1, "histograms": 1, "compressedHistograms": 1, "audio": 1}  # 0: all

Curves = Mapping[str, list[tuple[int, float]]]


def read_curves(run: Path) -> Curves:
    """Return (step, value) of each curve by its name, thinned; nothing where nothing was logged or it is damaged."""
    curves = _read_events(run / "tensorboard") or _read_csv(run / "csv" / "metrics.csv")
    finite = {name: [point for point in points if isfinite(point[1])] for name, points in curves.items()}
    return {name: points[:: -(-len(points) // MAX_POINTS)] for name, points in finite.items() if len(points) > 1}


def charts_of(curves: Curves) -> list[dict[str, Any]]:
    """Return a chart for each measure, with the ends of its axes: the curves of train and val are in one."""
    by_measure: dict[str, list[tuple[str, list[tuple[int, float]]]]] = {}
    for name in sorted(curves):
        if name.startswith(("train/", "val/")):
            by_measure.setdefault(name.rpartition("/")[2], []).append((name, curves[name]))
    charts = []
    for title, lines in by_measure.items():
        steps, values = zip(*(point for _, points in lines for point in points), strict=True)
        ends = {"first": min(steps), "last": max(steps), "low": min(values), "high": max(values)}
        charts.append({"title": title, "lines": lines, **ends})
    return charts


def _read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = [*folder.glob("*tfevents*")]
    if not files or not all(path.is_file() for path in files):  # reading a pipe would wait for ever
        return {}
    if sum(path.stat().st_size for path in files) > MAX_BYTES:
        return {}
    try:
        events = EventAccumulator(str(folder), KINDS).Reload()
        return {
            name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]
        }
    except (DecodeError, ValueError, KeyError):
        return {}


def _read_csv(path: Path) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    with suppress(ValueError, KeyError):  # not ours
        for row in read_rows(path):
            for name, text in row.items():
                if text and name not in ("step", "epoch"):
                    curves.setdefault(name, []).append((int(row["step"]), float(text)))
    return curves

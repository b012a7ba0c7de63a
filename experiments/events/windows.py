"""Measure what windows of films cost and lose, without a model: shared frames, and boundaries from perfect labels.

    python -m experiments.events.windows films/events.csv

It prints how many times the frames of no overlap a stride of half a window needs, at several rates, with windows that
begin at the sampling's frames and without; and the largest error of a boundary where every window's label is right.
"""

import sys
from pathlib import Path

import numpy as np

from vidclf.data.catalogue import Catalogue
from vidclf.data.corpus import window_of
from vidclf.data.datasets.events import Events
from vidclf.data.sampling import Rate
from vidclf.evaluation.segments import bouts_of
from vidclf.evaluation.timeline import clean, timelines_of

RATES_HZ = (1, 2, 3, 5, 10)
STEP_S = 0.1


def num_frames(table: Path, catalogue: Catalogue, stride_s: float, rate_hz: int, aligned: bool) -> int:
    """Return the number of distinct frames that sampling=rate takes of windows of 2 s."""
    dataset = Events(table, stride_s=stride_s, rate_hz=rate_hz if aligned else None)
    windows = dataset.videos(catalogue.look_up)
    paths = list(dict.fromkeys(window.path for window in windows))
    facts = dict(zip(paths, catalogue.look_up(paths), strict=True))
    frames = set()
    for window in windows:
        first, length = window_of(window, facts[window.path])
        indices = Rate(rate_hz)(length, facts[window.path].info.fps)
        frames |= {(window.path, first + index) for index in indices.flatten().tolist()}
    return len(frames)


def boundary_error_s(table: Path, catalogue: Catalogue, stride_s: float) -> float:
    """Return the largest distance of a boundary from the truth, in films whose bouts are found in order."""
    dataset = Events(table, stride_s=stride_s)
    windows = dataset.videos(catalogue.look_up)
    right = np.eye(len(dataset.class_names))[[window.label for window in windows]]
    films = timelines_of(right, windows, dataset.timelines, dataset.class_names, dataset.background, STEP_S)
    errors = [0.0]
    for film in films:
        true, found = bouts_of(film.truth), bouts_of(clean(film.probabilities, 0, 0, STEP_S))
        if [bout.label for bout in true] == [bout.label for bout in found]:
            errors += [abs(one.first - other.first) * STEP_S for one, other in zip(true, found, strict=True)]
    return max(errors)


def main() -> None:
    """Print both for the films of a table."""
    table = Path(sys.argv[1])
    catalogue = Catalogue(table.parent)
    for rate_hz in RATES_HZ:
        aligned, free = (
            num_frames(table, catalogue, 1.0, rate_hz, aligned) / num_frames(table, catalogue, 2.0, rate_hz, aligned)
            for aligned in (True, False)
        )
        print(f"{rate_hz} Hz: {aligned:.3f} times the frames of no overlap; {free:.3f} times without aligning")
    for stride_s in (1.0, 0.5):
        print(f"stride {stride_s} s: boundaries within {boundary_error_s(table, catalogue, stride_s):.1f} s")


if __name__ == "__main__":
    main()

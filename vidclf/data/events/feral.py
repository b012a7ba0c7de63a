"""FERAL's labels (JSON): a class for each frame of each video.

Frames cannot say when an event begins between two of them, nor whose it is. A written file therefore holds the events
as well, with their times in frames; they are read as long as they agree with the labels of the frames.
Source: https://www.getferal.ai, label preparation.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidclf.contracts import PARTS
from vidclf.data.decoding import VideoInfo
from vidclf.data.events import Event, retime
from vidclf.data.timelines import frames_of, num_decoded, runs
from vidclf.errors import VidclfError
from vidclf.system.terminal import say

NAME, ENDINGS, WRITES, PER_FRAME = "feral", (".json",), (".json",), True
OTHER = "other"  # class 0


def fits(text: str) -> bool:
    """Return whether it is JSON with FERAL's keys."""
    return text.lstrip()[:1] == "{" and '"class_names"' in text and '"labels"' in text


def read(file: Path, text: str) -> Iterator[Event]:
    """Yield the runs of equal labels, those of class 0 too; or the events that vidclf wrote beside them."""
    content = json.loads(text)
    names, labels, splits = content["class_names"], content["labels"], content.get("splits", {})
    part_of = {path: part for part in PARTS for path in splits.get(part) or ()}
    matrices = {path: _matrix(file, path, frames, names) for path, frames in labels.items()}
    exact = [
        Event(str(path), start, end, label, subject, coder=coder, part=part_of.get(path, ""), where=f"event {row}")
        for row, (path, start, end, label, subject, coder) in enumerate(content.get("events", ()), start=1)
    ]
    if exact:
        lengths = {path: len(matrix) for path, matrix in matrices.items()}
        written = _matrices(exact, lengths, list(map(str, names.values())))
        if all(np.array_equal(matrices[path][:, 1:], written[path][:, 1:]) for path in lengths):
            yield from exact
            return
        say(f"{file}: the labels of its frames have changed since it was written; its exact times are not used.")
    for path, matrix in matrices.items():
        for column, name in enumerate(names.values()):
            for first, stop in runs(matrix[:, column]):
                where = f"video {path!r}, frame {first}"
                yield Event(path, first, stop, str(name), part=part_of.get(path, ""), where=where)


def _matrix(file: Path, path: str, frames: Any, names: Mapping[str, Any]) -> np.ndarray:
    """Return which classes each frame has, (F, K)."""
    if frames and isinstance(frames[0], list):  # several classes at once
        return np.asarray(frames, bool).reshape(len(frames), len(names))
    column_of = {key: column for column, key in enumerate(names)}
    wrong = next((frame for frame, label in enumerate(frames) if str(label) not in column_of), None)
    if wrong is not None:
        raise VidclfError(f"{file}, video {path!r}, frame {wrong}: there is no class {frames[wrong]!r}. Name it.")
    columns = np.asarray([column_of[str(label)] for label in frames], int)
    return columns[:, None] == np.arange(len(names))


def _matrices(events: Sequence[Event], lengths: Mapping[str, int], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return which classes each frame has, from events whose times are frames."""
    matrices = {path: np.zeros((length, len(names)), bool) for path, length in lengths.items()}
    for event in events:
        if event.path in matrices and event.label in names:
            first, stop = round(event.start_s), round(event.end_s)
            matrices[event.path][first:stop, names.index(event.label)] = True
    for matrix in matrices.values():
        matrix[:, 0] |= ~matrix.any(axis=1)
    return matrices


def write(path: Path, events: Sequence[Event], videos: Mapping[str, VideoInfo]) -> bytes:
    """Return the labels of all frames of the events' videos, and the events."""
    names = [OTHER, *sorted({event.label for event in events} - {OTHER})]
    films = sorted({event.path for event in events})
    in_frames = retime(events, videos.__getitem__, frames_of)
    matrices = _matrices(in_frames, {film: num_decoded(videos[film]) for film in films}, names)
    several = any((matrix.sum(axis=1) > 1).any() for matrix in matrices.values())
    part_of = {event.path: event.part for event in events if event.part}
    content = {
        "is_multilabel": several,
        "class_names": {str(number): name for number, name in enumerate(names)},
        "labels": {film: (m.astype(int) if several else m.argmax(axis=1)).tolist() for film, m in matrices.items()},
        "splits": {part: [f for f in films if part_of.get(f, "inference") == part] for part in (*PARTS, "inference")},
        "events": [[e.path, e.start_s, e.end_s, e.label, e.subject, e.coder] for e in in_frames],
    }
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogateescape")

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
from vidclf.data.events import Event, check_shape, load_json, number
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
    content = check_shape(file, load_json(file, text), dict, "it")
    names = check_shape(file, content.get("class_names"), dict, "class_names")
    labels = check_shape(file, content.get("labels"), dict, "labels")
    splits = check_shape(file, content.get("splits", {}), dict, "splits")
    part_of = {path: part for part in PARTS for path in splits.get(part) or ()}
    matrices = {path: _matrix(file, path, frames, names) for path, frames in labels.items()}
    exact = [_event(file, row, part_of) for row in content.get("events") or ()]
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
    check_shape(file, frames, list, f"the labels of {path!r}")
    if frames and isinstance(frames[0], list):  # several classes at once
        rows = [[bool(value) for value in frame] if isinstance(frame, list) else [] for frame in frames]
        if any(len(row) != len(names) for row in rows):
            raise VidclfError(f"{file}, video {path!r}: a frame has not {len(names)} values, one a class. Correct it.")
        return np.asarray(rows, bool)
    column_of = {key: column for column, key in enumerate(names)}
    wrong = [(frame, label) for frame, label in enumerate(frames) if str(label) not in column_of]
    if wrong:
        raise VidclfError(f"{file}, video {path!r}, frame {wrong[0][0]}: there is no class {wrong[0][1]!r}.")
    columns = np.asarray([column_of[str(label)] for label in frames], int)
    return columns[:, None] == np.arange(len(names))


def _event(file: Path, row: Any, part_of: Mapping[str, str]) -> Event:
    if len(check_shape(file, row, list, "an event")) != 6:
        raise VidclfError(f"{file}, event {row}: it must be [path, start, end, label, subject, coder] in frames.")
    path, start, end, label, subject, coder = row
    start, end = (number(file, time, f"event {row}") for time in (start, end))
    return Event(path, start, end, label, subject, coder=coder, part=part_of.get(path, ""), where=f"event {row}")


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
    in_frames = []
    for event in events:
        start, end = frames_of(videos[event.path], [event.start_s, event.end_s])
        in_frames.append(Event(event.path, start, end, event.label, event.subject, coder=event.coder))
    matrices = _matrices(in_frames, {film: num_decoded(videos[film]) for film in films}, names)
    several = any((matrix.sum(axis=1) > 1).any() for matrix in matrices.values())
    part_of = {event.path: event.part for event in events if event.part}
    content = {
        "is_multilabel": several,
        "class_names": {str(number): name for number, name in enumerate(names)},
        "labels": {film: (m.astype(int) if several else m.argmax(axis=1)).tolist() for film, m in matrices.items()},
        "splits": {
            part: [film for film in films if part_of.get(film, "inference") == part] for part in (*PARTS, "inference")
        },
        "events": [[e.path, e.start_s, e.end_s, e.label, e.subject, e.coder] for e in in_frames],
    }
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogateescape")

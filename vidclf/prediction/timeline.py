"""Labels a long video along its time: bouts of one label, each as soon as nothing that follows can change it.

The steps are those of `vidclf.evaluation.timeline`, which sees a whole video at once. Here each yields a block of
consecutive instants when they are settled, so that memory does not grow with the length of the video.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidclf.data.catalogue import VideoFacts
from vidclf.data.decoding import VideoInfo
from vidclf.data.events import Event, write_events
from vidclf.data.timelines import TIME_DIGITS, duration_of, instants
from vidclf.errors import VidclfError, VideoError
from vidclf.evaluation.calibration import confidence
from vidclf.evaluation.segments import bouts_of
from vidclf.evaluation.timeline import average_windows, drop_short, smooth
from vidclf.prediction.files import Failures, Predictor, look_at
from vidclf.prediction.windows import Windows, score_windows
from vidclf.system.disk import write_atomically
from vidclf.system.terminal import track

LINES = ".jsonl"  # the ending of a file of all bouts; others are of events
Block = Float[np.ndarray, "_ K"]  # probabilities of consecutive instants


class LabelledBout(NamedTuple):
    """A stretch of a video with one label, and its mean probability; both are None where nothing is sure enough."""

    start_s: float
    end_s: float
    label: str | None
    probability: float | None


@dataclass(frozen=True)
class Timeliner:
    """Labels long videos along their time.

    Args:
        predictor: scores windows.
        windows: where they lie.
        step_s: from one instant to the next.
        smooth_s: over which probabilities are averaged.
        min_bout_s: shorter bouts get their neighbour's label.
        threshold: a window whose calibrated probability is lower has no label; None: all have one.
        temperature: that calibrates; None: 1.
    """

    predictor: Predictor
    windows: Windows
    step_s: float | int = 0.1
    smooth_s: float | int = 0.0
    min_bout_s: float | int = 0.0
    threshold: float | int | None = None
    temperature: float | None = None

    def bouts(self, path: Path, info: VideoInfo) -> Iterator[LabelledBout]:
        """Yield the bouts of a video, which cover it without gaps, in order.

        Raises:
            VideoError: the file is damaged, or shorter than a window.
        """
        starts_s, ends_s = self.windows.times_of(path, info)
        duration_s = duration_of(info)
        times_s = instants(duration_s, self.step_s)
        scored = score_windows(self.predictor, path, info, starts_s, ends_s)
        windows = map(self._probabilities, track(scored, len(starts_s), f"{path}: labelling", "windows"))
        averaged = average_settled(windows, starts_s, ends_s, times_s)
        smoothed = smooth_settled(averaged, max(1, round(self.smooth_s / self.step_s)))
        cleaned = clean_settled(smoothed, round(self.min_bout_s / self.step_s))
        names = [*self.predictor.class_names, None]
        first = 0
        for label, num_steps, probability in merge(cleaned):
            stop = first + num_steps
            end_s = duration_s if stop == len(times_s) else stop * self.step_s
            is_known = names[label] is not None
            times = round(first * self.step_s, TIME_DIGITS), round(end_s, TIME_DIGITS)
            yield LabelledBout(*times, names[label], probability if is_known else None)
            first = stop

    def _probabilities(self, log_probabilities: Float[Tensor, " K"]) -> Float[np.ndarray, " L"]:
        """Return a window's probabilities; with a threshold, the last one is that of having no label."""
        probabilities = log_probabilities.exp()
        if self.threshold is None:
            return probabilities.numpy()
        unsure = confidence(log_probabilities, self.temperature) < self.threshold
        return torch.cat([probabilities * ~unsure, unsure[None].to(probabilities)]).numpy()


def look_at_films(
    paths: Sequence[Path], windows: Windows, num_threads: int
) -> Iterator[tuple[Path, VideoInfo | VideoError]]:
    """Yield each video with its facts, or with what is wrong with it; it may be too short."""
    for path, facts in look_at(paths, num_threads):
        try:
            if isinstance(facts, VideoError):
                raise facts
            assert isinstance(facts, VideoFacts)
            windows.times_of(path, facts.info)
        except VideoError as error:
            yield path, error
        else:
            yield path, facts.info


def bouts_of_films(
    timeliner: Timeliner, films: Iterable[tuple[Path, VideoInfo | VideoError]], failures: Failures
) -> Iterator[dict[str, Any]]:
    """Yield a line for each bout of each film; a film that fails is a line with its error, or left out."""
    for path, info in films:
        try:
            if isinstance(info, VideoError):
                raise info
            for bout in timeliner.bouts(path, info):
                yield {"path": str(path), **bout._asdict()}
        except VideoError as error:
            if line := failures.line(path, error):
                yield line


def check_target(to: Path, paths: Sequence[Path]) -> None:
    """Raise VidclfError unless bouts of the videos can be written to the file `to`: now, not after hours."""
    if to.exists():
        raise VidclfError(f"to={to}: the file exists. Choose another name or delete it.")
    if not to.parent.is_dir():
        raise VidclfError(f"to={to}: there is no folder {to.parent}. Make it, or choose another.")
    if to.suffix.lower() == LINES:
        write_atomically(to, b"")
    else:
        names = [_name_beside(to, path) for path in paths]
        infos = dict.fromkeys(names, VideoInfo(1, 1.0, 1, 1))
        write_events(to, [Event(name, 0.0, 1.0, "label") for name in names], infos)
    to.unlink()


def write_bouts(
    to: Path, lines: Iterable[Mapping[str, Any]], films: Mapping[Path, VideoInfo], background: str | None
) -> tuple[int, int]:
    """Write lines, or the bouts with a label other than `background` as events; return how many, of how many films.

    In events, a video is named by its path below the file's folder, or by its whole path.
    """
    names = {str(path): _name_beside(to, path) for path in films}
    infos = {names[str(path)]: info for path, info in films.items()}
    events: list[Event] = []
    written: list[str] = []
    for line in lines:
        written.append(json.dumps(line))
        if "error" in line:
            infos.pop(names.get(line["path"], ""), None)  # a film that has changed since it was looked at
        elif line["label"] not in (None, background):
            events.append(Event(names[line["path"]], line["start_s"], line["end_s"], line["label"]))
    events = [event for event in events if event.path in infos]
    if to.suffix.lower() == LINES:
        write_atomically(to, "".join(f"{line}\n" for line in written).encode())
    else:
        write_events(to, events, infos)
    return len(events), len(infos)


def _name_beside(to: Path, path: Path) -> str:
    whole, folder = (Path(os.path.abspath(one)) for one in (path, to.parent))
    return (whole.relative_to(folder) if whole.is_relative_to(folder) else whole).as_posix()


def average_settled(
    windows: Iterable[Float[np.ndarray, " K"]],
    starts_s: Float[np.ndarray, " W"],
    ends_s: Float[np.ndarray, " W"],
    times_s: Float[np.ndarray, " N"],
) -> Iterator[Block]:
    """Yield what `average_windows` returns for all windows, of instants that no later window covers."""
    held: list[tuple[Float[np.ndarray, " K"], float, float]] = []  # windows that cover the last instant, or later ones
    first = 0
    for row, start_s, end_s, next_s in zip(windows, starts_s, ends_s, [*starts_s[1:], np.inf], strict=True):
        held.append((row, start_s, end_s))
        # In a gap between two windows, instants wait for the second one, which may be the nearest.
        stop = len(times_s) if next_s == np.inf else int(np.searchsorted(times_s, min(end_s, next_s)))
        if stop <= first:
            continue
        before = min(first, 1)  # the instant before, with which a gap may be filled
        rows, starts, ends = (np.asarray(column) for column in zip(*held, strict=True))
        yield average_windows(rows, starts, ends, times_s[first - before : stop])[before:]
        held = [window for window in held if window[2] > times_s[stop - 1]]
        first = stop


def smooth_settled(blocks: Iterable[Block], num_steps: int) -> Iterator[Block]:
    """Yield what `smooth` returns for all instants, of those around which all are known."""
    held, num_done = np.empty((0, 0)), 0  # the last instants, and how many of them were yielded
    for block in blocks:
        held = np.concatenate([held, block]) if held.size else block
        stop = len(held) - num_steps // 2
        if stop > num_done:
            yield smooth(held, num_steps)[num_done:stop]
            first = max(0, stop - num_steps)
            held, num_done = held[first:], stop - first
    yield smooth(held, num_steps)[num_done:]


def clean_settled(blocks: Iterable[Block], min_steps: int) -> Iterator[tuple[Int[np.ndarray, " _"], Block]]:
    """Yield what `drop_short` returns for all instants, and their probabilities, up to the last bout that is kept."""
    labels, rows = np.empty(0, int), np.empty((0, 0))
    for block in blocks:
        labels = np.concatenate([labels, block.argmax(axis=1)])
        rows = np.concatenate([rows, block]) if rows.size else block
        kept = [bout for bout in bouts_of(labels) if bout.stop - bout.first >= min_steps]
        if kept:
            labels[: kept[-1].stop] = drop_short(labels[: kept[-1].stop], min_steps)
            num_settled = kept[-1].stop - min_steps  # the rest of this bout stands for it, before short ones
            yield labels[:num_settled], rows[:num_settled]
            labels, rows = labels[num_settled:], rows[num_settled:]
    yield drop_short(labels, min_steps), rows


def merge(cleaned: Iterable[tuple[Int[np.ndarray, " _"], Block]]) -> Iterator[tuple[int, int, float]]:
    """Yield the label of each bout, its number of instants, and its mean probability."""
    pieces = (
        (label, stop - first, rows[first:stop, label].sum())
        for labels, rows in cleaned
        for first, stop, label in bouts_of(labels)
    )
    for label, of_bout in groupby(pieces, key=lambda piece: piece[0]):
        _, counts, sums = zip(*of_bout, strict=True)
        yield label, sum(counts), float(sum(sums) / sum(counts))

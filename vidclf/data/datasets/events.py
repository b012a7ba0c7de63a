"""Windows of long videos, labelled by a table of events in any of the formats of `vidclf.data.events`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vidclf.contracts import Video
from vidclf.data.catalogue import VideoFacts
from vidclf.data.decoding import VideoInfo, inspect
from vidclf.data.events import Event, parse_tables, retime
from vidclf.data.films import find_files, group_files, part_of_files
from vidclf.data.listing import DatasetError, check_choice, check_custom_classes, choose_classes, sort_names
from vidclf.data.timelines import (
    NEGLIGIBLE_S,
    ROUNDING,
    TIME_DIGITS,
    Labelled,
    Stretch,
    cover,
    describe,
    duration_of,
    instants,
    labels_at,
    settle,
    window_starts,
)
from vidclf.errors import VidclfError, VideoError
from vidclf.system.terminal import say
from vidclf.system.text import first_five

SLACK_S = 0.1  # an event may end this much after the last frame, because a container's duration includes its sound

LookUp = Callable[[Sequence[Path]], Sequence[VideoFacts | VideoError]]


class Coded(NamedTuple):
    """The labels of two coders for one file, at every step of time."""

    group: str
    first: list[str]
    second: list[str]


class Events:
    """Windows of `window_s` seconds, one every `stride_s` seconds, of the videos that a table of events names.

    A window's label is the one that covers most of it, if that is at least the share `min_cover`; else `background`.
    Windows lie within what decodes: that is known from the one look at each file, which every verb takes. What is left
    at the end of a video, less than a stride, is in no window.

    With `rate_hz`, a window begins at the nearest frame that sampling=rate takes of the whole file. Overlapping windows
    then have their frames in common, and a frame's features are computed once, whatever the frame rate and the stride.
    Other samplings spread frames over each window and share few.

    Args:
        file: a table; a folder of tables; or a list of tables, one for each coder.
        root: paths in the table are relative to it; null: to the table's folder. A video that is not at its path is
            found by its name, if only one below `root` has it.
        format: of the table; null: the one that fits its content.
        window_s: the length of a window.
        stride_s: from the start of one window to that of the next.
        background: the label of windows without one; null: they are left out.
        min_cover: the share of a window that its label must cover.
        group: which videos a split keeps together: "file"; "subject", those with a subject in common; "parent", those
            of one folder; a regular expression with one group, which is searched in the path below `root`; null: those
            with a group in common if the table has that column, else "file".
        overlap: which of several labels at a time is used: "first", that of the event that began first; "shortest".
        priority: which of several labels at a time is used: the one that stands first in this list.
        point_s: the duration that point events get, around their time; null: they are left out.
        coder: whose events are used; null: the first coder's.
        rate_hz: that of sampling=rate; null: another sampling.
        classes: use these labels only; the rest is background.
        anywhere: whether paths may be absolute or lead out of `root`.
        on_error: as in `UCF101`.

    Attributes:
        timelines: after `videos`, the labels of each readable file: stretches that do not overlap, in order.

    Raises:
        VidclfError: a table cannot be read, or an argument is not allowed.
    """

    split_numbers = ()
    needs_look = True

    def __init__(
        self,
        file: str | Path | Sequence[str],
        root: str | Path | None = None,
        format: str | None = None,
        window_s: float | int = 2.0,
        stride_s: float | int = 1.0,
        background: str | None = "other",
        min_cover: float | int = 0.5,
        group: str | None = None,
        overlap: str | None = None,
        priority: Sequence[str] | None = None,
        point_s: float | int | None = None,
        coder: str | None = None,
        rate_hz: float | int | None = None,
        classes: Sequence[str | int | None] | None = None,
        anywhere: bool = False,
        on_error: str = "raise",
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        if overlap is not None:
            check_choice("overlap", overlap, ("first", "shortest"))
        check_above_0(window_s=window_s, stride_s=stride_s, min_cover=min_cover, point_s=point_s)
        if min_cover > 1:
            raise VidclfError(f"dataset.min_cover={min_cover}: must be at most 1, which is the whole window.")
        self.window_s, self.stride_s, self.min_cover, self.rate_hz = window_s, stride_s, min_cover, rate_hz
        self.background, self.group, self.overlap, self.priority = background, group, overlap, list(priority or ())
        self.point_s, self.anywhere, self.on_error = point_s, anywhere, on_error
        files = [Path(name).expanduser() for name in ([file] if isinstance(file, str | Path) else file)]
        if not files:
            raise VidclfError("dataset.file=[]: must name a table of events.")
        self.file = files[0]
        folder = self.file if self.file.is_dir() else self.file.parent
        self.root = folder if root is None else Path(root).expanduser()
        if not self.root.is_dir():
            raise VidclfError(f"dataset.root={self.root}: there is no such folder. Set it to the folder of the videos.")
        self._tables = [table for file in files for table in parse_tables(file, format, len(files) > 1)]
        self.coders = list(dict.fromkeys(event.coder for _, events in self._tables for event in events))
        self.coder = self.coders[0] if coder is None else coder
        if self.coders == [""] and coder:
            raise VidclfError(f"dataset.coder={coder}: {self.file} names no coder. Leave dataset.coder out.")
        if self.coder not in self.coders:
            raise VidclfError(f"dataset.coder={coder}: must be one of {', '.join(map(repr, self.coders))}.")
        mine = [event for _, events in self._tables for event in events if event.coder == self.coder]
        labels = {event.label for event in mine if point_s or event.start_s < event.end_s}
        if unknown := [label for label in self.priority if label not in labels]:
            allowed = ", ".join(sort_names(labels))
            raise VidclfError(f"dataset.priority: there is no label {first_five(unknown)}. Allowed: {allowed}.")
        chosen = choose_classes(classes, sort_names(labels))
        self.class_names = sort_names({*chosen, *([] if background is None else [background])})
        check_custom_classes(self.class_names, self.file)

    def videos(self, look_up: LookUp | None = None) -> list[Video]:
        """Return every window, in the order of the files in the table, then of time.

        Args:
            look_up: returns the facts of files; None: every file is decoded.

        Raises:
            VidclfError: a video is missing or damaged, or an argument does not fit the videos.
            DatasetError: an event does not fit its video, or labels contradict each other.
        """
        events, infos = self._locate(look_up or _inspect_all)
        if len(self.coders) > 1:
            say(
                f"{self.file}: {len(self.coders)} coders ({first_five(self.coders)}); events of {self.coder} are used. "
                "dataset.coder=... chooses another."
            )
        mine = [event for event in events if event.coder == self.coder]
        groups = group_files(mine, self.group, self.root)
        parts = part_of_files(self.file, mine, self.group == "file")
        timelines, problems = self._timelines(mine, infos)
        self.timelines = timelines
        videos: list[Video] = []
        short, num_left_out = list[str](), 0
        for path, group in groups.items():
            window = partial(Video, Path(path), group=group, part=parts[path], shared=True)
            if (info := infos[path]) is None:  # damaged, which the corpus reports
                videos.append(window(0, class_name=self.class_names[0]))
                continue
            if self.stride_s * info.fps < 1:
                raise VidclfError(
                    f"dataset.stride_s={self.stride_s:g}: is shorter than a frame of {path}, {1 / info.fps:.3g} s. "
                    "Choose a longer stride, such as half a window."
                )
            starts_s = window_starts(info, self.window_s, self.stride_s, self.rate_hz)
            short += [] if len(starts_s) else [f"{path} ({duration_of(info):.2f} s)"]
            for start_s, label in zip(starts_s.tolist(), self._labels(timelines[path], starts_s), strict=True):
                if label is None:
                    num_left_out += 1
                    continue
                times = {"start_s": start_s, "end_s": round(start_s + self.window_s, TIME_DIGITS)}
                videos.append(window(self.class_names.index(label), **times, class_name=label))
        if short and self.on_error == "raise":
            raise VidclfError(
                f"dataset.window_s={self.window_s:g}: {len(short)} video(s) are shorter than a window: "
                f"{first_five(short)}. Choose a shorter window, or pass dataset.on_error=skip."
            )
        self._report(timelines, infos, groups)
        left_out = {
            "point event(s) have no duration, which dataset.point_s=0.5 gives them; they": self._num_points(mine),
            "window(s) have no event, and dataset.background is null; they": num_left_out,
            f"video(s) are shorter than a window ({first_five(short)}); they": len(short),
        }
        for what, count in left_out.items():
            if count:
                say(f"{self.file}: {count} {what} are left out.")
        if problems:
            raise DatasetError(problems, videos)
        return videos

    def coded_twice(self, step_s: float | int = 0.1, look_up: LookUp | None = None) -> list[Coded]:
        """Return what the used coder and the next one say of each file that both have seen, every `step_s` seconds."""
        other = next((coder for coder in self.coders if coder != self.coder), None)
        if other is None:
            return []
        events, infos = self._locate(look_up or _inspect_all)
        mine, others = ([event for event in events if event.coder == coder] for coder in (self.coder, other))
        groups = group_files(mine, self.group, self.root)
        first, second = (self._timelines(of_coder, infos)[0] for of_coder in (mine, others))
        coded = []
        for path in first:
            if path in second and (info := infos[path]):
                times_s = instants(duration_of(info), step_s)
                pair = (labels_at(timeline[path], times_s, self.background or "") for timeline in (first, second))
                coded.append(Coded(groups[path], *pair))
        return coded

    def _locate(self, look_up: LookUp) -> tuple[list[Event], dict[str, VideoInfo | None]]:
        """Return the events, with the paths of files and times in seconds, and the facts of each file (None: damaged).

        Times of damaged files are as they are written.
        """
        every = [event for _, events in self._tables for event in events]
        paths = {name: str(path) for name, path in find_files(self.file, every, self.root, self.anywhere).items()}
        infos: dict[str, VideoInfo | None] = {}
        unique = list(dict.fromkeys(paths.values()))
        for path, found in zip(unique, look_up(list(map(Path, unique))), strict=True):
            if isinstance(found, VideoError) and self.on_error == "raise":
                raise found
            infos[path] = found.info if isinstance(found, VideoFacts) else None
        located: list[Event] = []
        for per_frame, events in self._tables:
            here = [replace(event, path=paths[event.path]) for event in events]
            located += retime(here, infos.__getitem__) if per_frame else here
        return located, infos

    def _timelines(
        self, events: Sequence[Event], infos: Mapping[str, VideoInfo | None]
    ) -> tuple[dict[str, list[Stretch]], list[str]]:
        """Return the labels of each readable file, stretches in order that do not overlap, and problems of events."""
        problems: list[str] = []
        of_file: dict[str, list[Event]] = {event.path: [] for event in events if infos[event.path]}
        for event in events:
            if (info := infos[event.path]) and event.label in self.class_names:
                duration_s = duration_of(info)
                of_file[event.path] += self._fitted(event, duration_s)
                if event.end_s > duration_s + SLACK_S:
                    problems.append(
                        f"{self.file}, {event.where}: {event.label} ends at {event.end_s:g} s, and the video "
                        f"{event.path} is {duration_s:.2f} s long. Correct the time, or see whether it is the "
                        "annotated video."
                    )
        settled = {path: settle(of_path, self._rank) for path, of_path in of_file.items()}
        contradictions = {path: found for path, (_, found) in settled.items()}
        if any(contradictions.values()):
            problems.append(
                f"{self.file}: {describe(contradictions, self.root)}. Correct the events, or choose a label with "
                "dataset.overlap=first, dataset.overlap=shortest or dataset.priority=[...]."
            )
        return {path: stretches for path, (stretches, _) in settled.items()}, problems

    def _fitted(self, event: Event, duration_s: float) -> list[Event]:
        """Return the event within its video; nothing for a point event, unless it gets a duration."""
        half_s = (self.point_s or 0) / 2 if event.start_s == event.end_s else 0
        start_s, end_s = max(0.0, event.start_s - half_s), min(event.end_s + half_s, duration_s)
        return [replace(event, start_s=start_s, end_s=end_s)] if start_s < end_s else []

    def _rank(self, event: Labelled) -> tuple[float | int, ...]:
        """Return what the label that wins has the lowest of: the place in `priority`, then what `overlap` says."""
        place = self.priority.index(event.label) if event.label in self.priority else len(self.priority)
        by = {"first": event.start_s, "shortest": event.end_s - event.start_s}
        return (place, by[self.overlap]) if self.overlap else (place,)

    def _labels(self, stretches: Sequence[Stretch], starts_s: Float[np.ndarray, " W"]) -> list[str | None]:
        """Return the label of each window, or `background`."""
        covered = cover(stretches, starts_s, self.window_s, self.class_names)
        most = covered.max(axis=1)
        # A tool that rounds times to milliseconds changes no label.
        is_covered = (most > 0) & (most >= self.min_cover * self.window_s - NEGLIGIBLE_S)
        first = (covered >= most[:, None] - NEGLIGIBLE_S).argmax(axis=1)
        names = [self.class_names[column] for column in first]
        return [name if enough else self.background for name, enough in zip(names, is_covered, strict=True)]

    def _num_points(self, events: Sequence[Event]) -> int:
        return 0 if self.point_s else sum(event.start_s == event.end_s for event in events)

    def _report(
        self,
        timelines: Mapping[str, Sequence[Stretch]],
        infos: Mapping[str, VideoInfo | None],
        groups: Mapping[str, str],
    ) -> None:
        """Say how many seconds each class and each group has, and the share without an event."""
        durations = {path: duration_of(info) for path in timelines if (info := infos[path])}
        of_class, of_group = dict.fromkeys(self.class_names, 0.0), dict.fromkeys(groups.values(), 0.0)
        for path, stretches in timelines.items():
            of_group[groups[path]] += durations[path]
            for one in stretches:
                of_class[one.label] += one.end_s - one.start_s
        total_s = sum(durations.values())
        labelled = [f"{name} {time_s:.1f} s" for name, time_s in of_class.items() if time_s]
        nothing_s = max(0.0, total_s - sum(of_class.values()))
        nothing = f"no event {nothing_s:.1f} s ({nothing_s / max(total_s, ROUNDING):.0%})"
        say(f"{self.file}: {total_s:.1f} s of {len(durations)} video(s): {', '.join([*labelled, nothing])}.")
        shown = [f"{name} {time_s:.1f} s" for name, time_s in of_group.items()]
        say(f"{self.file}: {len(of_group)} group(s): {first_five(shown)}.")


def _inspect_all(paths: Sequence[Path]) -> list[VideoFacts | VideoError]:
    """Return the facts of files, without a catalogue that remembers them."""
    facts: list[VideoFacts | VideoError] = []
    for path in paths:
        try:
            facts.append(VideoFacts("", inspect(path)))
        except VideoError as error:
            facts.append(error)
    return facts


def check_above_0(**settings: float | int | None) -> None:
    """Raise VidclfError if a setting of the data set has a value that is not above 0."""
    for key, value in settings.items():
        if value is not None and not 0 < value < float("inf"):
            unit = "" if key == "min_cover" else ", in seconds"
            raise VidclfError(f"dataset.{key}={value}: must be above 0{unit}.")

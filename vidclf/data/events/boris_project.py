"""A project of BORIS (.boris), which is JSON. A state event is two rows, a start and a stop of one behavior.

Source: Friard and Gamba, "BORIS", Methods in Ecology and Evolution 2016; its user guide.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from vidclf.data.decoding import VideoInfo
from vidclf.data.events import Event, number
from vidclf.data.timelines import lanes
from vidclf.errors import VidclfError
from vidclf.system.terminal import say
from vidclf.system.text import first_five

NAME, ENDINGS, WRITES, PER_FRAME = "boris_project", (".boris",), (".boris",), False


def fits(text: str) -> bool:
    """Return whether it is JSON with BORIS's keys."""
    return text.lstrip()[:1] == "{" and '"observations"' in text and '"behaviors_conf"' in text


def read(file: Path, text: str) -> Iterator[Event]:
    """Yield the events of all observations of media files."""
    project = json.loads(text)
    points = {b["code"] for b in project["behaviors_conf"].values() if "point" in b["type"].casefold()}
    of_films = {name: o for name, o in project["observations"].items() if o.get("type") != "LIVE" and o["events"]}
    for name, observation in of_films.items():
        yield from _read_observation(file, name, observation, points)
    if skipped := [name for name in project["observations"] if name not in of_films]:
        say(f"{file}: {len(skipped)} observations are live or have no events; left out: {first_five(skipped)}.")


def _read_observation(file: Path, name: str, observation: dict[str, Any], points: set[Any]) -> Iterator[Event]:
    films = [[*paths] for _, paths in sorted(observation["file"].items()) if paths]  # players show theirs side by side
    if len(films) != 1 or len(films[0]) != 1:
        what = "it is over several files, whose times BORIS counts through" if films else "it names no media file"
        raise VidclfError(f"{file}, observation {name!r}, row 1: {what}. Make one observation for each file.")
    path = films[0][0].replace("\\", "/")
    offset_s = float(observation.get("time offset") or 0)  # BORIS adds it to all times
    coder = str(observation.get("independent_variables", {}).get("coder", ""))
    started: dict[tuple[str, ...], Event] = {}
    for row_number, row in enumerate(observation["events"], start=1):
        where = f"observation {name!r}, row {row_number}"
        time, subject, label, modifier = [*row, ""][:4]
        time_s = number(file, number(file, time, where) - offset_s, where)
        event = Event(path, time_s, time_s, str(label), subject, coder=coder, where=where)
        if label in points:
            yield event
        elif start := started.pop((subject, label, modifier), None):
            yield replace(start, end_s=time_s)
        else:
            started[subject, label, modifier] = event
    for event in started.values():
        raise VidclfError(f"{file}, {event.where}: {event.label} never stops. Pair the state events in BORIS.")


def write(path: Path, events: Sequence[Event], videos: Mapping[str, VideoInfo]) -> bytes:
    """Return a project that BORIS opens: an observation for each video and coder.

    Events of one behavior and subject that overlap differ in their modifier, because BORIS pairs starts and stops.
    """
    with_duration = {event.label for event in events if event.start_s < event.end_s}
    of_one = [(event.path, event.coder, event.subject, event.label) for event in events]
    observations: dict[str, Any] = {}
    for event, lane in zip(events, lanes(events, of_one), strict=True):
        name = f"{event.path} ({event.coder})" if event.coder else event.path
        rows = observations.setdefault(name, _observation(event, videos[event.path]))["events"]
        for time_s in (event.start_s, event.end_s) if event.label in with_duration else (event.start_s,):
            what = [event.subject, event.label, str(lane + 1) if lane else "", ""]
            rows.append([round(time_s, 3), *what, int(time_s * videos[event.path].fps)])
    for observation in observations.values():
        observation["events"].sort(key=lambda row: row[0])
    labels, subjects = ({getattr(event, key) for event in events} - {""} for key in ("label", "subject"))
    blank = dict.fromkeys(("key", "description", "color", "category", "modifiers", "excluded", "coding map"), "")
    types = {label: "State event" if label in with_duration else "Point event" for label in labels}
    project = {
        **{"time_format": "hh:mm:ss", "project_format_version": "7.0", "project_name": path.stem},
        **{"project_date": datetime.now().isoformat(timespec="seconds"), "project_description": "Written by vidclf"},
        "subjects_conf": _numbered({"key": "", "name": name, "description": ""} for name in sorted(subjects)),
        "behaviors_conf": _numbered({**blank, "code": label, "type": types[label]} for label in sorted(labels)),
        "observations": observations,
        **{key: {} for key in ("behavioral_categories_config", "independent_variables", "coding_map", "converters")},
        **{key: [] for key in ("behavioral_categories", "behaviors_coding_map")},
    }
    return json.dumps(project, indent=1, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _numbered(items: Iterable[dict[str, str]]) -> dict[str, dict[str, str]]:
    return {str(number): item for number, item in enumerate(items)}


def _observation(event: Event, info: VideoInfo) -> dict[str, Any]:
    film, duration_s = event.path, info.num_frames / info.fps
    facts = {"length": duration_s, "fps": info.fps, "hasVideo": True, "hasAudio": False}
    return {
        "file": {player: [film] if player == "1" else [] for player in "12345678"},
        **{"type": "MEDIA", "date": datetime.now().isoformat(timespec="seconds"), "description": ""},
        **{"time offset": 0.0, "events": [], "observation time interval": [0, 0]},
        "independent_variables": {"coder": event.coder} if event.coder else {},
        **dict.fromkeys(("visualize_spectrogram", "visualize_waveform", "media_creation_date_as_offset"), False),
        **{"media_scan_sampling_duration": 0, "image_display_duration": 1, "close_behaviors_between_videos": False},
        "media_info": {**{key: {film: value} for key, value in facts.items()}, "offset": {"1": 0.0}},
    }

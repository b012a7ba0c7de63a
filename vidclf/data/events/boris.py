"""Aggregated events as BORIS exports them (Observations, Export events, Aggregated events), TSV or CSV.

Older and newer versions of BORIS name some columns differently; both are read.
Source: Friard and Gamba, "BORIS", Methods in Ecology and Evolution 2016; its user guide.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vidclf.data.decoding import VideoInfo
from vidclf.data.events import Event, number
from vidclf.data.tables import DELIMITERS, Row, Schema, header_of, read_csv
from vidclf.errors import VidclfError
from vidclf.system.terminal import say

NAME, ENDINGS, WRITES, PER_FRAME = "boris", (".tsv", ".csv", ".txt"), (".tsv",), False
REQUIRED = ("observation id", "behavior", "start (s)", "stop (s)")
SCHEMA = Schema(REQUIRED, None, numbers=("start (s)", "stop (s)", "time offset (s)"), verbatim=("behavior",))
MEDIA = ("media file name", "media file", "source")  # of newer versions first
HEADER = (
    *("Observation id", "Observation date", "Description", "Media file", "Total length", "FPS", "coder", "Subject"),
    *("Behavior", "Behavioral category", "Modifiers", "Behavior type", "Start (s)", "Stop (s)", "Duration (s)"),
    *("Comment start", "Comment stop"),
)
NOBODY = "No focal subject"
NO_TIME = ("", "na", "nan", "none", "unpaired")


def fits(text: str) -> bool:
    """Return whether the header has BORIS's columns."""
    return any({*REQUIRED} <= header_of(text, delimiter) for delimiter in DELIMITERS)


def read(file: Path, text: str) -> Iterator[Event]:
    """Yield an event for each row."""
    num_modified = 0
    for line, row in read_csv(file, SCHEMA, text):
        where = f"observation {row['observation id']!r}, line {line}"
        label = row["behavior"]
        start_s, end_s = (_time(file, where, label, row, key) for key in ("start (s)", "stop (s)"))
        offset_s = float(row.get("time offset (s)") or 0)  # BORIS adds it to all times
        num_modified += bool(row.get("modifiers", "").strip(" |"))
        subject = row.get("subject", "")
        yield Event(
            _media(file, where, row),
            number(file, start_s - offset_s, where),
            number(file, end_s - offset_s, where),
            label,
            "" if subject == NOBODY else subject,
            coder=row.get("coder", ""),
            where=where,
        )
    if num_modified:
        say(f"{file}: {num_modified} events have modifiers, which are left out: their labels are the behaviors.")


def write(path: Path, events: Sequence[Event], videos: Mapping[str, VideoInfo]) -> bytes:
    """Return the table with tabs; each video is an observation."""
    rows = []
    for event in events:
        info = videos[event.path]
        length = f"{info.num_frames / info.fps:.3f}"
        kind = "POINT" if event.start_s == event.end_s else "STATE"
        start, stop = f"{event.start_s:.3f}", f"{event.end_s:.3f}"
        duration = f"{event.end_s - event.start_s:.3f}"
        film = [event.path, "", "", event.path, length, f"{info.fps:.3f}", event.coder]
        rows.append([*film, event.subject or NOBODY, event.label, "", "", kind, start, stop, duration, "", ""])
    table = io.StringIO(newline="")
    csv.writer(table, "excel-tab").writerows([HEADER, *rows])
    return table.getvalue().encode("utf-8", "surrogateescape")


def _time(file: Path, where: str, label: str, row: Row, key: str) -> float:
    if row[key].casefold() in NO_TIME:
        if "POINT" in (row.get("behavior type", "").upper(), row.get("behavioral type", "").upper()):
            return number(file, row["start (s)"], where)
        verb = "starts" if key == "start (s)" else "stops"
        raise VidclfError(f"{file}, {where}: {label} never {verb}. Pair the state events in BORIS and export again.")
    return number(file, row[key], where)


def _media(file: Path, where: str, row: Row) -> str:
    """Return the file of an observation; BORIS puts several one behind the other on one time line."""
    written = next((row[name] for name in MEDIA if row.get(name)), "")
    players = [text.strip() for text in re.split(r";|\||(?:^|\s)(?:player )?#\d+:", written) if text.strip()]
    names = [name.replace("\\", "/") for name in dict.fromkeys(players)]
    if not names or row.get("observation type", "").casefold() == "live":
        raise VidclfError(f"{file}, {where}: it names no media file. Leave live observations out of the export.")
    if len(names) > 1:
        raise VidclfError(
            f"{file}, {where}: it is over {len(names)} files, {', '.join(names)}, whose times BORIS counts through. "
            "Give the .boris project, which says how long each is, or make one observation for each file."
        )
    return names[0]

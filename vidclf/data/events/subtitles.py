"""Subtitles (SubRip .srt, WebVTT .vtt) of one video, which any player shows: the label, and below it (the subject).

The video is the one that is named like the file. Source of .vtt: https://www.w3.org/TR/webvtt1/
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape, unescape
from pathlib import Path

from vidclf.data.decoding import VideoInfo
from vidclf.data.events import Event, one_video

NAME, ENDINGS, WRITES, PER_FRAME = "subtitles", (".srt", ".vtt"), (".srt", ".vtt"), False
TIME = r"(?:(\d+):)?(\d\d?):(\d\d?)[,.](\d{1,3})"
CUE = re.compile(rf"^\s*{TIME}\s*-->\s*{TIME}.*$")


def fits(text: str) -> bool:
    """Return whether it has the times of a cue."""
    return re.search(rf"^\s*{TIME}\s*-->\s*{TIME}", text, re.MULTILINE) is not None


def read(file: Path, text: str) -> Iterator[Event]:
    """Yield every cue."""
    is_vtt = text.startswith("WEBVTT")
    lines = iter(enumerate(text.splitlines(), start=1))
    for row, line in lines:
        if (cue := CUE.match(line)) is None:
            continue
        shown: list[str] = []
        for _, words in lines:
            if not words.strip():
                break
            shown.append(unescape(words) if is_vtt else words)
        subject = re.fullmatch(r"\((.*)\)", shown[1]) if len(shown) > 1 else None
        start_s, end_s = _seconds(*cue.groups()[:4]), _seconds(*cue.groups()[4:])
        label = shown[0] if shown else ""
        yield Event(file.stem, start_s, end_s, label, subject[1] if subject else "", where=f"line {row}")


def write(path: Path, events: Sequence[Event], videos: Mapping[str, VideoInfo]) -> bytes:
    """Return a cue for each event."""
    one_video(path, events)
    is_vtt = path.suffix.lower() == ".vtt"
    cues = []
    for count, event in enumerate(events, start=1):
        times = " --> ".join(_shown(time, "." if is_vtt else ",") for time in (event.start_s, event.end_s))
        words = [event.label, *([f"({event.subject})"] if event.subject else [])]
        cues.append("\n".join([str(count), times, *(escape(word, False) if is_vtt else word for word in words)]))
    return "\n\n".join([*(["WEBVTT"] if is_vtt else []), *cues, ""]).encode("utf-8", "surrogateescape")


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")


def _shown(time_s: float, point: str) -> str:
    rest, milliseconds = divmod(round(time_s * 1000), 1000)
    rest, seconds = divmod(rest, 60)
    hours, minutes = divmod(rest, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"

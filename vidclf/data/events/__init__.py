"""Tables of events, read and written: one module a format, found by its place in this package.

A format's module has
    NAME        of `dataset.format`
    ENDINGS     of the names of its files, in lower case
    WRITES      the endings for which `write` writes it; () if it is only read
    PER_FRAME   whether `read` gives times in frames of the video (the first is 0), and not in seconds
    fits(text)                      whether a file's text is of this format
    read(file, text)                its events
    write(path, events, videos)     bytes, given each video's `VideoInfo`
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from itertools import groupby
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from vidclf.data.decoding import VideoInfo
from vidclf.data.listing import read_text
from vidclf.data.tables import check_num_rows
from vidclf.data.timelines import times_of
from vidclf.errors import VidclfError
from vidclf.system.disk import write_atomically
from vidclf.system.terminal import say
from vidclf.system.text import first_five

MAX_EVENTS = 1_000_000
MAX_BYTES = 50_000_000  # of a file of text, which takes several times its size while it is read
PARQUET = "PAR1"  # the first bytes of a Parquet file, in place of its text


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens in a video.

    Attributes:
        path: of the video's file, as it is written.
        start_s: when it begins, in seconds from the first frame.
        end_s: when it ends; `start_s` for a point event, which has no duration.
        label: the name of its class.
        subject: who does it; "": not said.
        group: of videos that are not independent.
        part: train, val or test.
        coder: who saw it.
        where: it is written, for messages.
    """

    path: str
    start_s: float | int
    end_s: float | int
    label: str
    subject: str = ""
    group: str = ""
    part: str = ""
    coder: str = ""
    where: str = field(default="", compare=False)


@cache
def formats() -> dict[str, ModuleType]:
    """Return every format by its name."""
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    return {module.NAME: module for module in modules}


def read_events(
    file: Path, format: str | None = None, info_of: Callable[[str], VideoInfo] | None = None
) -> list[Event]:
    """Return the events in a file, in its order.

    Args:
        file: of any format.
        format: its name; None: the one that fits the file's content, whatever its ending says.
        info_of: returns a video's facts; tables that count frames need it.

    Raises:
        VidclfError: no format fits, the file is not of its format, or it is larger than memory should hold.
    """
    chosen, events = parse_events(file, format)
    if not chosen.PER_FRAME:
        return events
    if info_of is None:
        raise VidclfError(f"{file}: it counts frames, so that the videos' rates are needed. Give `info_of`.")
    return retime(events, info_of)


def parse_events(file: Path, format: str | None = None) -> tuple[ModuleType, list[Event]]:
    """Return the format of a file, and its events with times as they are written."""
    text = _text_of(file)
    chosen = _choose(file, text, format)
    events: list[Event] = []
    for event in _read(chosen, file, text):
        check_num_rows(file, len(events) + 1, MAX_EVENTS)
        events.append(event)
    if not events:
        raise VidclfError(f"{file}: there are no events in it. Choose a table with at least two classes.")
    return chosen, events


def parse_tables(file: Path, format: str | None, is_coder: bool) -> list[tuple[bool, list[Event]]]:
    """Return whether times are frames, and the events, of a table, or of each table in a folder.

    Args:
        file: a table, or a folder, in which files with the ending of a format are tables.
        format: as in `read_events`.
        is_coder: whether all events without a coder are of the one that the file is named after.
    """
    files = [file]
    if file.is_dir():
        endings = {ending for module in formats().values() for ending in module.ENDINGS}
        files = sorted(path for path in file.iterdir() if path.is_file() and path.suffix.lower() in endings)
        if not files:
            raise VidclfError(f"dataset.file={file}: there is no table of events in this folder. Name a table.")
    tables = []
    for path in files:
        chosen, events = parse_events(path, format)
        if is_coder:
            events = [replace(event, coder=event.coder or file.stem) for event in events]
        tables.append((chosen.PER_FRAME, events))
    return tables


def retime(
    events: Sequence[Event],
    info_of: Callable[[str], VideoInfo | None],
    convert: Callable[[VideoInfo, Sequence[float | int]], list[float]] = times_of,
) -> list[Event]:
    """Return events with times in seconds that were frames, or what `convert` says; those without facts unchanged."""
    converted: list[Event] = []
    for path, of_path in groupby(events, lambda event: event.path):
        run = list(of_path)
        if (info := info_of(path)) is None:
            converted += run
            continue
        times = convert(info, [time for event in run for time in (event.start_s, event.end_s)])
        pairs = zip(times[::2], times[1::2], strict=True)
        converted += [replace(e, start_s=start, end_s=end) for e, (start, end) in zip(run, pairs, strict=True)]
    return converted


def write_events(path: Path, events: Sequence[Event], videos: Mapping[str, VideoInfo]) -> None:
    """Write events in the format that the file's ending names; `videos` has the facts of each event's video.

    Raises:
        VidclfError: no format has the ending, or the format cannot say what is to be written.
    """
    writers = {ending: module for module in formats().values() for ending in module.WRITES}
    if path.suffix.lower() not in writers:
        raise VidclfError(f"{path}: the name must end in {', '.join(sorted(writers))}.")
    in_order = sorted(events, key=lambda event: (event.path, event.start_s, event.end_s))
    write_atomically(path, writers[path.suffix.lower()].write(path, in_order, videos))


def number(file: Path, value: object, what: str) -> float:
    """Return a finite number from a file, 0 or more; raise VidclfError if it is none."""
    try:
        result = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        result = -1.0
    if not 0 <= result < float("inf"):
        raise VidclfError(f"{file}, {what}: {value!r} must be a time, 0 or more, such as 12.5. Correct it.")
    return result


def _read(chosen: ModuleType, file: Path, text: str) -> Iterator[Event]:
    """Yield the events in a file's text.

    Raises:
        VidclfError: also where a value is of another kind than the format has there.
    """
    try:
        for event in chosen.read(file, text):
            if not event.label.strip():
                raise VidclfError(f"{file}, {event.where}: the label is empty. Fill it or remove the event.")
            if not 0 <= event.start_s <= event.end_s:
                times = f"{event.label} stops at {event.end_s:g}, before it starts at {event.start_s:g}"
                unit = ", in frames" if chosen.PER_FRAME else ""
                raise VidclfError(f"{file}, {event.where}: {times}{unit}. Correct the times.")
            yield event
    except VidclfError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise VidclfError(
            f"{file}: it is not a {chosen.NAME} file as its program writes it ({error}). Export it again."
        ) from error


def _text_of(file: Path) -> str:
    if not file.is_file():
        raise VidclfError(f"{file}: there is no such file. Set dataset.file to a table of events.")
    with file.open("rb") as opened:
        if opened.read(len(PARQUET)) == PARQUET.encode():
            return PARQUET
    if file.stat().st_size > MAX_BYTES:
        raise VidclfError(
            f"{file}: {file.stat().st_size / 1e6:,.0f} MB are too much for a table of events (at most "
            f"{MAX_BYTES / 1e6:.0f} MB). Divide it into several tables."
        )
    return read_text(file, "Set dataset.file to a table of events.")


def _choose(file: Path, text: str, name: str | None) -> ModuleType:
    """Return the format of that name, or the one that fits; where none fits, the one that the ending names."""
    ending = file.suffix.lower()
    if name is not None:
        if name not in formats():
            raise VidclfError(f"dataset.format={name}: must be one of {', '.join(formats())}.")
        return formats()[name]
    fitting = next((module for module in formats().values() if module.fits(text)), None)
    if fitting is not None:
        if ending not in fitting.ENDINGS:
            say(f"{file}: it is read as {fitting.NAME}, which fits its content; its ending does not say so.")
        return fitting
    if ending in formats()["table"].ENDINGS:  # whose message says which columns there should be
        return formats()["table"]
    raise VidclfError(
        f"{file}: none of the known formats fits its content ({', '.join(formats())}). Choose one with "
        "dataset.format=..., or write a CSV table with the columns path, start_s, end_s and label."
    )


def one_video(path: Path, events: Sequence[Event]) -> None:
    """Raise VidclfError if events are of several videos, where a file can only be about one."""
    if len(names := sorted({event.path for event in events})) > 1:
        raise VidclfError(
            f"{path}: the events are of {len(names)} videos ({first_five(names)}), and a {path.suffix} file is about "
            "one. Write one file for each video, or a .csv file."
        )

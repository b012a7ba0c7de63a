"""Label a file, a folder of files or a stream with a run: JSON lines on stdout, or a file of events."""

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidclf.api import LoadedRun
from vidclf.data.addresses import Source, is_stream
from vidclf.errors import VidclfError
from vidclf.prediction.drawing import Recorder
from vidclf.prediction.files import list_videos, skip_damaged
from vidclf.prediction.rows import RowFile
from vidclf.prediction.watch import Smoothing, label_stream
from vidclf.prediction.windows import Windows
from vidclf.run.config import Config
from vidclf.run.folder import Run
from vidclf.run.values import fits
from vidclf.system.machine import num_cores
from vidclf.system.terminal import say, track

if TYPE_CHECKING:
    from vidclf.prediction.timeline import Timeliner

STREAM_WINDOW_S = 10.0
SHORTEST_S = 0.001  # of windows and strides
OF_WINDOWS = ("stride_s", "threshold", "to")  # settings that a timeline has, and nothing else


def run(config: Config, run: Run | None) -> None:
    """Print {"path", "label", "probability", "top5"} for each video or window of a stream, or a timeline's bouts."""
    assert run is not None
    source = config["source"]
    if not source:
        raise VidclfError("source=: must not be empty. Give a video, a folder of videos, a URL, a camera, or -.")
    if config["realtime"] or is_stream(source):
        _label_stream(config, run)
        return
    windows = _choose_windows(config)
    num_threads, skip = config["num_threads"] or num_cores(), config["dataset"].get("on_error") == "skip"
    if windows is None:
        paths = list_videos(Path(source))
        labels = LoadedRun(config, run).predictor.label_files(paths, num_threads)
        if len(paths) > 1 and not sys.stdout.isatty():  # on a terminal, the lines themselves show it
            labels = track(labels, len(paths), "Labelling", "videos")
        _print(skip_damaged(labels, skip))
    else:
        _label_films(config, run, windows, num_threads, skip)


def _choose_windows(config: Config, of_stream: bool = False) -> Windows | None:
    """Return the windows that get labels; None: each file gets one.

    Raises:
        VidclfError: a setting has a value that is not allowed, or does nothing here.
    """
    dataset = config["dataset"]
    of_run = {key: dataset.get(key) for key in ("window_s", "stride_s")}
    if of_stream:
        of_run = {"window_s": dataset.get("window_s", STREAM_WINDOW_S)}
    chosen = {key: of_run.get(key) if config[key] is None else config[key] for key in ("window_s", "stride_s")}
    for key, value in chosen.items():
        if value is not None and not (fits(value, float) and SHORTEST_S <= value < math.inf):
            raise VidclfError(f"{key}={value}: must be a number, at least {SHORTEST_S}, in seconds.")
    window_s, stride_s = chosen.values()
    if config["threshold"] is not None and not 0 < config["threshold"] <= 1:
        raise VidclfError(f"threshold={config['threshold']}: must be above 0 and at most 1, a probability.")
    useless = [f"{key}={config[key]}" for key in OF_WINDOWS if config[key] is not None and not window_s]
    if useless:
        raise VidclfError(
            f"{useless[0]}: each file gets one label, as this run was trained on clips. Add window_s=2, or leave it "
            "out."
        )
    if not window_s:
        return None
    rate_hz = dataset.get("rate_hz", config["sampling"].get("rate_hz"))
    return Windows(window_s, stride_s or (window_s if of_stream else window_s / 2), rate_hz)


def _label_films(config: Config, run: Run, windows: Windows, num_threads: int, skip: bool) -> None:
    """Print the bouts of long videos, or write them to the file that `to` names."""
    from vidclf.prediction.timeline import check_target, look_at_films, write_bouts  # imports scipy, others need not

    if windows.stride_s > windows.window_s:
        say(
            f"stride_s={windows.stride_s:g}: windows of {windows.window_s:g} s leave gaps, in which instants get the "
            "label of the nearest window."
        )
    paths, to = list_videos(Path(config["source"])), config["to"] and Path(config["to"]).expanduser()
    if to:
        check_target(to, paths)
    timeliner = _build_timeliner(config, run, windows)
    films: Iterable = look_at_films(paths, windows, num_threads, skip)
    if to:
        films = list(films)  # what is wrong with any of them is said before the first is labelled
    bouts = ((path, info, bout) for path, info in films for bout in timeliner.bouts(path, info))
    if to is None:
        _print({"path": str(path), **bout._asdict()} for path, _, bout in bouts)
        return
    num_events, num_videos = write_bouts(to, bouts, config["dataset"].get("background"))
    print(f"{num_events} events of {num_videos} video(s)\nresults {to}")


def _build_timeliner(config: Config, run: Run, windows: Windows) -> "Timeliner":
    from vidclf.prediction.timeline import Timeliner

    step_s, cleaning = _choose_cleaning(config, run)
    if windows.window_s < 2 * step_s:
        raise VidclfError(
            f"window_s={windows.window_s:g}: must be at least {2 * step_s:g}, which is twice timeline.step_s."
        )
    threshold, temperature = config["threshold"], _read_temperature(config, run)
    shows_progress = bool(config["to"]) or not sys.stdout.isatty()
    predictor = LoadedRun(config, run).predictor
    return Timeliner(predictor, windows, step_s, **cleaning, threshold=threshold, temperature=temperature,
                     shows_progress=shows_progress)  # fmt: skip


def _choose_cleaning(config: Config, run: Run) -> tuple[float | int, dict[str, float]]:
    """Return the step of timelines, and how they are cleaned."""
    from vidclf.evaluation.cleaning import CHOSEN, DEFAULT, chosen_in, cleaning_of, step_of

    settings: Mapping[str, Any] = config.get("timeline") or DEFAULT
    knows_films = "window_s" in config["dataset"]
    cleaning = cleaning_of(settings, chosen_in(run.folder) if knows_films else dict.fromkeys(CHOSEN, 0.0))
    return step_of(settings), cleaning


def _read_temperature(config: Config, run: Run) -> float | None:
    """Return the temperature that calibrates probabilities for the threshold, where there is one."""
    if config["threshold"] is None:
        return None
    from vidclf.comparison.scored import temperature_in

    temperature = temperature_in(run.folder)
    if temperature is None:
        say(f"threshold={config['threshold']}: {run.folder} has no temperature, so probabilities are used as they are.")
    return temperature


def _label_stream(config: Config, run: Run) -> None:
    """Print a line for each window of a stream, and keep it in the table that `to` names."""
    windows = _choose_windows(config, of_stream=True)
    assert windows is not None
    protocols = config["protocols"] or ()
    protocols = protocols.split(",") if isinstance(protocols, str) else protocols
    source = Source(config["source"], tuple(protocols), config["timeout_s"], config["realtime"])
    source.check()
    until_s = _read_seconds("until", config["until"])
    step_s, cleaning = _choose_cleaning(config, run)
    smoothing = Smoothing(cleaning["smooth_s"], step_s, config["threshold"], _read_temperature(config, run))
    save, to = (Path(config[key]).expanduser() if config[key] else None for key in ("save", "to"))
    recorder = Recorder(save) if save else None
    label_by = json.dumps([asdict(windows), smoothing.threshold, cleaning, config["sampling"]]).encode()
    fingerprint = hashlib.sha256(run.path.read_bytes() + label_by).hexdigest()[:16]
    with RowFile(to, run.class_names, fingerprint) if to else nullcontext() as rows:
        predictor = LoadedRun(config, run).predictor
        for line in label_stream(predictor, source, windows, smoothing, until_s, recorder):
            if rows:
                rows.append(line.as_row(source.name))
            if sys.stdout.isatty():
                print(line.as_text(), flush=True)
            else:
                _print([line.as_json(source.name)])


def _read_seconds(key: str, value: str | float | None) -> float | None:
    """Return a time such as 60s, 5min or 2h in seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h|)", str(value))
    if not match or not float(match[1]):
        raise VidclfError(f"{key}={value}: must be a time, such as 60s, 5min or 2h.")
    return float(match[1]) * {"min": 60, "h": 3600}.get(match[2], 1)


def _print(lines: Iterable[Mapping[str, Any]]) -> None:
    for line in lines:
        print(json.dumps(line), flush=True)  # ASCII: any file name, on any terminal

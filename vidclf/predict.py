"""Label a file, a folder of files or a stream with a run: JSON lines on stdout, or a file of events."""

import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidclf.api import LoadedRun
from vidclf.data.streams import is_stream
from vidclf.errors import VidclfError
from vidclf.prediction.files import list_videos, skip_damaged
from vidclf.prediction.live import label_stream
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
    windows = _choose_windows(config, is_stream(source))
    num_threads, skip = config["num_threads"] or num_cores(), config["dataset"].get("on_error") == "skip"
    if windows is None:
        paths = list_videos(Path(source))
        labels = LoadedRun(config, run).predictor.label_files(paths, num_threads)
        if len(paths) > 1 and not sys.stdout.isatty():  # on a terminal, the lines themselves show it
            labels = track(labels, len(paths), "Labelling", "videos")
        _print(skip_damaged(labels, skip))
    elif is_stream(source):
        of_windows = label_stream(LoadedRun(config, run).predictor, source, windows.window_s)
        _print({"path": source, **label} for label in of_windows)
    else:
        _label_films(config, run, windows, num_threads, skip)


def _choose_windows(config: Config, is_live: bool) -> Windows | None:
    """Return the windows that get labels; None: each file gets one.

    Raises:
        VidclfError: a setting has a value that is not allowed, or does nothing here.
    """
    dataset = config["dataset"]
    of_run = {"window_s": STREAM_WINDOW_S} if is_live else {key: dataset.get(key) for key in ("window_s", "stride_s")}
    chosen = {key: of_run.get(key) if config[key] is None else config[key] for key in ("window_s", "stride_s")}
    for key, value in chosen.items():
        if value is not None and not (fits(value, float) and SHORTEST_S <= value < math.inf):
            raise VidclfError(f"{key}={value}: must be a number, at least {SHORTEST_S}, in seconds.")
    window_s, stride_s = chosen.values()
    if config["threshold"] is not None and not 0 < config["threshold"] <= 1:
        raise VidclfError(f"threshold={config['threshold']}: must be above 0 and at most 1, a probability.")
    useless = [f"{key}={config[key]}" for key in OF_WINDOWS if config[key] is not None and (is_live or not window_s)]
    if useless:
        why = (
            "the windows of a stream follow each other, and their labels are printed. Leave it out"
            if is_live
            else "each file gets one label, as this run was trained on clips. Add window_s=2, or leave it out"
        )
        raise VidclfError(f"{useless[0]}: {why}.")
    if not window_s:
        return None
    rate_hz = dataset.get("rate_hz", config["sampling"].get("rate_hz"))
    return Windows(window_s, stride_s or window_s / 2, rate_hz)


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
    from vidclf.comparison.scored import temperature_in
    from vidclf.evaluation.cleaning import CHOSEN, DEFAULT, chosen_in, cleaning_of, step_of
    from vidclf.prediction.timeline import Timeliner

    settings: Mapping[str, Any] = config.get("timeline") or DEFAULT
    step_s = step_of(settings)
    if windows.window_s < 2 * step_s:
        raise VidclfError(
            f"window_s={windows.window_s:g}: must be at least {2 * step_s:g}, which is twice timeline.step_s."
        )
    knows_films = "window_s" in config["dataset"]
    cleaning = cleaning_of(settings, chosen_in(run.folder) if knows_films else dict.fromkeys(CHOSEN, 0.0))
    threshold = config["threshold"]
    temperature = temperature_in(run.folder) if threshold is not None else None
    if threshold is not None and temperature is None:
        say(f"threshold={threshold}: {run.folder} has no temperature, so probabilities are used as they are.")
    shows_progress = bool(config["to"]) or not sys.stdout.isatty()
    predictor = LoadedRun(config, run).predictor
    return Timeliner(predictor, windows, step_s, **cleaning, threshold=threshold, temperature=temperature,
                     shows_progress=shows_progress)  # fmt: skip


def _print(lines: Iterable[Mapping[str, Any]]) -> None:
    for line in lines:
        print(json.dumps(line), flush=True)  # ASCII: any file name, on any terminal

"""Label files, folders, lists of files or a stream with a run: JSON lines, a table, or a file of events."""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidclf.api import LoadedRun, cleaning_in, windows_of
from vidclf.data.addresses import Source, is_stream
from vidclf.data.catalogue import Catalogue
from vidclf.errors import VidclfError, VideoError
from vidclf.features.recipe import describe_stages, why_not_storable
from vidclf.prediction.drawing import Recorder
from vidclf.prediction.files import Failures, Predictor, append_labels, look_at
from vidclf.prediction.rows import RowFile
from vidclf.prediction.sources import find_files
from vidclf.prediction.tables import check_target
from vidclf.prediction.watch import Smoothing, label_stream
from vidclf.prediction.windows import Windows
from vidclf.run.config import Config
from vidclf.run.folder import Run
from vidclf.system.machine import num_cores
from vidclf.system.terminal import say, track
from vidclf.system.text import plural

if TYPE_CHECKING:
    from vidclf.features.store import FeatureStore
    from vidclf.prediction.timeline import Timeliner

STREAM_WINDOW_S = 10.0
OF_WINDOWS = ("stride_s", "threshold")  # settings that a timeline has, and nothing else
DECIDE_LABELS = ("sampling", "transform", "backbone", "scaling", "head", "aggregation")


def run(config: Config, run: Run | None) -> None:
    """Print or keep a label for each video or window of a stream, or the bouts of long videos."""
    assert run is not None
    sources = [config["source"]] if isinstance(config["source"], str) else [*map(str, config["source"])]
    if not sources or not all(sources):
        raise VidclfError("source=: must not be empty. Give a video, a folder of videos, a URL, a camera, or -.")
    if config["source_is"] not in (None, "list"):
        raise VidclfError(f"source_is={config['source_is']}: must be list, for one path a line, or be left out.")
    are_lists = config["source_is"] == "list"
    streams = [] if are_lists else [source for source in sources if config["realtime"] or is_stream(source)]
    windows = _choose_windows(config, bool(streams))
    if streams:
        _label_stream(config, run, windows, sources)
        return
    paths = find_files(sources, are_lists)
    failures = Failures(len(paths), skip=config["dataset"].get("on_error") == "skip")
    if windows is not None:
        _label_films(config, run, windows, paths, failures)
    elif config["to"] is not None:
        _keep_labels(config, run, paths, failures)
    else:
        _print_labels(config, run, paths, failures)
    failures.check()


def _label_stream(config: Config, run: Run, windows: Windows | None, sources: list[str]) -> None:
    """Print a line for each window of a stream, and keep it in the table that `to` names."""
    assert windows is not None
    if len(sources) > 1:
        stream = next(filter(is_stream, sources), sources[0])
        raise VidclfError(f"source={stream}: a stream is labelled alone. Leave the other sources out.")
    protocols = config["protocols"] or ()
    protocols = protocols.split(",") if isinstance(protocols, str) else protocols
    source = Source(sources[0], tuple(protocols), config["timeout_s"], config["realtime"])
    source.check()
    until_s = _read_seconds("until", config["until"])
    step_s, cleaning = cleaning_in(config, run)
    smoothing = Smoothing(cleaning["smooth_s"], step_s, config["threshold"], _read_temperature(config, run))
    save, to = (Path(config[key]).expanduser() if config[key] else None for key in ("save", "to"))
    if to:
        check_target(to)
    recorder = Recorder(save) if save else None
    predictor = LoadedRun(config, run).predictor
    lines = label_stream(predictor, source, windows, smoothing, until_s, recorder)
    with RowFile(to, run.class_names, _fingerprint(config, run, predictor)) if to else nullcontext() as rows:
        for line in lines:
            if rows:
                rows.append(line.as_row(source.name))
            print(line.as_text() if _is_terminal() else json.dumps(line.as_json(source.name)), flush=True)


def _read_seconds(key: str, value: str | float | int | None) -> float | int | None:
    """Return a time such as 60s, 5min or 2h in seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h|)", str(value))
    if not match or not float(match[1]):
        raise VidclfError(f"{key}={value}: must be a time, such as 60s, 5min or 2h.")
    return float(match[1]) * {"min": 60, "h": 3600}.get(match[2], 1)


def _print_labels(config: Config, run: Run, paths: list[Path], failures: Failures) -> None:
    predictor, num_threads = LoadedRun(config, run).predictor, _num_threads(config)
    store, catalogue = _open_store(config, predictor)
    labels = predictor.label_files(look_at(paths, num_threads, catalogue=catalogue), num_threads, store)
    if len(paths) > 1:
        labels = track(labels, len(paths), "Labelling", "videos")
    lines = (
        failures.line(path, label) if isinstance(label, VideoError) else {"path": str(path), **label}
        for path, label in labels
    )
    _print_lines(filter(None, lines))


def _keep_labels(config: Config, run: Run, paths: list[Path], failures: Failures) -> None:
    """Write a row for each file to the table that `to` names; rows that are there are kept."""
    to, num_threads = Path(config["to"]).expanduser(), _num_threads(config)
    check_target(to)
    predictor = LoadedRun(config, run).predictor
    store, catalogue = _open_store(config, predictor)
    with RowFile(to, run.class_names, _fingerprint(config, run, predictor)) as rows:
        looked = look_at(paths, num_threads, rows.has, catalogue)
        labelled = append_labels(rows, predictor, looked, num_threads, store)
        for path, error in track(labelled, len(paths), "Labelling", "videos"):
            if error is not None and (line := failures.line(path, error)):
                rows.append(line)
            elif error is not None:
                rows.discard(path)
    print(f"{failures.num_files - failures.num_failed} of {plural(len(paths), 'video')} have labels\nresults {to}")


def _open_store(config: Config, predictor: Predictor) -> "tuple[FeatureStore | None, Catalogue | None]":
    """Return what keeps features and facts with features=store."""
    if config["features"] != "store":
        return None, None
    from vidclf.build.datasets import build_store  # and much that labels do not need

    backbone = predictor.classifier.backbone
    if obstacle := why_not_storable(backbone.backbone, predictor.transform):
        raise VidclfError(f"features=store: {obstacle}. Leave features=store out.")
    store = build_store(config, backbone, predictor.transform, predictor.device)
    return store, Catalogue(Path(config["store"]["root"]))


def _fingerprint(config: Config, run: Run, predictor: Predictor) -> str:
    """Return a digest of what determines a label: the checkpoint, settings that change it, the user's own code."""
    stages = [*predictor.classifier.modules(), predictor.sampling, predictor.transform]
    with run.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(describe_stages({name: config[name] for name in DECIDE_LABELS}, stages).encode())
    return digest.hexdigest()[:12]


def _choose_windows(config: Config, is_live: bool) -> Windows | None:
    """Return the windows that get labels; None: each file gets one.

    Raises:
        VidclfError: a setting has a value that is not allowed, or does nothing here.
    """
    window_s, stride_s = config["window_s"], config["stride_s"]
    if is_live:
        window_s = config["dataset"].get("window_s", STREAM_WINDOW_S) if window_s is None else window_s
        stride_s = window_s if stride_s is None else stride_s
    windows = windows_of(config, window_s, stride_s)
    if config["threshold"] is not None and not 0 < config["threshold"] <= 1:
        raise VidclfError(f"threshold={config['threshold']}: must be above 0 and at most 1, a probability.")
    useless = [f"{key}={config[key]}" for key in OF_WINDOWS if config[key] is not None and not windows]
    if useless:
        raise VidclfError(
            f"{useless[0]}: each file gets one label, as this run was trained on clips. Add window_s=2, or leave it "
            "out."
        )
    return windows


def _label_films(config: Config, run: Run, windows: Windows, paths: list[Path], failures: Failures) -> None:
    """Print the bouts of long videos, or write them to the file that `to` names."""
    # It imports scipy, which labels of whole files do not need.
    from vidclf.prediction.timeline import bouts_of_films, check_target, look_at_films, write_bouts

    if windows.stride_s > windows.window_s:
        say(
            f"stride_s={windows.stride_s:g}: windows of {windows.window_s:g} s leave gaps, in which instants get the "
            "label of the nearest window."
        )
    to = config["to"] and Path(config["to"]).expanduser()
    if to:
        check_target(to, paths)
    timeliner = _build_timeliner(config, run, windows)
    films: Iterable = look_at_films(paths, windows, _num_threads(config))
    if to is None:
        _print_lines(bouts_of_films(timeliner, films, failures))
        return
    # What is wrong with any of them is said before the first is labelled.
    films = sorted(films, key=lambda film: not isinstance(film[1], VideoError))
    lines = bouts_of_films(timeliner, films, failures)
    sound = {path: info for path, info in films if not isinstance(info, VideoError)}
    num_events, num_films = write_bouts(to, lines, sound, config["dataset"].get("background"))
    print(f"{num_events} events of {num_films} video(s)\nresults {to}")


def _build_timeliner(config: Config, run: Run, windows: Windows) -> "Timeliner":
    from vidclf.prediction.timeline import Timeliner

    step_s, cleaning = cleaning_in(config, run)
    if windows.window_s < 2 * step_s:
        raise VidclfError(
            f"window_s={windows.window_s:g}: must be at least {2 * step_s:g}, which is twice timeline.step_s."
        )
    threshold, temperature = config["threshold"], _read_temperature(config, run)
    predictor = LoadedRun(config, run).predictor
    return Timeliner(predictor, windows, step_s, **cleaning, threshold=threshold, temperature=temperature)


def _read_temperature(config: Config, run: Run) -> float | None:
    """Return the temperature that calibrates probabilities for the threshold; None where there is none."""
    if config["threshold"] is None:
        return None
    from vidclf.comparison.scored import temperature_in

    temperature = temperature_in(run.folder)
    if temperature is None:
        say(f"threshold={config['threshold']}: {run.folder} has no temperature, so probabilities are used as they are.")
    return temperature


def _num_threads(config: Config) -> int:
    return config["num_threads"] or num_cores()


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _print_lines(lines: Iterable[Mapping[str, Any]]) -> None:
    """Print JSON lines, each at once; on a terminal a table at the end, however the work ends."""
    if not _is_terminal():
        for line in lines:
            print(json.dumps(line), flush=True)  # ASCII: any file name, on any terminal
        return
    from vidclf.prediction.screen import print_lines

    print_lines(lines)

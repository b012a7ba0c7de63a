"""Label a file, a folder of files or a stream with a run: JSON lines on stdout."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from vidclf.api import LoadedRun
from vidclf.data.streams import is_stream
from vidclf.errors import VidclfError
from vidclf.prediction.files import list_videos, skip_damaged
from vidclf.prediction.live import label_stream
from vidclf.run.config import Config, explicit_overrides, key_of
from vidclf.run.folder import Run
from vidclf.system.machine import num_cores
from vidclf.system.terminal import track


def run(config: Config, run: Run | None) -> None:
    """Print {"path", "label", "probability", "top5"} for each video, and "start_s" for each window of a stream."""
    assert run is not None
    source, window_s = config["source"], config["window_s"]
    if not window_s > 0:
        raise VidclfError(f"window_s={window_s}: must be above 0, in seconds.")
    if not source:
        raise VidclfError("source=: must not be empty. Give a video, a folder of videos, a URL, a camera, or -.")
    predictor = LoadedRun(config, run).predictor
    if not is_stream(source) and any(key_of(override) == "window_s" for override in explicit_overrides()):
        raise VidclfError(f"window_s={window_s}: {source} gets one label for each file. Only streams have windows.")
    if is_stream(source):
        lines: Iterable = ({"path": source, **label} for label in label_stream(predictor, source, window_s))
    else:
        paths = list_videos(Path(source))
        labels = predictor.label_files(paths, config["num_threads"] or num_cores())
        if len(paths) > 1 and not sys.stdout.isatty():  # on a terminal, the lines themselves show it
            labels = track(labels, len(paths), "Labelling", "videos")
        lines = skip_damaged(labels, skip=config["dataset"].get("on_error") == "skip")
    for line in lines:
        print(json.dumps(line), flush=True)  # ASCII: any file name, on any terminal

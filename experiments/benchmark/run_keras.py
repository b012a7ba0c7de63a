"""Run the tutorial's pipeline by `keras_way.py`, in a separate environment, on the same clips.

This module does not import torch, and `keras_way.py` does not import vidclf. TensorFlow is the package for CPUs.
"""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from experiments.benchmark.setting import NUM_CLASSES, NUM_FRAMES, NUM_ROWS, NUM_RUNS, Setting
from vidclf.errors import VidclfError

PYTHON = Path(".venv/keras/bin/python")  # the Makefile makes it
SCRIPT = Path(__file__).with_name("keras_way.py")
LAST_TEST_GROUP = 7  # of split 1


def extraction(setting: Setting) -> dict[str, Any]:
    """Return the kept frames a second, and the seconds of a frame that each part takes."""
    clips = [str(clip) for clip in setting.clips]
    return run("extraction", clips=clips, num_frames=NUM_FRAMES, num_runs=NUM_RUNS)


def training(setting: Setting) -> dict[str, Any]:
    """Return the seconds of a training step."""
    return run("training", num_rows=NUM_ROWS, num_runs=NUM_RUNS, num_classes=NUM_CLASSES)


def end_to_end(setting: Setting) -> dict[str, Any]:
    """Return the wall time from the start of the process to the predictions of all test clips, and their results."""
    sides: dict[bool, list[str]] = {False: [], True: []}
    for clip in setting.clips:
        sides[int(clip.stem.split("_g")[-1][:2]) <= LAST_TEST_GROUP].append(str(clip))
    begin = time.perf_counter()
    found = run("end_to_end", train=sides[False], test=sides[True], epochs=setting.epochs)
    return {"seconds": time.perf_counter() - begin, "epochs": setting.epochs, **found}


def run(measure: str, **asked: object) -> dict[str, Any]:
    """Return the result of a function of keras_way.py, run in a separate process.

    Raises:
        VidclfError: its environment does not exist, or the process fails.
    """
    if not PYTHON.exists():
        raise VidclfError(f"{PYTHON}: there is no such Python, and Keras runs in it. `make bench` makes it.")
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KERAS", "TF_"))}
    process = subprocess.run(
        [PYTHON, "-I", SCRIPT],
        input=json.dumps({"measure": measure, **asked}),
        stdout=subprocess.PIPE,
        text=True,
        env={**alone, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    if process.returncode:
        raise VidclfError(f"{SCRIPT.name} {measure} ended with status {process.returncode}. See its message above.")
    return json.loads(process.stdout)

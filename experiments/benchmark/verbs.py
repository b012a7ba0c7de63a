"""Measure vidclf's verbs as a user calls them, each in a separate process.

This module does not import torch: a process counts the memory of its parent as its own.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import accumulate, product
from math import ceil, floor
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.benchmark.setting import Setting, twin
from experiments.benchmark.twin import SIZES, Clip, all_clips, choose
from vidclf.errors import VidclfError

MEAN_LENGTH = 186.4  # frames of a UCF101 clip
FORMATS, SEEDS = ("float32", "bfloat16"), (0, 1, 2)


@dataclass(frozen=True)
class Outcome:
    """A finished process: its wall time, its peak memory, and the lines that it printed."""

    seconds: float
    peak_bytes: int
    lines: list[str]

    @property
    def runs(self) -> list[Path]:
        """The folders that train wrote."""
        return [Path(line.removeprefix("run ")) for line in self.lines if line.startswith("run ")]


def run_verb(verb: str, *arguments: str) -> Outcome:
    """Run `vidclf VERB ARGUMENTS`; its stderr is shown.

    Raises:
        VidclfError: the verb fails.
    """
    command = [sys.executable, "-m", f"vidclf.{verb}", *arguments]
    begin = time.perf_counter()
    # The benchmark's backbones are imported from here, by the jobs of a sweep too.
    path = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        assert process.stdout
        lines = process.stdout.read().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise VidclfError(
            f"vidclf {verb} {' '.join(arguments)} ended with status {process.returncode}. See its message above."
        )
    return Outcome(time.perf_counter() - begin, usage.ru_maxrss * 1024, lines)


def growth(setting: Setting) -> dict[str, float]:
    """Return the steady state's seconds a video of mean length, and the peak memory, of extracting twins of 1 and 10 %.

    Without compiling, which does not pay for the smaller twin.
    """
    result = {}
    for size in ("1%", "10%"):
        with TemporaryDirectory(dir=setting.work) as store:
            data = (f"dataset.root={twin(size)}", f"store.root={store}", "transform=tutorial")
            outcome = run_verb("extract", *data, "backbone=vgg16", "backbone.weights=null", "compile=false")
            result[f"video_s_{size}"] = MEAN_LENGTH / frames_per_s(Path(store), size)
        result[f"peak_gb_{size}"] = outcome.peak_bytes / 1e9
    return result


def frames_per_s(store: Path, size: str) -> float:
    """Return the video frames a second of an extraction, from the times at which the videos' files were written.

    Start-up is before the first. A line is fitted through all, because videos end in batches.
    """
    lengths = {}
    for clip in choose(all_clips(), SIZES[size]):
        with (twin(size) / clip.name).open("rb") as file:
            lengths[hashlib.file_digest(file, "sha256").hexdigest()] = clip.num_frames
    files = sorted((path.stat().st_mtime, path.name.rpartition("-")[0]) for path in store.glob("*/*/*.safetensors"))
    times = [time for time, _ in files]
    frames = list(accumulate(lengths[content] for _, content in files))
    return statistics.linear_regression(times, frames).slope


def precision(setting: Setting) -> dict[str, list[float]]:
    """Return the demo's test accuracy for each number format and seed."""
    formats, seeds = ",".join(FORMATS), ",".join(map(str, SEEDS))
    folders = [f"store.root={setting.work}/demo-features", f"hydra.sweep.dir={setting.work}/demo"]
    trained = run_verb("train", "-m", "experiment=demo", f"backbone.precision={formats}", f"seed={seeds}", *folders)
    scores: dict[str, list[float]] = {name: [] for name in FORMATS}
    for (name, _), folder in zip(product(FORMATS, SEEDS), trained.runs, strict=True):
        run_verb("evaluate", f"run={folder}")
        scores[name].append(json.loads((folder / "test" / "metrics.json").read_text())["top1"])
    return scores


def heads(setting: Setting) -> dict[str, float]:
    """Return the wall times of 20 linear heads on the demo at once, and of 20 runs one after another."""
    rates = [float(f"{10 ** (-5 + 3 * number / 19):.3g}") for number in range(20)]
    data = ("experiment=demo", "trainer.max_epochs=50", f"store.root={setting.work}/demo-features")
    run_verb("extract", *data[::2])  # and the demo is written
    folder = f"hydra.run.dir={setting.work}/heads"
    at_once = run_verb("train", *data, "head=grid", f"head.over.lr={rates}".replace(" ", ""), f"{folder}/grid")
    alone = [run_verb("train", *data, "head=linear", f"optimizer.lr={rate}", f"{folder}/{rate}") for rate in rates]
    return {"heads": len(rates), "at_once_s": at_once.seconds, "alone_s": sum(outcome.seconds for outcome in alone)}


def end_to_end_int8(setting: Setting) -> dict[str, float]:
    """Return the same for the tutorial's recipe with its backbone in 8-bit integers."""
    return end_to_end(setting, "int8")


def end_to_end(setting: Setting, precision: str = "auto") -> dict[str, float]:
    """Return the wall times of the tutorial's recipe on the twin, start-up included, and the number of frames."""
    folders = [f"store.root={setting.work}/features-{precision}", f"hydra.run.dir={setting.work}/run-{precision}"]
    folders.append(f"backbone.precision={precision}")
    data = [f"dataset.root={twin(setting.size)}", "backbone.weights=null"]
    train = run_verb("train", "experiment=tutorial", *data, f"trainer.max_epochs={setting.epochs}", *folders)
    evaluate = run_verb("evaluate", f"run={train.runs[0]}", folders[0])  # no features of an earlier benchmark's
    train_frames, test_frames = num_frames(choose(all_clips(), setting.share))
    return {
        "train_s": train.seconds,
        "evaluate_s": evaluate.seconds,
        "epochs": setting.epochs,
        "train_frames": train_frames,
        "test_frames": test_frames,
    }


def num_frames(clips: list[Clip]) -> tuple[int, int]:
    """Return how many frames the tutorial keeps of the train and of the test clips of split 1."""
    counts = [0, 0]
    for clip in clips:
        counts[int(clip.group[-2:]) <= 7] += ceil(clip.num_frames / floor(clip.rate))
    return counts[0], counts[1]


def start_up(setting: Setting) -> dict[str, float]:
    """Return the median seconds of commands that only start."""
    vidclf = str(Path(sys.executable).with_name("vidclf"))
    commands = {"vidclf --help": [vidclf, "--help"], "vidclf train --cfg job": [vidclf, "train", "--cfg", "job"]}
    return {name: statistics.median(seconds_of(command) for _ in range(3)) for name, command in commands.items()}


def seconds_of(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin

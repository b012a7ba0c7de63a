"""The setting of every measure, and functions that take its time."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from experiments.benchmark.twin import SIZES, write_twin

Result = TypeVar("Result")

DATA = Path("data")  # in .gitignore

# Of the sides that ours is compared with: runs, each of so many frames (two batches) or an epoch of so many rows.
NUM_RUNS, NUM_FRAMES, NUM_ROWS = 5, 64, 2048
NUM_CLASSES = 101


@dataclass(frozen=True)
class Setting:
    """`size` of the twin, one of SIZES; `epochs` of the end-to-end training; `work` is emptied at the end."""

    size: str
    epochs: int
    work: Path

    @property
    def share(self) -> float:
        """The twin's size as a share of UCF101's."""
        return SIZES[self.size]

    @property
    def clips(self) -> list[Path]:
        """The twin's clips, in order."""
        return sorted(twin(self.size).glob("*/*.avi"))


def twin(size: str) -> Path:
    """Return the folder of the twin of this size; write it if it does not exist."""
    return write_twin(DATA / f"twin-{size.rstrip('%')}", SIZES[size])


def median_s(work: Callable[[], object], runs: int = 5) -> float:
    """Return the median time of `work` in seconds, after one warm-up run."""
    work()
    return statistics.median(timed(work)[0] for _ in range(runs))


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds that `work` took, including a GPU's, and its result."""
    begin = now()
    result = work()
    return now() - begin, result


def arrivals(counts: Iterable[int], longest_s: float) -> tuple[list[float], list[int]]:
    """Return the arrival time and the number of each of `counts`, until a number of seconds after the first."""
    times, taken = [], []
    for count in counts:
        times.append(time.perf_counter())
        taken.append(count)
        if times[-1] - times[0] > longest_s:
            break
    return times, taken


def steady_rate(counts: Iterable[int], longest_s: float) -> float:
    """Return the rate per second after the first arrival."""
    times, taken = arrivals(counts, longest_s)
    return sum(taken[1:]) / (times[-1] - times[0])


def now() -> float:
    """Return the time in seconds, once a GPU has finished its work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def device() -> str:
    """Return the device that networks run on."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"

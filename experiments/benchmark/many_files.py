"""What a file costs when there are many: looking it up, storing its features, splitting, comparing; time and memory.

    python -m experiments.benchmark.many_files 5000 20000

The files are stubs with distinct contents, decoded by nobody, and their features are random: only what grows with the
number of files is measured. The disk is not waited for (no fsync), because it takes the same for every file.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.benchmark.setting import Setting

SIZES = (5_000, 100_000)
NUM_CLASSES, GROUP_SIZE = 100, 5  # classes; videos of a group
NUM_FRAMES, DIM = 8, 128  # features of a video that `check` compares; of narrow ones the growth is seen best


def many_files(setting: Setting) -> dict[str, dict[str, float]]:
    """Return the microseconds of CPU and the bytes of memory that a file takes, for each size."""
    return measure_sizes(SIZES, setting.work)


def measure_sizes(sizes: tuple[int, ...], work: Path) -> dict[str, dict[str, float]]:
    """Measure each size in a process of its own, for memory is a process's."""
    results = {}
    for size in sizes:
        with TemporaryDirectory(dir=work) as folder, ProcessPoolExecutor(1, get_context("spawn")) as pool:
            results[str(size)] = pool.submit(measure, size, Path(folder)).result()
    return results


def measure(num_files: int, folder: Path) -> dict[str, float]:
    """Return what each step costs a file, in microseconds, and how many bytes it keeps or needs at most."""
    import torch

    from vidclf.audit.lookalikes import find_pairs
    from vidclf.contracts import Video
    from vidclf.data import catalogue
    from vidclf.data.decoding import VideoInfo
    from vidclf.data.splits import Grouped
    from vidclf.features.recipe import Recipe
    from vidclf.features.store import FeatureStore
    from vidclf.system.machine import keep_memory

    keep_memory()
    torch.set_num_threads(1)
    os.fsync = lambda _: None  # type: ignore[assignment]
    catalogue.inspect = lambda _: VideoInfo(100, 25.0, 320, 240)  # type: ignore[assignment]
    paths = [write_stub(folder, number) for number in range(num_files)]
    store = folder / "store"
    store.mkdir()
    results: dict[str, float] = {}

    def step(name: str, work: Callable[[], object]) -> object:
        memory, started = peak_bytes(), time.process_time()
        result = work()
        results[f"{name}_us"] = 1e6 * (time.process_time() - started) / num_files
        results[f"{name}_bytes"] = (peak_bytes() - memory) / num_files
        return result

    step("first_look", lambda: catalogue.Catalogue(store).look_up(paths))
    facts = step("look", lambda: catalogue.Catalogue(store).look_up(paths))
    units, features = torch.arange(0, 8)[:, None], torch.zeros(8, 1, 1, 4)
    wanted = [(fact.content, units) for fact in facts]

    def fill() -> None:
        filled = FeatureStore(store, Recipe(*"BTSWND", 32), "stub")
        with filled.computing(0, 1):
            for content, _ in wanted:
                filled.add(content, units, features)

    step("store", fill)
    missing = step("missing", lambda: FeatureStore(store, Recipe(*"BTSWND", 32), "stub").missing_of_all(wanted))
    assert not any(map(len, missing))
    reader = FeatureStore(store, Recipe(*"BTSWND", 32), "stub")
    step("read", lambda: [len(reader.read(content, units)) for content, _ in wanted])
    labels = [number // GROUP_SIZE % NUM_CLASSES for number in range(num_files)]
    videos = [
        Video(path, label, f"g{number // GROUP_SIZE}")
        for number, (path, label) in enumerate(zip(paths, labels, strict=True))
    ]
    step("split", lambda: Grouped()(videos, [1] * num_files))
    generator = torch.Generator().manual_seed(0)
    scenes = torch.randn(-(-num_files // GROUP_SIZE), 1, DIM, generator=generator).repeat_interleave(GROUP_SIZE, 0)
    compared = scenes[None, :num_files] + 0.5 * torch.randn(1, num_files, NUM_FRAMES, DIM, generator=generator)
    step("check", lambda: find_pairs(compared, [video.unit for video in videos], labels))
    return results


def write_stub(folder: Path, number: int) -> Path:
    """Write a small file that no other has the content of."""
    path = folder / f"{number // 1000}" / f"{number}.avi"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(number.to_bytes(8, "big") * 16)
    return path


def peak_bytes() -> int:
    """Return the most memory that this process has held."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Print the figures of the sizes that the command line names."""
    with TemporaryDirectory() as folder:
        print(json.dumps(measure_sizes(tuple(map(int, sys.argv[1:])) or SIZES, Path(folder)), indent=1))


if __name__ == "__main__":
    main()

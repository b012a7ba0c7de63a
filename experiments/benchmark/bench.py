"""Measure the tutorial's pipeline on its stack, ours, and the machine's limits, on the same clips in one run.

    python -m experiments.benchmark.bench size=1%|10%|100% only=extraction,backbone epochs=20

Measures run one at a time, each in a separate process, because a process has one allocator and one number of threads.
Prints Markdown tables, ratios first. Writes results.json and chart.png beside this file or, if only some measures are
run, below data/benchmark. The clips and all intermediate files are in data/.
"""

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from experiments.benchmark.chart import draw
from experiments.benchmark.report import report
from experiments.benchmark.setting import DATA, Setting, twin
from experiments.benchmark.targets import RATIOS
from experiments.benchmark.twin import SIZES
from vidclf.errors import VidclfError
from vidclf.system.machine import keep_memory

HERE = Path(__file__).parent


class Measure(NamedTuple):
    """A function of a module in this folder, and whether the allocator is set as vidclf's verbs set it."""

    module: str
    function: str
    keeps_memory: bool = True


MEASURES = {
    "matrix_product": Measure("limits", "matrix_product"),
    "memory": Measure("limits", "memory"),
    "decoding": Measure("limits", "decoding"),
    "backbone": Measure("limits", "backbone"),
    "keras_extraction": Measure("run_keras", "extraction", keeps_memory=False),
    "plain_extraction": Measure("plain_torch", "extraction", keeps_memory=False),
    "extraction": Measure("ours", "extraction"),
    "keras_training": Measure("run_keras", "training", keeps_memory=False),
    "plain_training": Measure("plain_torch", "training", keeps_memory=False),
    "training": Measure("ours", "training"),
    "int8": Measure("int8", "int8"),
    "exported": Measure("exported", "exported"),
    "bfloat16_error": Measure("ours", "bfloat16_error"),
    "missing": Measure("ours", "missing"),
    "gathering": Measure("ours", "gathering"),
    "many_files": Measure("many_files", "many_files", keeps_memory=False),  # each process sets its own
    "growth": Measure("verbs", "growth", keeps_memory=False),  # the verbs set their own
    "sweep": Measure("sweep", "one_process", keeps_memory=False),
    "sweep_parallel": Measure("sweep", "parallel", keeps_memory=False),
    "heads": Measure("verbs", "heads", keeps_memory=False),
    "heads_step": Measure("heads", "steady"),
    "precision": Measure("verbs", "precision", keeps_memory=False),
    "encoders": Measure("encoders", "encoders"),
    "keras_end_to_end": Measure("run_keras", "end_to_end", keeps_memory=False),
    "end_to_end": Measure("verbs", "end_to_end", keeps_memory=False),
    "end_to_end_int8": Measure("verbs", "end_to_end_int8", keeps_memory=False),
    "timeline": Measure("timeline", "timeline"),
    "start_up": Measure("verbs", "start_up", keeps_memory=False),
}


class Options(NamedTuple):
    """The options of the command line."""

    size: str
    only: list[str]
    epochs: int


def main() -> None:
    options = read_options(sys.argv[1:])
    DATA.mkdir(exist_ok=True)
    twin(options.size)
    results: dict[str, dict] = {}
    failed: dict[str, str] = {}
    with TemporaryDirectory(dir=DATA, prefix="benchmark-") as work:
        setting = Setting(options.size, options.epochs, Path(work))
        machine = in_own_process(Measure("machine", "describe"), setting)
        for name in options.only:
            print(f"== {name}", file=sys.stderr)
            try:
                results[name] = in_own_process(MEASURES[name], setting)
            except Exception as error:  # the others are still worth measuring
                failed[name] = f"{type(error).__name__}: {error}"
                print(failed[name], file=sys.stderr)
    folder = HERE if options.only == list(MEASURES) else DATA / "benchmark"
    folder.mkdir(exist_ok=True)
    ratios = {ratio.name: value for ratio in RATIOS if (value := ratio.value(results)) is not None}
    command = f"python -m experiments.benchmark.bench {' '.join(sys.argv[1:])}".strip()
    content = {"command": command, "machine": machine, "ratios": ratios, "results": results, "failed": failed}
    (folder / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    draw(results, folder / "chart.png")
    print(f"{machine['cores']} cores of {machine['cpu']}, twin {options.size}\n\n{report(results)}\n\nin {folder}")
    if failed:
        sys.exit(f"Not measured: {', '.join(failed)}.")


def read_options(arguments: Sequence[str]) -> Options:
    """Return the options; exit with a message if they are invalid."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    unknown = given.keys() - {*Options._fields}
    if unknown:
        sys.exit(f"{', '.join(sorted(unknown))}: unknown; allowed are size=, only= and epochs=.")
    size, epochs = given.get("size", "1%"), given.get("epochs", "20")
    if size not in SIZES:
        sys.exit(f"size={size}: there is no such size; allowed are {', '.join(SIZES)}.")
    if not epochs.isdecimal() or epochs == "0":
        sys.exit(f"epochs={epochs}: it must be a whole number, 1 or more.")
    only = given["only"].split(",") if "only" in given else list(MEASURES)
    strange = [name for name in only if name not in MEASURES]
    if strange:
        sys.exit(f"only={','.join(strange)}: no such measure; there are {', '.join(MEASURES)}.")
    return Options(size, only, int(epochs))


def in_own_process(measure: Measure, setting: Setting) -> dict:
    """Return the result of a measure, run in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run, measure, setting).result()


def run(measure: Measure, setting: Setting) -> dict:
    if measure.keeps_memory:
        keep_memory()
    return getattr(import_module(f"experiments.benchmark.{measure.module}"), measure.function)(setting)


if __name__ == "__main__":
    try:
        main()
    except VidclfError as error:
        sys.exit(str(error))

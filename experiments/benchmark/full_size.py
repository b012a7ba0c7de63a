"""Run the whole tutorial at UCF101's full size on a GPU: features, 200 epochs, evaluation, with their wall times.

    python -m experiments.benchmark.full_size
    python -m experiments.benchmark.full_size size=1% epochs=1 backbone=tiny    # small, on a CPU

Goal: under two minutes on one H200, once the twin's clips exist. It was not run at full size: there was no GPU. Each
part is a verb of vidclf, start-up included, with random weights. The features are below data/ until the end.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from experiments.benchmark.report import markdown
from experiments.benchmark.setting import DATA, timed, twin
from experiments.benchmark.twin import SIZES
from experiments.benchmark.verbs import run_verb
from vidclf.errors import VidclfError

BACKBONES = {"vgg16": ("backbone=vgg16", "backbone.weights=null"), "tiny": ("backbone=tiny",)}


class Options(NamedTuple):
    """The options of the command line; `devices` as Lightning's Trainer takes them."""

    size: str = "100%"
    epochs: str = "200"
    devices: str = "1"
    backbone: str = "vgg16"


def main() -> None:
    options = read_options(sys.argv[1:])
    DATA.mkdir(exist_ok=True)
    writing_s, root = timed(lambda: twin(options.size))
    with TemporaryDirectory(dir=DATA, prefix="full-size-") as work:
        seconds = run(options, root, Path(work))
    rows = [(name, f"{value:.1f}") for name, value in [*seconds.items(), ("together", sum(seconds.values()))]]
    print(f"{' '.join(f'{name}={value}' for name, value in options._asdict().items())}\n")
    print(markdown(("part", "seconds"), [("writing what was missing of the twin", f"{writing_s:.1f}"), *rows]))


def run(options: Options, root: Path, work: Path) -> dict[str, float]:
    """Return the wall time of each verb."""
    shared = (
        "experiment=tutorial",
        f"dataset.root={root}",
        f"store.root={work}/features",
        f"trainer.devices={options.devices}",
        *BACKBONES[options.backbone],
    )
    extract = run_verb("extract", *shared)
    train = run_verb("train", *shared, f"trainer.max_epochs={options.epochs}", f"hydra.run.dir={work}/run")
    evaluate = run_verb("evaluate", f"run={work}/run", f"store.root={work}/features")
    return {"extract": extract.seconds, "train": train.seconds, "evaluate": evaluate.seconds}


def read_options(arguments: Sequence[str]) -> Options:
    """Return the options; exit with a message if they are invalid. The verbs check the numbers."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    unknown = given.keys() - {*Options._fields}
    if unknown:
        sys.exit(f"{', '.join(sorted(unknown))}: unknown; allowed are {'=, '.join(Options._fields)}=.")
    options = Options(**given)
    for key, allowed in (("size", SIZES), ("backbone", BACKBONES)):
        if given.get(key, next(iter(allowed))) not in allowed:
            sys.exit(f"{key}={given[key]}: allowed are {', '.join(allowed)}.")
    return options


if __name__ == "__main__":
    try:
        main()
    except VidclfError as error:
        sys.exit(str(error))

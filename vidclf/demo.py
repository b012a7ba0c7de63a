"""The whole way in two minutes: train, evaluate and predict on the embedded demo, by the commands a user types."""

import json
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

CLIP = Path("data/demo/SpinClockwise/v_SpinClockwise_g01_c01.avi")
CEILING = 5 / 8  # two classes by their digit, and half of three pairs


def main() -> None:
    """Print what was found, and three things to try next; further arguments go to train."""
    if {"-h", "--help"} & {*sys.argv}:
        print(f"vidclf demo [key=value ...]\n\n{__doc__}\nArguments go to train: vidclf train --help.")
        return
    run = Path("runs/demo") / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    _vidclf("train", "experiment=demo", f"hydra.run.dir={run}", *sys.argv[1:])
    _vidclf("evaluate", f"run={run}")
    _vidclf("predict", f"run={run}", f"source={CLIP}")
    val, test = (json.loads((folder / "metrics.json").read_text())["top1"] for folder in (run, run / "test"))
    print(f"""
What it found. {test:.1%} of the test clips are named rightly (validation said {val:.1%}; chance is 12.5%).
Six of the eight classes come in pairs that show the same pictures in opposite order, so a network that sees one
frame at a time can only guess between them: {CEILING:.1%} is the most it can reach. This one looks at single frames.

Try next:
  vidclf train experiment=demo split.validation=frame_level     # the tutorial's validation, which leaks: compare it
  vidclf train experiment=demo_gru                               # the same pictures in their order: beyond the ceiling
  .venv/bin/tensorboard --logdir runs                            # curves, views, the confusion matrix""")


def _vidclf(verb: str, *arguments: str) -> None:
    print(f"\n$ {shlex.join(['vidclf', verb, *arguments])}", flush=True)
    status = subprocess.run([sys.executable, "-m", f"vidclf.{verb}", *arguments]).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()

"""The main job in two minutes: train, evaluate and predict on the embedded demo, by the commands a user types."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from vidclf.errors import VidclfError
from vidclf.run.config import Config, explicit_overrides
from vidclf.run.folder import Run

CLIP = Path("data/demo/SpinClockwise/v_SpinClockwise_g01_c01.avi")
CEILING = 5 / 8  # two classes differ in their digit; of three pairs, half can be guessed


def run(config: Config, run: Run | None) -> None:
    """Run the verbs, print what they found and three things to try next; overrides go to train."""
    folder = Path("runs/demo") / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    _vidclf("train", "experiment=demo", f"hydra.run.dir={folder}", *explicit_overrides())
    _vidclf("evaluate", f"run={folder}")
    _vidclf("predict", f"run={folder}", f"source={CLIP}")
    val, test = (json.loads((results / "metrics.json").read_text())["top1"] for results in (folder, folder / "test"))
    print(f"""
Result: {test:.1%} of the test clips are classified correctly (validation: {val:.1%}; chance: 12.5%).
Six of the eight classes come in pairs that show the same frames in opposite order. A network that sees one frame at
a time can only guess between them, so it reaches {CEILING:.1%} at most. This one looks at single frames.

Try next:{_activation()}
  vidclf train experiment=demo split.validation=frame_level     # the tutorial's validation, which leaks: compare
  vidclf train experiment=demo_gru                               # the same frames in order: above the ceiling
  tensorboard --logdir runs                                      # curves, views, the confusion matrix""")


def _activation() -> str:
    """Return the line that puts `vidclf` on the path, where it is in an environment that is not active."""
    if shutil.which("vidclf") or sys.prefix == sys.base_prefix:
        return ""
    script = Path(os.path.relpath(sys.prefix)) / "bin" / "activate"
    return f"\n  source {shlex.quote(str(script))}"


def _vidclf(verb: str, *arguments: str) -> None:
    print(f"\n$ {shlex.join(['vidclf', verb, *arguments])}", flush=True)
    status = subprocess.run([sys.executable, "-m", "vidclf", verb, *arguments]).returncode
    if status:
        raise VidclfError(f"vidclf {verb} ended with status {status}; see above.")

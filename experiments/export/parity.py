"""Export heads and networks, and print how far each exported model is from its run on 30 real clips.

    VIDCLF_SHARED=DIR python -m experiments.export.parity [onnx|torch] [NAME ...]

DIR/ucf3 holds a folder of clips for each of three classes. Runs are trained on ten clips of each, shortly, because only
the difference counts here. Runs, features and exported models go to data/export.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

WORK = Path("data/export")
FRAMES = ("sampling=uniform", "sampling.num_frames=16")
LITE0 = ("backbone=custom", "backbone._target_=experiments.real.lite0.Lite0", "+backbone.precision=float32")
TINY = ("backbone=tiny",)
SETTINGS = {
    "tiny, linear": (*TINY, "head=linear"),
    "tiny, mlp": (*TINY, "head=mlp"),
    "tiny, gru": (*TINY, *FRAMES, "head=gru"),
    "tiny3d, linear": ("backbone=tiny3d", *FRAMES, "head=linear"),
    "tiny, knn, median": (*TINY, "head=knn", "head.k=5", "aggregation=median"),
    "tiny, logistic, three crops": (*TINY, "head=logistic", "transform.crops=3"),
    "tiny, transformer": (*TINY, *FRAMES, "head=transformer"),
    "tiny, int8, temporal_conv": (*TINY, *FRAMES, "head=temporal_conv", "backbone.precision=int8"),
    "lite0, linear": (*LITE0, "head=linear"),
    "lite0, gru": (*LITE0, *FRAMES, "head=gru"),
    "r3d_18 of random weights, linear": (
        *("backbone=r3d_18", "backbone.weights=null", "backbone.precision=float32"),
        *(*FRAMES, "head=linear"),
    ),
}
DATA = ("dataset=folder", "dataset.group='_(g\\d+)_'", "split=grouped")
SHORT = ("trainer.max_epochs=5", "logger=null", "num_threads=1")


def main() -> None:
    formats = [word for word in sys.argv[1:] if word in ("onnx", "torch")] or ["onnx"]
    names = [word for word in sys.argv[1:] if word in SETTINGS] or list(SETTINGS)
    clips = Path(os.environ["VIDCLF_SHARED"], "ucf3").resolve()
    chosen = WORK.absolute() / "clips"
    shutil.rmtree(chosen, ignore_errors=True)
    for folder in sorted(clips.iterdir()):  # ten clips a class, evenly over its groups
        files = sorted(folder.iterdir())
        (chosen / folder.name).mkdir(parents=True)
        for number in range(10):
            file = files[number * len(files) // 10]
            (chosen / folder.name / file.name).symlink_to(file)
    print("| run | format | largest difference | same label |\n| --- | --- | --- | --- |")
    for name in names:
        run = WORK / "runs" / name.replace(", ", "-").replace(" ", "-")
        if not (run / "metrics.json").is_file():
            vidclf("train", *DATA, f"dataset.root={chosen}", *SHORT, *SETTINGS[name], f"hydra.run.dir={run}")
        for export_format in formats:
            to = WORK / f"{run.name}-{export_format}"
            shutil.rmtree(to, ignore_errors=True)
            lines = vidclf(
                "export", f"run={run}", f"to={to}", f"format={export_format}", f"clips={chosen}", "trust=true"
            )
            found = re.search(r"([\d.e+-]+); same label on (\d+ of \d+)", "".join(lines))
            assert found, lines
            difference, same = found.groups()
            print(f"| {name} | {export_format} | {difference} | {same} |", flush=True)


def vidclf(verb: str, *arguments: str) -> list[str]:
    """Run a verb; return the lines that it prints."""
    path = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "vidclf", verb, *arguments, "store.root=data/export/features"]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout.splitlines()


if __name__ == "__main__":
    main()

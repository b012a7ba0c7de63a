"""The files beside an exported model: labels, how frames are prepared, a model card, and an example without vidclf.

Names of classes, folders and settings may come from anyone. They stand in JSON, or as code in the card, and the example
holds none of them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from vidclf import __version__
from vidclf.contracts import Backbone, Sampling, Transform, optional
from vidclf.data import sampling as samplings
from vidclf.data.transforms import BackboneTransform
from vidclf.evaluation.results import summarize
from vidclf.models.backbones.int8 import Int8Backbone
from vidclf.models.backbones.wrap import FrozenBackbone, TunedBackbone
from vidclf.models.exported import INPUT, OUTPUT
from vidclf.run.config import Config
from vidclf.run.folder import Run
from vidclf.system.disk import write_atomically, write_json
from vidclf.system.text import sanitize

DESCRIBED = ("dataset", "split", "sampling", "transform", "backbone", "scaling", "head", "aggregation")
# How each sampling chooses frames in the example; its numbers are those of preprocessing.json.
CHOOSE_FRAMES: dict[type, str] = {
    samplings.Rate: """
step = max(1, math.floor(fps / sampling["rate_hz"]))
chosen = np.arange(0, len(frames), step)[:, None]
""",
    samplings.Uniform: """
last, gaps = len(frames) - 1, sampling["num_frames"] - 1
chosen = (2 * np.arange(gaps + 1) * last + gaps) // (2 * gaps) if gaps else np.array([(last + 1) // 2])
chosen = chosen[None]
""",
    samplings.Segments: """
bounds = np.arange(sampling["num_segments"] + 1) * len(frames) // sampling["num_segments"]
chosen = (bounds[:-1] + np.maximum(np.diff(bounds), 1) // 2)[None]
""",
    samplings.Dense: """
offsets, gaps = np.arange(sampling["num_frames"]) * sampling["stride"], sampling["num_views"] - 1
last = max(0, len(frames) - 1 - offsets[-1])
starts = (2 * np.arange(gaps + 1) * last + gaps) // (2 * gaps) if gaps else np.array([(last + 1) // 2])
chosen = (starts[:, None] + offsets) % len(frames)
""",
}
WINDOW = 'frames = frames[: round(how["window_s"] * fps)]  # the first window: the model labels windows\n'
LIBRARIES = {"onnx": "onnxruntime", "torch": "torch"}  # that run the exported files
OPEN = {
    "onnx": """
options = onnxruntime.SessionOptions()
options.add_session_config_entry("session.x64quantprecision", "1")  # exact sums of bytes on all processors


def load(name):
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options)
    return lambda frames: session.run(None, {"frames": frames})[0]
""",
    "torch": """

def load(name):
    module = torch.export.load(folder / f"{name}.pt2").module()
    return lambda frames: module(torch.from_numpy(frames)).numpy()
""",
}
EXAMPLE = '''"""Label a video: python example.py VIDEO (needs av, numpy and {library})."""

import json
import math
import os
import sys
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import av
import numpy as np
import {library}

folder = Path(__file__).parent
labels, how = (json.loads((folder / f"{{name}}.json").read_text()) for name in ("labels", "preprocessing"))
sampling = how["sampling"]
{open}


with av.open(sys.argv[1]) as video:
    fps = float(video.streams.video[0].average_rate)
    frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
{choose}
views = np.stack([[frames[number].transpose(2, 0, 1) for number in view] for view in chosen])  # (V, T, 3, H, W)
resize, model = load("resize"), load("model")
images = np.concatenate([resize(view[None]) for view in views])
log_probabilities = model(images)
best = int(log_probabilities.argmax())
print(json.dumps({{"label": labels[best], "probability": float(np.exp(log_probabilities[best]))}}))
'''
NORMALISED = "- The model normalises bytes itself.\n"
RESIZING = "- `resize` gives the bytes of torchvision's `resize` and `center_crop`, and takes one view or several.\n"
CARD = """# Video classifier

{model} labels videos. vidclf {version} exported it from a trained run. Names below are data of that run.

| file | what it is |
| --- | --- |
| `{model}` | the classifier: resized frames to log-probabilities |
{files}| `labels.json` | the classes, in the order of the log-probabilities |
| `preprocessing.json` | how frames are chosen, resized, cropped and normalised |

## Scores

{scores}
Intervals are of 95 %, over groups of videos that are not independent. Validation chose the epoch, so its scores are
optimistic.

## Input and output

- `{input}`: {kind} (V, T, 3, {size}, {size}), RGB. V views of a video, any number; T frames of a view, {frames}.
- `{output}`: float32 (K,), of the whole video. All its views go in at once.
{details}- `vidclf predict` turns the frames of a phone upright and mends uneven times; `example.py` does neither.

## Compared with the run

{parity}
## The run

{run}
## Classes

{classes}"""


@dataclass(frozen=True)
class Package:
    """All that is said about an exported model.

    Attributes:
        run: that it was exported from.
        config: of the run.
        backbone: of the run.
        sampling: of the run.
        transform: of the run.
        num_frames: that each view must have; None: any number.
        format: onnx or torch.
        has_resize: whether the transform was exported, too.
        takes_bytes: whether the model normalises; if not, it takes what the transform returns.
        parity: what a comparison with the run showed.
        scores: metrics of the run by part.
    """

    run: Run
    config: Config
    backbone: FrozenBackbone | TunedBackbone
    sampling: Sampling
    transform: Transform
    num_frames: int | None
    format: str
    has_resize: bool
    takes_bytes: bool
    parity: Mapping[str, str]
    scores: Mapping[str, Mapping[str, float]]

    @property
    def window_s(self) -> float | None:
        """The seconds of a long video that the model labels at once; None: whole clips."""
        return self.config["dataset"].get("window_s")

    @property
    def choose_frames(self) -> str | None:
        """Code of the example that chooses frames; None: the example cannot know."""
        code = CHOOSE_FRAMES.get(type(self.sampling))
        if code is None or not self.has_resize:
            return None
        return code.strip() if self.window_s is None else f"{WINDOW}{code.strip()}"

    def write(self, folder: Path, ending: str) -> None:
        """Write the files into the folder of the model, whose name ends in `ending`."""
        write_atomically(folder / "labels.json", json.dumps(self.run.class_names, indent=1).encode())
        write_json(folder / "preprocessing.json", self._preprocessing())
        if self.choose_frames:
            library, open_files = LIBRARIES[self.format], OPEN[self.format].strip("\n")
            example = EXAMPLE.format(library=library, open=open_files, choose=self.choose_frames)
            write_atomically(folder / "example.py", example.encode())
        write_atomically(folder / "README.md", self._card(ending).encode())

    def _preprocessing(self) -> dict[str, Any]:
        pictures, transform = self.backbone.picture_format, self.transform
        as_trained = isinstance(transform, BackboneTransform)
        return {
            "input": {"name": INPUT, "layout": "V T 3 H W", "dtype": "uint8" if self.takes_bytes else "float32"},
            "output": {"name": OUTPUT, "layout": "K"},
            "colors": "RGB",
            "sampling": {"kind": type(self.sampling).__name__, **_settings_of(self.sampling, self.config["sampling"])},
            "frames_of_a_view": self.num_frames,
            "window_s": self.window_s,
            "transform": {"kind": type(transform).__name__, **_settings_of(transform, self.config["transform"])},
            "resize": pictures.resize,
            "interpolation": pictures.interpolation,
            "antialias": pictures.is_antialiased,
            "size": pictures.size,
            "crop_rounds_down": pictures.crop_down,
            "mean": pictures.mean if as_trained else None,
            "std": pictures.std if as_trained else None,
            "clip_length": pictures.clip_length,
            "model_normalizes": self.takes_bytes,
        }

    def _card(self, ending: str) -> str:
        files = f"| `resize{ending}` | decoded frames (V, T, 3, H, W) of any size to those that the model takes |\n"
        files = (files if self.has_resize else "") + (
            "| `example.py` | labels a video without vidclf |\n" if self.choose_frames else ""
        )
        return CARD.format(
            model=f"model{ending}",
            version=__version__,
            files=files,
            scores=self._scores(),
            input=INPUT,
            output=OUTPUT,
            kind="uint8" if self.takes_bytes else "float32",
            size=self.backbone.picture_format.size,
            frames="any number" if self.num_frames is None else self.num_frames,
            details=f"{NORMALISED if self.takes_bytes else ''}{RESIZING if self.has_resize else ''}",
            parity="".join(f"- {name}: {value}\n" for name, value in self.parity.items()),
            run=_as_code(self._facts()),
            classes=_as_code(self.run.class_names),
        )

    def _scores(self) -> str:
        rows = []
        for part, metrics in self.scores.items():
            if {"top1", "num_videos"} <= metrics.keys():
                shown = summarize({**metrics, "num_videos": int(metrics["num_videos"])})
                rows += [f"| {part} | {name} | {value} |\n" for name, value in shown.items()]
        missing = "" if any("| test |" in row for row in rows) else "The run was not evaluated on test videos.\n"
        return "".join(["| part | score | value |\n| --- | --- | --- |\n", *rows, "\n", missing])

    def _facts(self) -> list[str]:
        network = self.backbone.backbone
        network = network.backbone if isinstance(network, Int8Backbone) else network
        licence = optional(network, Backbone, "licence") or "not known; ask where they come from"
        facts = {
            "run": self.run.folder.name,
            "epoch": self.run.num_epochs,
            "split fingerprint": self.run.split_fingerprint,
            "licence of the backbone's weights": licence,
        }
        stages = {stage: _portable(self.config[stage]) for stage in DESCRIBED}
        return [f"{name}: {json.dumps(value)}" for name, value in (facts | stages).items()]


def _settings_of(stage: object, node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a sampling or a transform: its fields, or what its configuration says."""
    settings = asdict(stage) if is_dataclass(stage) and not isinstance(stage, type) else node
    return {key: value for key, value in settings.items() if key != "picture_format" and not key.startswith("_")}


def _portable(value: Any) -> Any:
    """Return a configuration without the folders of the machine that it was used on."""
    if isinstance(value, Mapping):
        return {key: _portable(entry) for key, entry in value.items() if key != "calibration"}
    return Path(value).name if isinstance(value, str) and Path(value).expanduser().is_absolute() else value


def _as_code(lines: Iterable[str]) -> str:
    """Return lines of an indented block, which Markdown shows as they are; no line can end it."""
    return "".join(f"    {sanitize(line)}\n" for line in lines)

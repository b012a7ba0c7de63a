"""Pictures of what a network sees and of what it confuses."""

import itertools
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import lightning as L
import matplotlib

matplotlib.use("Agg")  # before pyplot: no window, on any machine
import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Int, UInt8
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay
from torch import Tensor

from vidclf.data.decoding import decode_frames
from vidclf.system.seeds import generator_for
from vidclf.system.terminal import printable

if TYPE_CHECKING:
    from vidclf.data.corpus import Corpus

MAX_FRAMES = 8  # of a view, shown side by side
MAX_NUMBERED = 20  # classes whose cells have room for a number


@dataclass(eq=False)
class ViewSheets(Callback):
    """Shows `num_views` training and validation views, drawn by the run's seed, in TensorBoard: once training runs."""

    num_views: int = 8
    is_shown: bool = field(default=False, init=False)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: object) -> None:
        if self.is_shown:
            return
        self.is_shown = True
        if isinstance(trainer.logger, TensorBoardLogger) and trainer.is_global_zero:
            for part in ("train", "val"):
                sheet = draw_sheet(trainer.datamodule.corpus, part, self.num_views)  # type: ignore[attr-defined]
                trainer.logger.experiment.add_figure(f"views/{part}", sheet, close=True)


def draw_sheet(corpus: "Corpus", part: str, num_views: int) -> Figure:
    """Return a figure with one row a view: its label and up to eight of its frames, as decoded."""
    rows = list(itertools.islice(_draw_views(corpus, part), num_views))
    height = max(1, len(rows))
    figure, axes = plt.subplots(height, 1, figsize=(8, 1.2 * height), squeeze=False, layout="constrained")
    for axis, (frames, title) in zip(axes[:, 0], rows, strict=False):
        axis.imshow(_strip(frames))
        axis.set_title(printable(title), fontsize=8, parse_math=False)  # a file name may hold $ signs
    for axis in axes[:, 0]:
        axis.axis("off")
    if credit := getattr(corpus.dataset, "credit", ""):
        figure.supxlabel(textwrap.fill(credit, 150), fontsize=6)
    return figure


def _draw_views(corpus: "Corpus", part: str) -> Iterator[tuple[UInt8[Tensor, "T 3 H W"], str]]:
    """Yield frames of a random view, and whose they are, of one video after the other, in random order."""
    drawn = corpus.views(part, epoch=0 if part == "train" else None)
    generator = generator_for(corpus.seed, "sheets")
    for row in torch.randperm(len(drawn), generator=generator).tolist():
        one = drawn[row]
        video = corpus.videos[one.video]
        view = int(torch.randint(len(one.frames), (), generator=generator))
        chosen = one.frames[view]
        shown = chosen[torch.linspace(0, len(chosen) - 1, min(len(chosen), MAX_FRAMES)).round().long()]
        frames = decode_frames(video.path, shown, whole=True)
        label = corpus.class_names[one.label]
        yield frames, f"{label}   {video.name}, view {int(one.views[view])}"


def draw_confusion(labels: Int[Tensor, " M"], predicted: Int[Tensor, " M"], class_names: list[str]) -> Figure:
    """Return the confusion matrix: rows are true classes, each summing to 1; columns predicted ones."""
    num_classes = len(class_names)
    side = min(16.0, 3 + 0.45 * num_classes)  # inches
    figure, axis = plt.subplots(figsize=(side, side), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(
        labels.numpy(),
        predicted.numpy(),
        labels=list(range(num_classes)),
        display_labels=[printable(name).replace("$", r"\$") for name in class_names],  # $ begins a formula
        normalize="true",
        include_values=num_classes <= MAX_NUMBERED,
        values_format=".2f",
        xticks_rotation="vertical",
        cmap="Blues",
        im_kw={"vmin": 0, "vmax": 1},
        colorbar=False,
        ax=axis,
    )
    axis.tick_params(labelsize=min(10, 640 / num_classes))  # points: a row is about 900 / num_classes high
    return figure


def _strip(frames: UInt8[Tensor, "T 3 H W"]) -> UInt8[np.ndarray, "H WT 3"]:
    return torch.cat(frames.unbind(), dim=-1).permute(1, 2, 0).numpy()

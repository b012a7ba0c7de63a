"""Images for TensorBoard and results: sheets of views with their predictions, and the confusion matrix."""

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import lightning as L
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.transforms.v2.functional import resize

from vidclf.contracts import Dataset, VideoViews, optional
from vidclf.data.corpus import Corpus
from vidclf.data.decoding import decode_frames
from vidclf.errors import VidclfError
from vidclf.evaluation.logits import ViewLogits
from vidclf.evaluation.scores import VideoPredictions
from vidclf.system.seeds import generator_for
from vidclf.system.text import sanitize

NUM_VIEWS = 16  # of a sheet
MAX_VIEWS = 4  # of a video, spread over it
MAX_FRAMES = 8  # of a clip, spread over it: 16 real clips of eight frames take 1.6 MB
WIDTH = 350  # pixels: as wide as TensorBoard shows an image
COLUMNS, TILE, TEXT = 2, 158, 105  # of a sheet; pixels of a view's longer side, and of its title and caption
MAX_CHARS, MAX_CREDIT_LINES = 24, 10  # of a line beside a view; of the data set's credit
FRAME_MS = 200  # of an animation
MAX_NUMBERED = 20  # classes whose cells have room for a number
MAX_SMALL, MAX_SMALL_CHARS = 12, 16  # classes of a matrix as wide as TensorBoard shows it, and characters of a name
# All figures: text of 11 pixels or more, on white, in colours that colour-blind eyes tell apart (Okabe and Ito).
DPI, FONT = 100, 8.0  # 11.1 pixels
TEXTS = ("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")
STYLE: dict[Any, Any] = {
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "figure.facecolor": "white",
    **dict.fromkeys(TEXTS, FONT),
}
RIGHT, WRONG = "#0072b2", "#c2500a"
PALETTE = (RIGHT, "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a900", "#7f6bb3", "#8c564b", "#5f9ea0")
styled = rc_context(STYLE)  # decorates a function that draws


@dataclass(eq=False)
class ViewSheets(Callback):
    """Shows training views in TensorBoard once training runs, and validation views when they are scored."""

    num_views: int = NUM_VIEWS
    is_shown: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.num_views < 1:
            raise VidclfError(
                f"callbacks.view_sheets.num_views={self.num_views}: must be 1 or more. To show no sheets, pass "
                "~callbacks.view_sheets"
            )

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: object) -> None:
        if self.is_shown:
            return
        self.is_shown = True
        if isinstance(trainer.logger, TensorBoardLogger) and trainer.is_global_zero:
            sheet = draw_sheet(trainer.datamodule.corpus, "train", self.num_views)  # type: ignore[attr-defined]
            add_images(trainer.logger.experiment, "views/train", sheet)


@dataclass(frozen=True, eq=False)
class ShownView:
    """A view as a sheet shows it: its frames, scaled down, with lines of text above and below."""

    frames: UInt8[Tensor, "T 3 h w"]
    title: list[str]
    caption: list[str]
    colour: str


def choose_views(
    corpus: Corpus,
    part: str,
    num_views: int,
    view_logits: ViewLogits | None = None,
    predictions: VideoPredictions | None = None,
) -> Iterator[ShownView]:
    """Yield `num_views` views of random videos, drawn by the run's seed, up to four of each; see `draw_sheet`."""
    listed, names = corpus.views(part, epoch=0 if part == "train" else None), corpus.class_names
    for row in torch.randperm(len(listed), generator=generator_for(corpus.seed, "sheets")).tolist():
        if num_views == 0:
            return
        views, video = listed[row], corpus.videos[listed[row].video]
        chosen = _spread(len(views.views), min(MAX_VIEWS, num_views))
        num_views -= len(chosen)
        moments = _spread(views.frames.shape[1], MAX_FRAMES)
        frames = decode_frames(video.path, views.frames[chosen][:, moments], whole=True)  # (V, T, 3, H, W)
        scale = min(1, TILE / max(frames.shape[-2:]))
        size = [max(1, round(side * scale)) for side in frames.shape[-2:]]
        title, colour, probabilities = [f"true {names[views.label]}", video.name], "black", None
        if view_logits and predictions:
            of_video = predictions.log_probabilities[predictions.positions.index(views.video)].exp()
            title.insert(1, f"predicted {_most_probable(of_video, names)}")
            colour = RIGHT if of_video.argmax() == views.label else WRONG
            probabilities = _probabilities(view_logits, views)
        for view, shown in zip(chosen.tolist(), frames, strict=True):
            first, last = int(views.frames[view, 0]), int(views.frames[view, -1])
            times = f"frame {first}" if views.frames.shape[1] == 1 else f"frames {first}-{last}"
            caption = [f"view {views.views[view]}, {times}"]
            if probabilities is not None:
                caption.append(_most_probable(probabilities[view], names))
            yield ShownView(resize(shown, size), title, caption, colour)


def draw_sheet(
    corpus: Corpus,
    part: str,
    num_views: int = NUM_VIEWS,
    view_logits: ViewLogits | None = None,
    predictions: VideoPredictions | None = None,
) -> list[Image.Image]:
    """Return an image of up to `num_views` views, as decoded; for clips, the frames of an animation.

    `view_logits` and `predictions`, those of the run's aggregation, are shown for a part that has been scored.
    """
    views = list(choose_views(corpus, part, num_views, view_logits, predictions))
    return draw_views(views, optional(corpus.dataset, Dataset, "credit"))


@styled
def draw_views(views: Sequence[ShownView], credit: str = "") -> list[Image.Image]:
    """Return an image of views in rows of two for each frame that the views have."""
    num_rows, num_columns = ceil(len(views) / COLUMNS), min(COLUMNS, len(views))
    below = textwrap.wrap(credit, MAX_CHARS * num_columns, max_lines=MAX_CREDIT_LINES, placeholder="...")
    row_height = TEXT + TILE * max(view.frames.shape[-2] / max(view.frames.shape[-2:]) for view in views)
    size = (WIDTH * num_columns / COLUMNS / DPI, (num_rows * row_height + 15 * len(below)) / DPI)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    canvas, images, sheets = FigureCanvasAgg(figure), [], []
    for view, axis in zip(views, figure.subplots(num_rows, num_columns, squeeze=False).flat, strict=False):
        images.append(axis.imshow(view.frames[0].permute(1, 2, 0).numpy()))
        axis.set_title("\n".join(map(_plain, view.title)), color=view.colour, loc="left")
        axis.set_xlabel("\n".join(map(_plain, view.caption)), loc="left")
    for number, axis in enumerate(figure.axes):
        axis.set(xticks=[], yticks=[], frame_on=False, visible=number < len(views))
    figure.supxlabel("\n".join(_plain(line, len(line)) for line in below), fontsize=FONT)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # names in any script
        canvas.draw()
    for moment in range(len(views[0].frames)):
        for image, view in zip(images, views, strict=True):
            image.set_data(view.frames[moment].permute(1, 2, 0).numpy())
            image.axes.draw_artist(image)
        sheets.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    return sheets


def _plain(text: str, max_chars: int = MAX_CHARS) -> str:
    """Return a text, or its two ends, as matplotlib shows it literally: a `$` would begin a formula."""
    text, end = sanitize(text), (max_chars - 3) // 2
    return (text if len(text) <= max_chars else f"{text[:end]}...{text[-end:]}").replace("$", r"\$")


def _probabilities(view_logits: ViewLogits, views: VideoViews) -> Float[Tensor, "V K"]:
    """Return the class probabilities of each view of a video, the means over its crops."""
    of_video = view_logits.video == views.video
    ordered = view_logits.logits[of_video][view_logits.view[of_video].argsort()]
    return ordered.unflatten(0, (len(views.views), -1)).softmax(-1).mean(1)


def _most_probable(probabilities: Float[Tensor, " K"], names: Sequence[str]) -> str:
    value, label = probabilities.max(0)
    return f"{value:.2f} {names[int(label)]}"


def _spread(count: int, most: int) -> Int[Tensor, " some"]:
    """Return up to `most` of `count` positions, from the first to the last."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()


def add_images(writer: SummaryWriter, name: str, images: Sequence[Image.Image], step: int = 0) -> None:
    """Show an image, or several of one size as an animation."""
    encoded, (width, height) = io.BytesIO(), images[0].size
    if len(images) == 1:
        images[0].save(encoded, "PNG")
    else:
        images[0].save(encoded, "GIF", save_all=True, append_images=images[1:], duration=FRAME_MS, loop=0)
    summary = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=encoded.getvalue())
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=summary)]), step)


@styled
def draw_confusion(
    labels: Int[Tensor, " M"], predicted: Int[Tensor, " M"], class_names: Sequence[str], is_small: bool = False
) -> Figure:
    """Return the confusion matrix: rows are true classes, each summing to 1; columns are predicted classes.

    A small one is as wide as TensorBoard shows it.
    """
    num_classes = len(class_names)
    side = WIDTH / DPI if is_small else min(20.0, 3 + 0.4 * num_classes)  # inches
    names = [_plain(name, MAX_SMALL_CHARS if is_small else len(name)) for name in class_names]
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    ConfusionMatrixDisplay.from_predictions(
        labels.numpy(),
        predicted.numpy(),
        labels=list(range(num_classes)),
        display_labels=names,
        normalize="true",
        include_values=num_classes <= (MAX_SMALL // 2 if is_small else MAX_NUMBERED),
        values_format=".2f",
        xticks_rotation="vertical",
        cmap="Blues",
        im_kw={"vmin": 0, "vmax": 1},
        colorbar=False,
        ax=axis,
    )
    return figure


def as_image(figure: Figure) -> Image.Image:
    """Return a figure as an image."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")

"""Images for TensorBoard and results: sheets of views with their predictions, and the confusion matrix."""

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil

import lightning as L
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
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
MAX_VIEWS = 4  # of a video, spread over it; also the columns of a sheet
MAX_FRAMES = 8  # of a clip, spread over it: 16 real clips of eight frames take 1.6 MB
DPI, TILE, TEXT = 100, 160, 95  # pixels: per inch, the longer side of a view, the height of its title and caption
MAX_CHARS, MAX_CREDIT_LINES = 32, 10  # of a line beside a view; of the data set's credit
FRAME_MS = 200  # of an animation
MAX_NUMBERED = 20  # classes whose cells have room for a number


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
            colour = "darkgreen" if of_video.argmax() == views.label else "firebrick"
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


def draw_views(views: Sequence[ShownView], credit: str = "") -> list[Image.Image]:
    """Return an image of views in rows of four for each frame that the views have."""
    num_rows, num_columns = ceil(len(views) / MAX_VIEWS), min(MAX_VIEWS, len(views))
    below = textwrap.wrap(credit, MAX_CHARS * num_columns, max_lines=MAX_CREDIT_LINES, placeholder="...")
    row_height = TEXT + TILE * max(view.frames.shape[-2] / max(view.frames.shape[-2:]) for view in views)
    size = (num_columns * 1.1 * TILE / DPI, (num_rows * row_height + 15 * len(below)) / DPI)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    canvas, images, sheets = FigureCanvasAgg(figure), [], []
    for view, axis in zip(views, figure.subplots(num_rows, num_columns, squeeze=False).flat, strict=False):
        images.append(axis.imshow(view.frames[0].permute(1, 2, 0).numpy()))
        axis.set_title("\n".join(map(_plain, view.title)), fontsize=7, color=view.colour, loc="left")
        axis.set_xlabel("\n".join(map(_plain, view.caption)), fontsize=7, loc="left")
    for number, axis in enumerate(figure.axes):
        axis.set(xticks=[], yticks=[], frame_on=False, visible=number < len(views))
    figure.supxlabel("\n".join(_plain(line, len(line)) for line in below), fontsize=7)
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


def draw_confusion(labels: Int[Tensor, " M"], predicted: Int[Tensor, " M"], class_names: list[str]) -> Figure:
    """Return the confusion matrix: rows are true classes, each summing to 1; columns are predicted classes."""
    num_classes = len(class_names)
    side = min(16.0, 3 + 0.45 * num_classes)  # inches
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    ConfusionMatrixDisplay.from_predictions(
        labels.numpy(),
        predicted.numpy(),
        labels=list(range(num_classes)),
        display_labels=[_plain(name, len(name)) for name in class_names],
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

"""Images of what a network sees, what it makes of it, and what it confuses."""

import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
import matplotlib

matplotlib.use("Agg")  # before pyplot: no window, on any machine
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from sklearn.metrics import ConfusionMatrixDisplay
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.transforms.v2.functional import pil_to_tensor, resize, to_pil_image
from torchvision.utils import make_grid

from vidclf.contracts import Dataset, VideoViews, optional
from vidclf.data.decoding import decode_frames
from vidclf.errors import VidclfError
from vidclf.evaluation.logits import ViewLogits
from vidclf.evaluation.scores import VideoPredictions
from vidclf.system.seeds import generator_for
from vidclf.system.text import sanitize

if TYPE_CHECKING:
    from vidclf.data.corpus import Corpus

NUM_VIEWS = 16  # of a sheet
MAX_VIEWS = 4  # of a video, spread over it: a row
MAX_FRAMES = 8  # of a clip, spread over it: 16 real clips of eight frames take 1.6 MB
TILE, GAP = 160, 4  # pixels: what a view takes, and what of it stays white
LINE, SIGN, MAX_LINES = 14, 7, 3  # pixels of a line, and of a sign in it; lines that a name may take
FRAME_MS = 200  # of an animation
MAX_NUMBERED = 20  # classes whose cells have room for a number
FONT = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 11)


@dataclass(eq=False)
class ViewSheets(Callback):
    """Shows training views in TensorBoard once training runs, and validation views when they are judged."""

    num_views: int = NUM_VIEWS
    is_shown: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.num_views < 1:
            raise VidclfError(
                f"callbacks.view_sheets.num_views={self.num_views}: it must be 1 or more. Leave the sheets out by "
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
class ShownVideo:
    """Views of a video as a sheet shows them: what stands above them and, a list a view, below each."""

    frames: UInt8[Tensor, "V T 3 H W"]
    heading: list[str]
    captions: list[list[str]]
    colour: str


def draw_sheet(
    corpus: "Corpus",
    part: str,
    num_views: int = NUM_VIEWS,
    judged: ViewLogits | None = None,
    videos: VideoPredictions | None = None,
) -> list[Image.Image]:
    """Return an image of up to `num_views` views, as decoded, beside those of their video; of clips, those of a film.

    Args:
        corpus: whose views they are.
        part: train, val or test.
        num_views: of random videos, and up to four of each.
        judged: the part, where it was judged.
        videos: what the run's aggregation made of it.
    """
    blocks = [_draw_block(shown) for shown in drawn_videos(corpus, part, num_views, judged, videos)]
    height, width = (max(block.shape[side] for block in blocks) for side in (-2, -1))
    padded = [F.pad(one, (0, width - one.shape[-1], height - one.shape[-2], 0), value=255) for one in blocks]
    nrow = max(1, MAX_VIEWS * TILE // width)
    sheets = [make_grid(torch.stack(moment), nrow, pad_value=255) for moment in zip(*padded, strict=True)]
    if credit := optional(corpus.dataset, Dataset, "credit"):
        below = _draw_text([credit], sheets[0].shape[-1], most=10)
        sheets = [torch.cat([sheet, below], dim=-2) for sheet in sheets]
    return [to_pil_image(sheet) for sheet in sheets]


def drawn_videos(
    corpus: "Corpus",
    part: str,
    num_views: int,
    judged: ViewLogits | None = None,
    videos: VideoPredictions | None = None,
) -> Iterator[ShownVideo]:
    """Yield random videos of a part, by the run's seed, until `num_views` views are shown; see `draw_sheet`."""
    listed = corpus.views(part, epoch=0 if part == "train" else None)
    for row in torch.randperm(len(listed), generator=generator_for(corpus.seed, "sheets")).tolist():
        one, num_shown = listed[row], min(MAX_VIEWS, len(listed[row].views), num_views)
        if num_shown == 0:
            return
        num_views -= num_shown
        views, moments = _spread(len(one.views), num_shown), _spread(one.frames.shape[1], MAX_FRAMES)
        video, names = corpus.videos[one.video], corpus.class_names
        frames = decode_frames(video.path, one.frames[views][:, moments], whole=True)
        captions = [[f"view {one.views[view]}, {_frames_of(one.frames[view])}"] for view in views.tolist()]
        heading, colour = [f"true {names[one.label]}", video.name], "black"
        if judged and videos:
            told = videos.log_probabilities[videos.positions.index(one.video)].exp()
            heading.insert(1, f"predicted {_most_probable(told, names)}")
            colour = "darkgreen" if told.argmax() == one.label else "firebrick"
            for caption, of_view in zip(captions, _probabilities(judged, one)[views], strict=True):
                caption.append(_most_probable(of_view, names))
        yield ShownVideo(frames, heading, captions, colour)


def _probabilities(judged: ViewLogits, views: VideoViews) -> Float[Tensor, "V K"]:
    """Return what was made of each view of a video, the mean over its crops."""
    own = judged.video == views.video
    ordered = judged.logits[own][judged.view[own].argsort()]
    return ordered.unflatten(0, (len(views.views), -1)).softmax(-1).mean(1)


def _most_probable(probabilities: Float[Tensor, " K"], names: Sequence[str]) -> str:
    value, label = probabilities.max(0)
    return f"{value:.2f} {names[int(label)]}"


def _frames_of(view: Int[Tensor, " T"]) -> str:
    return f"frame {view[0]}" if len(view) == 1 else f"frames {view[0]}-{view[-1]}"


def _spread(count: int, most: int) -> Int[Tensor, " some"]:
    """Return up to `most` of `count` positions, from the first to the last."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()


def _draw_block(shown: ShownVideo) -> UInt8[Tensor, "T 3 h w"]:
    height, width = shown.frames.shape[-2:]
    size = [max(1, round(side * (TILE - GAP) / max(height, width))) for side in (height, width)]
    frames = resize(shown.frames.flatten(0, 1), size).unflatten(0, shown.frames.shape[:2])  # (V, T, 3, h, w)
    tiles = F.pad(frames, (0, TILE - frames.shape[-1]), value=255)
    below = torch.stack([_draw_text(caption, TILE) for caption in shown.captions])
    row = torch.cat([*torch.cat([tiles, _at_all_times(below, tiles)], dim=-2)], dim=-1)  # (T, 3, h, V * w)
    above = _draw_text(shown.heading, row.shape[-1], MAX_LINES, shown.colour)
    return torch.cat([above.expand(len(row), -1, -1, -1), row], dim=-2)


def _at_all_times(still: UInt8[Tensor, "V 3 a w"], tiles: UInt8[Tensor, "V T 3 h w"]) -> UInt8[Tensor, "V T 3 a w"]:
    return still[:, None].expand(-1, tiles.shape[1], -1, -1, -1)


def _draw_text(texts: Sequence[str], width: int, most: int = 1, colour: str = "black") -> UInt8[Tensor, "3 a w"]:
    """Return texts below each other, of each up to `most` lines."""
    lines = [
        line
        for text in texts
        for line in textwrap.wrap(sanitize(text), width // SIGN, max_lines=most, placeholder="...") or [""]
    ]
    image = Image.new("RGB", (width, LINE * len(lines)), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((2, LINE * number), line, colour, FONT)
    return pil_to_tensor(image)


def add_images(writer: SummaryWriter, name: str, images: Sequence[Image.Image], step: int = 0) -> None:
    """Show an image, or several of one size as an animation."""
    encoded, (width, height) = io.BytesIO(), images[0].size
    if len(images) == 1:
        images[0].save(encoded, "PNG")
    else:
        images[0].save(encoded, "GIF", save_all=True, append_images=images[1:], duration=FRAME_MS, loop=0)
    shown = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=encoded.getvalue())
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=shown)]), step)


def draw_confusion(labels: Int[Tensor, " M"], predicted: Int[Tensor, " M"], class_names: list[str]) -> Figure:
    """Return the confusion matrix: rows are true classes, each summing to 1; columns predicted ones."""
    num_classes = len(class_names)
    side = min(16.0, 3 + 0.45 * num_classes)  # inches
    figure, axis = plt.subplots(figsize=(side, side), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(
        labels.numpy(),
        predicted.numpy(),
        labels=list(range(num_classes)),
        display_labels=[sanitize(name).replace("$", r"\$") for name in class_names],  # $ begins a formula
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

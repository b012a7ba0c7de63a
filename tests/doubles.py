"""Small stand-ins for configured parts: backbones, a transform of two crops, and a data module."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor, nn

from vidclf.contracts import OfficialParts, PictureFormat, Video
from vidclf.data.addresses import Source
from vidclf.data.catalogue import Catalogue
from vidclf.data.corpus import Corpus
from vidclf.data.datasets.ucf101 import UCF101, official_parts
from vidclf.data.decoding import to_tensor
from vidclf.data.frames import FrameReader
from vidclf.data.sampling import Rate
from vidclf.data.splits import Official, Split
from vidclf.data.streams import Stream
from vidclf.data.transforms import BackboneTransform
from vidclf.datamodule import VideoDataModule
from vidclf.features.batches import StoredFeatures
from vidclf.features.extract import Extractor
from vidclf.features.recipe import Recipe, hash_weights, recipe_of
from vidclf.features.store import FeatureStore
from vidclf.models.aggregation import mean
from vidclf.models.backbones.wrap import FrozenBackbone, wrap
from vidclf.models.heads.mlp import MLP
from vidclf.models.learner import Learner
from vidclf.models.loss import CrossEntropy
from vidclf.models.scaling import Scaling
from vidclf.models.schedules import cosine
from vidclf.system.terminal import quiet_lightning

RECIPE = Recipe(*"BTSWND", 32)


class Images(nn.Module):
    """An image backbone with batch statistics and dropout, which must be off in a frozen one."""

    picture_format = PictureFormat(size=16, resize=20, mean=(0.4, 0.5, 0.6), std=(0.3, 0.2, 0.1))
    feature_dim = 6
    name = "pictures"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.convolution = nn.Conv2d(3, 6, 3)
        self.rest = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.rest(self.convolution(images.flatten(0, 1)))
        return maps.mean((2, 3)).unflatten(0, images.shape[:2])


class Clips(nn.Module):
    """A clip backbone: 4 frames in, S=2 steps out, each of two frames and their difference."""

    picture_format = PictureFormat(size=16, resize=20, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), clip_length=4)
    feature_dim = 5
    name = "clips"

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.convolution = nn.Conv3d(3, 5, (2, 3, 3), stride=(2, 1, 1))
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.convolution(images.transpose(1, 2)).mean((3, 4)).transpose(1, 2)  # (N, T / 2, 5)


@dataclass(frozen=True)
class TwoCrops:
    """The left and the right square of the resized frames, behind one another."""

    picture_format: PictureFormat
    num_crops: ClassVar[int] = 2
    random: ClassVar[bool] = False

    def __call__(self, frames: Tensor) -> Tensor:
        images = BackboneTransform(self.picture_format)
        size = min(frames.shape[-2:])
        crops = torch.stack([images(frames[..., :size]), images(frames[..., -size:])], dim=1)
        return crops.flatten(0, 1)  # (V * 2, T, 3, h, w)


def units(*frames: int) -> Tensor:
    """Return single frames as an image backbone's units."""
    return torch.tensor(frames)[:, None]


class Counter:
    """Counts the images that a backbone computes, without the zeros that pad a batch."""

    def __init__(self, backbone: nn.Module) -> None:
        self.count = 0
        backbone.register_forward_pre_hook(self._add)

    def _add(self, _: nn.Module, arguments: tuple[Tensor]) -> None:
        self.count += int(arguments[0].flatten(1).any(1).sum())


class UCF101Official(Official):
    """UCF101's official split, which knows the parts of its videos."""

    def __call__(self, videos: Sequence[Video], num_views: Sequence[int], *official: OfficialParts) -> Split:
        return super().__call__(videos, num_views, official_parts(videos, self.number, self.lists))


def make_corpus(root: Path, **settings: Any) -> Corpus:
    """Return the corpus of the UCF101 tree at `root`, with its catalogue beside the tree."""
    folder = Path(settings.pop("store", root.parent / "store"))
    defaults = {
        "dataset": settings.pop("dataset", None) or UCF101(root, on_error=settings.pop("on_error", "raise")),
        "split": Official(),
        "sampling": Rate(10),
    }
    folder.mkdir(exist_ok=True)
    return Corpus(catalogue=Catalogue(folder), **(defaults | settings)).look()


def make_stored(corpus: Corpus, root: Path, backbone: nn.Module | None = None, **settings: Any) -> StoredFeatures:
    """Return a source of stored features, its store beside the tree at `root`."""
    wrapped = wrap(backbone or Images())
    transform = settings.pop("transform", None) or BackboneTransform(wrapped.picture_format)
    nodes = {"backbone": {"_target_": type(wrapped.backbone).__qualname__}, "transform": {"_target_": repr(transform)}}
    weights = hash_weights(wrapped.backbone)
    number_format = getattr(wrapped.backbone, "precision", "float32")
    recipe = recipe_of(wrapped.backbone, transform, nodes, wrapped.picture_format, weights, number_format, "cpu", 32)
    extractor = Extractor([video.path for video in corpus.videos], transform, wrapped, torch.device("cpu"))
    store = FeatureStore(root.parent / "store", recipe, type(wrapped.backbone).__name__.lower())
    return StoredFeatures(store, extractor, corpus.facts, corpus.exclude, **settings)


def make_frames(corpus: Corpus, backbone: nn.Module | None = None, **settings: Any) -> FrameReader:
    """Return a source of images."""
    wrapped = wrap(backbone or Images())
    transform = settings.pop("transform", None) or BackboneTransform(wrapped.picture_format)
    paths = [video.path for video in corpus.videos]
    return FrameReader(paths, transform, corpus.exclude, backbone=wrapped, **settings)


def make_datamodule(root: Path, features: str = "store", transform: Any = None, **settings: Any) -> VideoDataModule:
    """Return a data module over the UCF101 tree at `root` whose features are stored, or whose frames are read."""
    corpus = make_corpus(root, **settings)
    make_source = {"store": partial(make_stored, root=root), "frames": make_frames}[features]
    module = VideoDataModule(corpus, make_source(corpus, transform=transform, seed=corpus.seed), batch_size=4)
    module.prepare(num_epochs=None)
    return module


def make_learner(
    backbone: FrozenBackbone, num_classes: int = 2, head: nn.Module | None = None, seed: int = 0, **settings: object
) -> Learner:
    """Return a learner with an MLP that drops half of its hidden numbers, or another head."""
    torch.manual_seed(seed)
    defaults = {
        "scaling": Scaling(backbone.feature_dim, "none" if head else "standard"),
        "aggregation": mean,
        "optimizer": partial(torch.optim.Adam, lr=0.01),
        "scheduler": cosine,
        "loss": CrossEntropy(num_classes),
    }
    head = head or MLP(backbone.feature_dim, num_classes, widths=(8,))
    return Learner(backbone, head=head, num_classes=num_classes, seed=seed, **(defaults | settings))


def make_trainer(**settings: object) -> L.Trainer:
    """Return a silent Trainer on the CPU, with the defaults of conf/."""
    quiet_lightning()
    defaults = {
        "accelerator": "cpu",
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "reload_dataloaders_every_n_epochs": 1,
    }
    return L.Trainer(**(defaults | settings))


def spoil(path: Path) -> Path:
    """Put garbage into the first four images of an AVI: it looks whole until it is decoded."""
    data = bytearray(path.read_bytes())
    start = data.index(b"movi") + 4
    for _ in range(4):
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        data[start + 8 + size // 4 : start + 8 + size] = b"\xa5" * (size - size // 4)
        start += 8 + size + size % 2
    path.write_bytes(data)
    return path


def halve(path: Path) -> Path:
    """Cut a file in half."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def stream_frames(address: str) -> tuple[float, list[tuple[float, Tensor]]]:
    """Return the rate of a stream, and its frames with their times."""
    stream = Stream(Source(address), threading.Event())
    return stream.fps, [(one.time_s, to_tensor(one.frame, VideoReformatter())) for one in stream.frames()]

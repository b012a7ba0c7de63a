"""Compare extraction with encoders of timm and transformers with the library's loop: same model, precision and batch.

The other side is the loop that a user of the library would write: frames by PyAV, the library's transform or
processor, a DataLoader with a worker for each core, batches through the model. Random weights.
"""

import statistics
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from experiments.benchmark.ours import FRAMES
from experiments.benchmark.setting import Setting, steady_rate
from vidclf.contracts import VideoViews
from vidclf.data.decoding import inspect
from vidclf.data.sampling import Rate, Uniform
from vidclf.data.transforms import BackboneTransform
from vidclf.features.extract import Extractor
from vidclf.models.backbones.timm_models import TimmBackbone
from vidclf.models.backbones.transformers_models import TransformersBackbone
from vidclf.models.backbones.wrap import FrozenBackbone, fixed_batch
from vidclf.system.machine import num_cores

TIMM = "vit_small_patch16_224.augreg_in21k_ft_in1k"
NUM_FRAMES = 16  # of VideoMAE's clips
LONGEST_S = 20  # of a steady state
CPU = torch.device("cpu")


def encoders(setting: Setting) -> dict[str, dict[str, float]]:
    """Return both sides' frames (for clip models: clips) a second for each library."""
    return {"timm, ViT-S/16": timm_images(setting), "transformers, VideoMAE-S": transformers_clips(setting)}


def timm_images(setting: Setting) -> dict[str, float]:
    import timm
    from PIL import Image

    network = FrozenBackbone(TimmBackbone(TIMM, weights=None))
    model = timm.create_model(TIMM, pretrained=False, num_classes=0).eval()
    dtype = getattr(torch, network.backbone.precision)
    model.to(dtype)
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))

    def examples(path: Path) -> Iterator[Tensor]:
        indices = set(Rate(1.0)(*_length(path)).flatten().tolist())
        for index, frame in enumerate(_frames(path)):
            if index in indices:
                yield transform(Image.fromarray(frame))

    return measure(network, Rate(1.0), examples, lambda batch: model(batch.to(dtype)), FRAMES, setting)


def transformers_clips(setting: Setting) -> dict[str, float]:
    import transformers

    folder = setting.work / "videomae"
    small = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
    transformers.VideoMAEModel(transformers.VideoMAEConfig(**small)).save_pretrained(folder)
    processor = transformers.VideoMAEVideoProcessor()
    processor.save_pretrained(folder)
    network = FrozenBackbone(TransformersBackbone(str(folder)))
    dtype = getattr(torch, network.backbone.precision)
    model = transformers.VideoMAEModel.from_pretrained(folder).eval().to(dtype)

    def examples(path: Path) -> Iterator[Tensor]:
        indices = Uniform(NUM_FRAMES)(*_length(path)).flatten().tolist()
        frames = list(islice(_frames(path), max(indices) + 1))
        clip = torch.stack([torch.from_numpy(frames[index]) for index in indices]).permute(0, 3, 1, 2)
        yield processor(clip, return_tensors="pt")["pixel_values"][0]

    size = fixed_batch("cpu", NUM_FRAMES)
    views = Uniform(NUM_FRAMES)
    return measure(
        network, views, examples, lambda batch: model(batch.to(dtype)).last_hidden_state.mean(1), size, setting
    )


def measure(
    network: FrozenBackbone,
    sampling: Any,
    examples: Callable[[Path], Iterator[Tensor]],
    compute: Callable[[Tensor], Tensor],
    size: int,
    setting: Setting,
) -> dict[str, float]:
    """Return frames or clips a second of our extraction and of the library's loop, taking turns, twice each."""
    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: ours(network, sampling, setting),
        "library": lambda: library(examples, compute, size, setting),
    }
    rates = [{name: side() for name, side in sides.items()} for _ in range(2)]
    return {name: statistics.mean(rate[name] for rate in rates) for name in sides}


def ours(network: FrozenBackbone, sampling: Any, setting: Setting) -> float:
    clip_length = network.picture_format.clip_length
    views = []
    for number, clip in enumerate(setting.clips):
        frames = sampling(*_length(clip)).reshape(-1, clip_length)
        views.append(VideoViews(number, 0, torch.arange(len(frames)), frames))
    transform = BackboneTransform(network.picture_format)
    extractor = Extractor(setting.clips, transform, network, CPU, num_cores(), compile=False)
    return steady_rate((len(one.frames) for one, _ in extractor.compute(views)), LONGEST_S)


@torch.inference_mode()
def library(
    examples: Callable[[Path], Iterator[Tensor]],
    compute: Callable[[Tensor], Tensor],
    size: int,
    setting: Setting,
) -> float:
    loader = DataLoader(
        _Examples(setting.clips, examples),
        batch_size=size,
        num_workers=num_cores(),
        drop_last=True,
        multiprocessing_context="fork",  # Linux's default until Python 3.14; a measure's process was spawned
    )
    return steady_rate((len(compute(batch)) for batch in loader), LONGEST_S)


class _Examples(IterableDataset):
    """Each worker decodes the videos of its share."""

    def __init__(self, paths: list[Path], examples: Callable[[Path], Iterator[Tensor]]) -> None:
        self.paths, self.examples = paths, examples

    def __iter__(self) -> Iterator[Tensor]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        for path in self.paths[worker.id :: worker.num_workers]:
            yield from self.examples(path)


def _length(path: Path) -> tuple[int, float]:
    info = inspect(path)
    return info.num_frames, info.fps


def _frames(path: Path) -> Iterator[Any]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")

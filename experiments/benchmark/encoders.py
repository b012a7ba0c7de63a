"""Encoders of timm and transformers: through vidclf's extraction, and in a loop as their own documentation writes it.

Both sides start from the same clips, want the same frames of them, and run the same network, at random weights, eager,
in the same number format and batch, on as many workers as there are cores. What differs is how pictures are decoded,
prepared and brought to the network.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import timm
import torch
import transformers
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from experiments.benchmark.setting import Setting, device
from vidclf.contracts import VideoViews
from vidclf.data.decoding import inspect
from vidclf.data.sampling import Rate
from vidclf.data.transforms import BackboneTransform
from vidclf.features.extract import Extractor
from vidclf.models.backbones.timm_models import TimmBackbone
from vidclf.models.backbones.transformers_models import TransformersBackbone
from vidclf.models.backbones.wrapped import fixed_batch, wrap
from vidclf.system.machine import num_cores

VIT = "vit_small_patch16_224"
VIDEOMAE = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}  # of 16 frames, else as the base
NUM_ROUNDS = 3
AGREES = 0.1  # relative: both are in bfloat16, where pictures are rounded to bytes at other places

Done = Iterator[tuple[Tensor, Tensor]]  # whose the features are, and the features


class Pictures(IterableDataset):
    """Yields (video, what `prepare` makes of it) of the wanted frames, each worker those of its own videos.

    `prepare` takes the decoded frames of a video and yields what the network takes in.
    """

    def __init__(self, clips: Sequence[Path], wanted: Sequence[VideoViews], prepare: Callable) -> None:
        self.clips, self.wanted, self.prepare = clips, wanted, prepare

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in range(first, len(self.clips), step):
            for inputs in self.prepare(read(self.clips[number], {*self.wanted[number].frames.flatten().tolist()})):
                yield number, inputs


class Images(NamedTuple):
    """Frames -> pictures, one by one, as timm prepares them."""

    transform: Callable

    def __call__(self, frames: Iterator[av.VideoFrame]) -> Iterator[Tensor]:
        return (self.transform(frame.to_image()) for frame in frames)


class Clip(NamedTuple):
    """Frames -> one clip, as a processor of transformers prepares it."""

    processor: Callable

    def __call__(self, frames: Iterator[av.VideoFrame]) -> Iterator[Tensor]:
        video = torch.stack([torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in frames])
        yield self.processor(video.permute(0, 3, 1, 2), return_tensors="pt").pixel_values[0]


def read(path: Path, wanted: set[int]) -> Iterator[av.VideoFrame]:
    """Yield the wanted frames of a video, from one pass that ends with the last of them."""
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                yield frame
            if number == max(wanted):
                return


def pictures(setting: Setting) -> dict[str, Any]:
    """Return the frames a second of a ViT-S/16 of timm, one frame of each second."""
    backbone = TimmBackbone(VIT, weights=None)
    network = timm.create_model(VIT, num_classes=0).eval()
    network.load_state_dict(backbone.network.state_dict())
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    infos = [inspect(clip) for clip in setting.clips]
    views = [views_of(number, Rate(1.0)(info.num_frames, info.fps)) for number, info in enumerate(infos)]

    def features(inputs: Tensor) -> Tensor:
        return network.forward_head(network.forward_features(inputs), pre_logits=True)

    return compare(setting.clips, views, backbone, network, features, Images(transform))


def clips(setting: Setting) -> dict[str, Any]:
    """Return the frames a second of a small VideoMAE of transformers, the 16 frames in the middle of each video."""
    folder = setting.work / "videomae"
    transformers.VideoMAEModel(transformers.VideoMAEConfig(**VIDEOMAE)).save_pretrained(folder)
    transformers.VideoMAEVideoProcessor().save_pretrained(folder)
    backbone = TransformersBackbone(str(folder))
    network = transformers.VideoMAEModel.from_pretrained(folder).eval()
    processor = transformers.AutoVideoProcessor.from_pretrained(folder)
    length, num_steps = backbone.picture_format.clip_length, backbone.num_steps
    starts = [(inspect(clip).num_frames - length) // 2 for clip in setting.clips]
    views = [views_of(number, torch.arange(start, start + length)[None]) for number, start in enumerate(starts)]

    def features(inputs: Tensor) -> Tensor:
        return network(pixel_values=inputs).last_hidden_state.unflatten(1, (num_steps, -1)).mean(2)

    return compare(setting.clips, views, backbone, network, features, Clip(processor))


def views_of(number: int, frames: Tensor) -> VideoViews:
    return VideoViews(number, 0, torch.arange(len(frames)), frames)


def compare(
    paths: Sequence[Path],
    views: Sequence[VideoViews],
    backbone: nn.Module,
    network: nn.Module,
    features: Callable[[Tensor], Tensor],
    prepare: Callable,
) -> dict[str, Any]:
    """Return each side's frames a second, by turns, and how far the first video's features are from the other's."""
    network.to(device())
    wrapped = wrap(backbone)
    transform = BackboneTransform(wrapped.picture_format)
    batch = fixed_batch(device(), wrapped.picture_format.clip_length)
    precision = str(backbone.precision)

    def ours() -> Done:
        extractor = Extractor(paths, transform, wrapped, torch.device(device()), num_cores(), compile=False)
        for one, found in extractor.compute(views):
            yield torch.full((len(found),), one.video), found.flatten(0, 1)

    @torch.inference_mode()
    def theirs() -> Done:
        loader = DataLoader(Pictures(paths, views, prepare), batch_size=batch, num_workers=num_cores())
        for videos, inputs in loader:
            with torch.autocast(device(), torch.bfloat16, enabled=precision == "bfloat16"):
                yield videos, features(inputs.to(device())).float().cpu()

    rounds = [[rate_and_first(side(), views[0].frames.shape[1]) for side in (ours, theirs)] for _ in range(NUM_ROUNDS)]
    first, other = (side[1].flatten().float() for side in rounds[0])
    difference = float((first - other).norm() / other.norm())
    assert difference < AGREES, f"the two sides compute other features: {difference:.2g} apart"
    rates = [statistics.median(rate for rate, _ in side) for side in zip(*rounds, strict=True)]
    return {
        "ours_frames_per_s": rates[0],
        "library_frames_per_s": rates[1],
        "difference": difference,
        "batch": batch,
        "precision": precision,
    }


def rate_and_first(results: Done, num_frames: int) -> tuple[float, Tensor]:
    """Return the frames a second from the first result to the last, and the features of the first video."""
    ends, counts, of_first = list[float](), list[int](), list[Tensor]()
    for videos, found in results:
        ends.append(time.perf_counter())
        counts.append(len(videos))
        of_first.append(found[videos == 0])
    return num_frames * sum(counts[1:]) / (ends[-1] - ends[0]), torch.cat(of_first)

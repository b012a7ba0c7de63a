"""Compare backbones in 8-bit integers with bfloat16: images a second, alone and end to end, and the error."""

from collections.abc import Callable, Iterator
from itertools import islice

import lightning as L
import torch
from torch import Tensor, nn

from experiments.benchmark.ours import FRAMES, one_a_second
from experiments.benchmark.setting import Setting, median_s, steady_rate
from vidclf.data.decoding import iterate_frames
from vidclf.data.transforms import BackboneTransform
from vidclf.features.extract import Extractor
from vidclf.models.backbones.int8 import Int8Backbone
from vidclf.models.backbones.torchvision_models import ImageBackbone
from vidclf.models.backbones.wrap import FrozenBackbone
from vidclf.system.machine import num_cores

LONGEST_S = 20  # of a steady state
NUM_CALIBRATED = 4  # batches: as many images as a run draws
CPU = torch.device("cpu")


def int8(setting: Setting) -> dict[str, dict[str, float]]:
    """Return the frames a second of each network in both formats, and the error of its features against float32."""
    return {name: measure(make, setting) for name, make in networks().items()}


def networks() -> dict[str, Callable[[str], nn.Module]]:
    """Return functions that make each network in a precision; weights are random, except Lite0's from pip."""
    found: dict[str, Callable[[str], nn.Module]] = {
        name: lambda precision, name=name: ImageBackbone(name, weights=None, precision=precision)
        for name in ("vgg16", "resnet50", "vit_b_16")
    }
    try:
        from experiments.real.lite0 import Lite0
    except ImportError:  # pip install -e '.[real]'
        return found
    return {**found, "efficientnet_lite0": Lite0}


def measure(make: Callable[[str], nn.Module], setting: Setting) -> dict[str, float]:
    L.seed_everything(0, verbose=False)
    exact = FrozenBackbone(make("float32").eval())
    rounded = make("bfloat16").eval()
    rounded.load_state_dict(exact.backbone.state_dict())
    network = Int8Backbone(exact.backbone)
    batches = list(islice(images(exact, setting), NUM_CALIBRATED + 1))
    network.calibrate(batches[:-1])
    sides = {"bfloat16": FrozenBackbone(rounded), "int8": FrozenBackbone(network)}
    right, result = exact(batches[-1]), {}
    for name, side in sides.items():
        result[f"{name}_alone_frames_per_s"] = FRAMES / median_s(lambda side=side: side(batches[0]))
        result[f"{name}_error"] = float((side(batches[-1]).float() - right).norm() / right.norm())
        result[f"{name}_frames_per_s"] = end_to_end(side, setting)
    return result


def images(network: FrozenBackbone, setting: Setting) -> Iterator[Tensor]:
    """Yield batches of the twin's images, one a second."""
    transform, waiting = BackboneTransform(network.picture_format), torch.empty(0)
    for number, clip in enumerate(setting.clips):
        frames = one_a_second(number, clip).frames
        decoded = torch.stack([frame for _, frame in iterate_frames(clip, frames.flatten().tolist(), whole=True)])
        found = transform(decoded[:, None])
        waiting = torch.cat([waiting, found]) if len(waiting) else found
        while len(waiting) >= FRAMES:
            yield waiting[:FRAMES]
            waiting = waiting[FRAMES:]


def end_to_end(network: FrozenBackbone, setting: Setting) -> float:
    """Return the frames a second of an extraction's steady state, decoding included."""
    views = [one_a_second(number, clip) for number, clip in enumerate(setting.clips)]
    extractor = Extractor(
        setting.clips, BackboneTransform(network.picture_format), network, CPU, num_cores(), compile=False
    )
    return steady_rate((len(one.frames) for one, _ in extractor.compute(views)), LONGEST_S)

"""Measure `predict` along the time of a long video, against decoding it once and the backbone alone."""

import statistics
from pathlib import Path

import torch
from torch import nn

from experiments.benchmark.int8 import networks
from experiments.benchmark.setting import Setting, device, timed
from experiments.benchmark.twin import LONGEST, Clip, Source, cut, encode
from vidclf.contracts import VideoViews
from vidclf.data.decoding import inspect
from vidclf.data.sampling import Rate
from vidclf.data.transforms import BackboneTransform
from vidclf.features.extract import Extractor
from vidclf.models.aggregation import mean
from vidclf.models.backbones.tiny import Tiny
from vidclf.models.backbones.wrap import wrap
from vidclf.models.classifier import Classifier
from vidclf.models.heads.linear import Linear
from vidclf.models.scaling import Scaling
from vidclf.prediction.files import Predictor
from vidclf.prediction.timeline import Timeliner, look_at_films
from vidclf.prediction.windows import Windows
from vidclf.system.machine import num_cores

NUM_REPEATS = 9  # of the twin's longest clip: 10 minutes
RATE_HZ, WINDOW_S, STRIDE_S = 2, 2, 1
NUM_ROUNDS = 3


def timeline(setting: Setting) -> dict[str, dict[str, float]]:
    """Return the seconds that labelling a film takes, of decoding it and the backbone, and of looking at it."""
    clip, film = Clip("film", NUM_REPEATS * LONGEST), setting.work / "film.avi"
    once = encode(clip.kind, clip.rate)
    cut(Source(once.container, once.packets * NUM_REPEATS), clip, film)
    lite0 = {name: make for name, make in networks().items() if name == "efficientnet_lite0"}
    return {name: measure(film, make()) for name, make in ({"tiny": Tiny} | lite0).items()}


def measure(film: Path, backbone: nn.Module) -> dict[str, float]:
    network = wrap(backbone)
    scaling, head = Scaling(backbone.feature_dim, "none"), Linear(backbone.feature_dim, num_classes=8)
    classifier = Classifier(network, scaling, head, mean)
    names = [f"class {number}" for number in range(8)]
    transform = BackboneTransform(network.picture_format)
    predictor = Predictor(classifier, Rate(RATE_HZ), transform, names, torch.device(device()))
    windows = Windows(WINDOW_S, STRIDE_S, RATE_HZ)
    timeliner = Timeliner(predictor, windows)
    info = inspect(film)
    frames = Rate(RATE_HZ)(info.num_frames, info.fps)  # of all windows, each once
    views = VideoViews(0, 0, torch.arange(len(frames)), frames)
    extractor = Extractor([film], transform, network, torch.device(device()), num_cores())

    def look() -> None:
        list(look_at_films([film], windows, num_cores(), skip=False))

    def label() -> None:
        for path, seen in look_at_films([film], windows, num_cores(), skip=False):
            list(timeliner.bouts(path, seen))

    sides = {
        "predict_s": label,
        "decoding_and_backbone_s": lambda: list(extractor.compute([views])),
        "looking_s": look,
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(NUM_ROUNDS):  # taking turns
        for name, work in sides.items():
            times[name].append(timed(work)[0])
    return {name: statistics.median(seconds) for name, seconds in times.items()}

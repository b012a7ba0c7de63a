"""Measure our side: extraction, the training step, bfloat16's error and the store, by vidclf's functions."""

import hashlib
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from experiments.benchmark.backbones import Wide
from experiments.benchmark.heads import EpochEnds
from experiments.benchmark.limits import read_file, ready_images, vgg16
from experiments.benchmark.setting import Setting, arrivals, device, median_s, now, timed, twin
from vidclf.build.training import build_learner, build_optimizer, build_trainer
from vidclf.contracts import VideoViews
from vidclf.data.catalogue import Catalogue
from vidclf.data.corpus import Corpus
from vidclf.data.datasets.ucf101 import UCF101
from vidclf.data.decoding import decode_frames, inspect
from vidclf.data.sampling import Rate
from vidclf.data.splits import Official
from vidclf.data.transforms import TutorialTransform
from vidclf.datamodule import VideoDataModule
from vidclf.features.batches import StoredFeatures
from vidclf.features.extract import Extractor
from vidclf.features.recipe import Recipe
from vidclf.features.store import FeatureStore
from vidclf.models.backbones.wrap import fixed_batch, wrap
from vidclf.models.learner import Learner
from vidclf.run.config import CONF, HYDRA, OPTIONAL_GROUPS
from vidclf.system.machine import num_cores
from vidclf.system.terminal import quiet_lightning

LONGEST_S = 90  # of the steady state
CPU = torch.device("cpu")
FRAMES = fixed_batch(device(), 1)
NUM_PARTS = 5  # of it, each of which gives a rate
NUM_ROUNDS = 3  # in which Lightning's loop and the bare one take turns
NUM_CLASSES = 101
NUM_VIDEOS = 13320
RATE_HZ = 4  # of the frames whose stand-in features are trained on: some 20 batches of the 1 % twin


def extraction(setting: Setting) -> dict[str, float | str]:
    """Return the steady state's frames and videos a second of compiled VGG16, and what comes before it in seconds."""
    build_s, network = timed(lambda: vgg16("auto"))
    compile_s, _ = timed(lambda: network.compile_layers(ready_images(network)))
    transform = TutorialTransform(network.picture_format)
    views = [one_a_second(number, clip) for number, clip in enumerate(setting.clips)]
    extractor = Extractor(setting.clips, transform, network, torch.device(device()), num_cores())
    begin = now()
    ends, counts = arrivals((len(one.frames) for one, _ in extractor.compute(views)), LONGEST_S)
    rates = rates_of_parts(ends, counts)
    return {
        "frames_per_s": statistics.median(rates),
        "slowest_part_frames_per_s": min(rates),
        "videos_per_s": statistics.median(rates) * len(counts) / sum(counts),
        "build_s": build_s,
        "compile_s": compile_s,
        "first_video_s": ends[0] - begin,
        "precision": str(network.backbone.precision),
    }


def one_a_second(number: int, clip: Path) -> VideoViews:
    """Return a view of each second's first frame."""
    info = inspect(clip)
    frames = Rate(1.0)(info.num_frames, info.fps)
    return VideoViews(number, 0, torch.arange(len(frames)), frames)


def rates_of_parts(ends: list[float], counts: list[int]) -> list[float]:
    """Return the frames a second of each of NUM_PARTS equal parts, from the videos' ends and numbers of frames.

    A part goes from the end of one batch to the end of a later one: a video ends with the batch of its last frame.
    """
    batches: dict[int, float] = {}  # number of the batch -> its end
    for end, total in zip(ends, accumulate(counts), strict=True):
        batches.setdefault(-(-total // FRAMES), end)
    marks = list(batches.items())
    bounds = [marks[round(part * (len(marks) - 1) / NUM_PARTS)] for part in range(NUM_PARTS + 1)]
    return [FRAMES * (last - first) / (end - begin) for (first, begin), (last, end) in pairwise(bounds)]


def training(setting: Setting) -> dict[str, float | str]:
    """Return the seconds of a step of the dense network under Lightning and in a bare loop, taking turns."""
    quiet_lightning()
    rounds = []
    with wide_features(setting, RATE_HZ) as make:
        datamodule = make()
        for _ in range(NUM_ROUNDS):
            trainer, lightning_s = fit(datamodule)
            rounds.append((lightning_s, bare_epoch_s(trainer, datamodule)))
    lightning_s, bare_s = (statistics.median(times) for times in zip(*rounds, strict=True))
    num_steps = int(trainer.num_training_batches)
    return {
        "step_s": lightning_s / num_steps,
        "bare_step_s": bare_s / num_steps,
        "steps": num_steps,
        "precision": str(trainer.precision),
    }


@contextmanager
def wide_features(setting: Setting, rate_hz: float) -> Iterator[Callable[[], VideoDataModule]]:
    """Return a maker of data modules of the twin, with stored stand-in features as wide as VGG16's."""
    backbone = wrap(Wide())
    transform = TutorialTransform(backbone.picture_format)
    with TemporaryDirectory(dir=setting.work) as store:

        def make() -> VideoDataModule:
            corpus = Corpus(UCF101(twin(setting.size)), Official(), Rate(rate_hz)).look(Catalogue(Path(store)))
            extractor = Extractor([video.path for video in corpus.videos], transform, backbone, CPU, num_cores())
            kept = FeatureStore(Path(store), Recipe(*"BTSWND", 32), "wide")
            source = StoredFeatures(kept, extractor, corpus.facts, corpus.exclude)
            source.prepare([*corpus.views("train"), *corpus.views("val")])
            return VideoDataModule(corpus, source)

        make()
        yield make


def configuration() -> dict[str, Any]:
    """Return the configuration of `vidclf train experiment=tutorial`, without its validation."""
    settings = ["trainer.max_epochs=3", "+trainer.limit_val_batches=0", "~callbacks", "~logger"]
    with initialize_config_dir(CONF, **HYDRA):
        cfg = compose("train", ["experiment=tutorial", *settings])
    return {**dict.fromkeys(OPTIONAL_GROUPS), **OmegaConf.to_container(cfg, resolve=True)}


def fit(datamodule: VideoDataModule) -> tuple[L.Trainer, float]:
    """Return vidclf's Trainer after three epochs, and the mean of the last two's seconds."""
    config, ends = configuration(), EpochEnds()
    trainer = build_trainer(config, datamodule.source.extractor.backbone, callbacks=[ends])
    trainer.fit(scaled_classifier(config, datamodule), datamodule=datamodule)
    return trainer, (ends.times[-1] - ends.times[0]) / 2


def scaled_classifier(config: dict[str, Any], datamodule: VideoDataModule) -> Learner:
    """Return the dense network behind its scaling, which is fitted on the training features."""
    backbone = datamodule.source.extractor.backbone
    classifier = build_learner(config, backbone, NUM_CLASSES)
    classifier.scaling.fit(datamodule.labelled("train")[0])
    return classifier


def bare_epoch_s(trainer: L.Trainer, datamodule: VideoDataModule) -> float:
    """Return the seconds of an epoch of the same arithmetic: the mean of two after one of warm-up."""
    config = configuration()
    classifier = scaled_classifier(config, datamodule).to(device()).train()
    scaling, head, loss_of = classifier.scaling, classifier.head, classifier.loss
    optimizer = build_optimizer(config, datamodule.source.extractor.backbone)(head.parameters())
    ends = []
    for _ in range(3):
        for batch in datamodule.train_dataloader():
            with trainer.precision_plugin.train_step_context():
                features = scaling(batch.inputs.to(device()).to(classifier.dtype))
                loss = loss_of(head(features), batch.labels.to(device()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ends.append(now())
    return (ends[-1] - ends[0]) / 2


def bfloat16_error(setting: Setting) -> dict[str, float]:
    """Return the relative error of VGG16's features in bfloat16 against float32, on decoded images, by norms."""
    networks = {name: vgg16(name) for name in ("float32", "bfloat16")}
    transform = TutorialTransform(networks["float32"].picture_format)
    clips = setting.clips[:: len(setting.clips) // 8][:8]
    frames = torch.cat([decode_frames(clip, one_a_second(0, clip).frames) for clip in clips])[: 2 * FRAMES]
    images = transform(frames).to(device())
    exact, rounded = (network(images).float().cpu().flatten() for network in networks.values())
    difference = rounded - exact
    return {
        "relative": float(difference.norm() / exact.norm()),
        "largest": float(difference.abs().max()),
        "largest_feature": float(exact.abs().max()),
        "pictures": len(images),
    }


def missing(setting: Setting) -> dict[str, float]:
    """Return the seconds in which a store of 13,320 videos lists missing features: the first time, and later."""
    contents = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(NUM_VIDEOS)]
    units = torch.arange(0, 186, 25)[:, None]
    wanted = [(content, units) for content in contents]
    with TemporaryDirectory(dir=setting.work) as folder:
        store = partial(FeatureStore, Path(folder), Recipe(*"BTSWND", 32), "none")
        features = torch.zeros(len(units), 1, 1, 1)
        with ThreadPoolExecutor(8) as pool:  # each waits for the disk
            list(pool.map(lambda content: store().add(content, units, features), contents))
        first_s, of_first = timed(lambda: store().missing_of_all(wanted))
        later_s = median_s(lambda: store().missing_of_all(wanted))
    assert not any(map(len, of_first))
    return {"first_s": first_s, "later_s": later_s}


def gathering(setting: Setting) -> dict[str, float | str]:
    """Return the GB/s of reading stored features into a tensor, and of reading their files from the page cache."""
    with wide_features(setting, rate_hz=1) as make:
        modules = [make() for _ in range(1 + NUM_ROUNDS)]
        runs = [timed(lambda one=one: one.source.features(one.training_views(0))) for one in modules][1:]
        features = runs[0][1]
        files = list(modules[0].source.store.folder.rglob("*.safetensors"))
        buffer = torch.empty(sum(path.stat().st_size for path in files), dtype=torch.uint8)
        read_s = median_s(lambda: read_files(files, buffer))
    return {
        "gb_per_s": features.nbytes / statistics.median(seconds for seconds, _ in runs) / 1e9,
        "files_gb_per_s": len(buffer) / read_s / 1e9,
        "gb": features.nbytes / 1e9,
        "rows": len(features),
        "format": str(features.dtype).removeprefix("torch."),
    }


def read_files(paths: list[Path], buffer: Tensor) -> None:
    """Read all files one after another into `buffer`."""
    end = 0
    for path in paths:
        end += read_file(path, buffer[end:])

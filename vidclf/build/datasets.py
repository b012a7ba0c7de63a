"""From a verb's configuration to the videos that it reads, and to what gives batches of them."""

from pathlib import Path

import torch

from vidclf.build.parts import Config, build, build_transform, call
from vidclf.contracts import Transform
from vidclf.data.catalogue import Catalogue
from vidclf.data.corpus import Corpus
from vidclf.data.frames import FrameReader, num_workers_for
from vidclf.errors import VidclfError
from vidclf.features.batches import StoredFeatures
from vidclf.features.calibration import calibrate
from vidclf.features.extract import Extractor
from vidclf.features.recipe import hash_weights, recipe_of, why_not_stored
from vidclf.features.store import REMEDY, FeatureStore
from vidclf.models.backbones.int8 import Int8Backbone
from vidclf.models.backbones.wrapped import FrozenBackbone, TunedBackbone, fixed_batch
from vidclf.system.disk import writing_to
from vidclf.system.machine import num_cores, set_number_formats
from vidclf.system.ranks import gather, is_rank_zero, local_world_size
from vidclf.system.terminal import say

FEATURES = ("auto", "store", "frames")


def build_corpus(config: Config, shard: tuple[int, int] = (1, 1)) -> Corpus:
    """Return the videos of the data set, looked at and split; see `Corpus`."""
    root = Path(config["store"]["root"])
    with writing_to(root, REMEDY):
        root.mkdir(parents=True, exist_ok=True)
    return Corpus(
        build(config["dataset"]),
        build(config["split"]),
        build(config["sampling"]),
        Catalogue(root),
        config["seed"],
        _num_threads(config),
        shard,
    )


def calibrate_int8(
    config: Config, backbone: FrozenBackbone | TunedBackbone, corpus: Corpus, shard: tuple[int, int] = (1, 1)
) -> bool:
    """Calibrate an int8 backbone that no run tells how, and let the configuration tell it; return whether it was one.

    The first process does it for all, and draws from all training videos, whichever shard of them the corpus has.
    """
    network, node = backbone.backbone, config["backbone"]
    if not isinstance(network, Int8Backbone) or network.ranges is not None:
        return False
    ranges = None
    if is_rank_zero():
        corpus = corpus if shard == (1, 1) else build_corpus(config)
        transform = build_transform(config, network.picture_format)
        recipe = {"backbone": node, "transform": config["transform"]}
        ranges = calibrate(network, transform, recipe, corpus, config["seed"], Path(config["store"]["root"]))
    network.ranges = node["calibration"] = gather(ranges)[0]
    return True


def build_source(
    config: Config,
    corpus: Corpus,
    backbone: FrozenBackbone | TunedBackbone,
    device: torch.device,
    training: bool = False,
    stored: bool = True,
) -> StoredFeatures | FrameReader:
    """Return what gives batches of the corpus: stored features where `features` and the stages allow it, else frames.

    Args:
        config: of the verb.
        corpus: whose videos are read.
        backbone: what the features are of.
        device: where it computes.
        training: whether training views are augmented.
        stored: False: frames, whatever the configuration says.

    Raises:
        VidclfError: `features=store` where features cannot be stored, or an augmentation would belie the classes.
    """
    transform = build_transform(config, backbone.picture_format)
    augmentation = build(config["augmentation"]) if training else None
    if augmentation:
        augmentation = call(augmentation, backbone.picture_format)
        if hasattr(augmentation, "check_classes"):  # one's own need not have it
            augmentation.check_classes(corpus.class_names)
    obstacle = why_not_stored(backbone.backbone, transform, augmentation)
    if _choose_features(config["features"], obstacle) and stored:
        return _stored_features(config, corpus, backbone, transform, device, training)
    num_workers = config["num_workers"]
    if num_workers is None:
        num_epochs = (config["trainer"]["max_epochs"] or 1000) if training else 1
        num_frames = num_epochs * sum(facts.info.num_frames for facts in corpus.facts.values())
        num_workers = num_workers_for(num_frames, max(1, num_cores() // local_world_size()))
    paths, pin = [video.path for video in corpus.videos], device.type == "cuda"
    return FrameReader(paths, transform, corpus.leave_out, augmentation, config["seed"], num_workers, pin)


def _stored_features(
    config: Config,
    corpus: Corpus,
    backbone: FrozenBackbone | TunedBackbone,
    transform: Transform,
    device: torch.device,
    training: bool,
) -> StoredFeatures:
    network, root, draws = backbone.backbone, Path(config["store"]["root"]), config["store"]["draws"]
    recipe = recipe_of(
        network,
        transform,
        {key: config[key] for key in ("backbone", "transform")},
        backbone.picture_format,
        hash_weights(network),
        getattr(network, "precision", set_number_formats(device.type)),
        device.type,
        fixed_batch(device.type, backbone.picture_format.clip_length),
    )
    if training and corpus.sampling.random:
        say(f"features are stored: epoch e shows draw e modulo {draws} of its views (store.draws).")
    return StoredFeatures(
        FeatureStore(root, recipe, getattr(network, "name", type(network).__name__.lower())),
        Extractor(
            [video.path for video in corpus.videos],
            transform,
            backbone,
            device,
            _num_threads(config),
            config["compile"],
        ),
        {video: facts.content for video, facts in corpus.facts.items()},
        corpus.leave_out,
        draws,
        config["seed"],
    )


def _choose_features(features: str, obstacle: str | None) -> bool:
    """Return whether features are stored."""
    if features not in FEATURES:
        raise VidclfError(f"features={features}: unknown; use one of {', '.join(FEATURES)}.")
    if features == "store" and obstacle:
        raise VidclfError(f"features=store: {obstacle}. Use features=frames or features=auto.")
    if features == "auto" and obstacle:
        say(f"features=auto reads frames, not the store: {obstacle}.")
    return features != "frames" and obstacle is None


def _num_threads(config: Config) -> int:
    """Return how many videos this process decodes at once."""
    num_threads = config["num_threads"]
    if num_threads is not None and num_threads < 1:
        raise VidclfError(f"num_threads={num_threads}: it must be 1 or more.")
    return num_threads or max(1, num_cores() // local_world_size())

"""Build the corpus and the sources of batches from a verb's configuration."""

from pathlib import Path

import torch

from vidclf.build.parts import build_node, build_transform, call_factory
from vidclf.contracts import Augmentation, Backbone, Source, Transform, optional
from vidclf.data.catalogue import Catalogue
from vidclf.data.corpus import Corpus
from vidclf.data.frames import FrameReader, num_workers_for
from vidclf.errors import VidclfError
from vidclf.features.batches import StoredFeatures
from vidclf.features.extract import Extractor
from vidclf.features.recipe import hash_weights, recipe_of, why_not_storable
from vidclf.features.store import REMEDY, FeatureStore
from vidclf.models.backbones.wrap import FrozenBackbone, TunedBackbone, fixed_batch
from vidclf.run.config import Config
from vidclf.system.disk import writing_to
from vidclf.system.machine import num_cores, set_number_formats
from vidclf.system.ranks import local_world_size
from vidclf.system.terminal import say

FEATURES = ("auto", "store", "frames")


def build_corpus(config: Config, shard: tuple[int, int] = (1, 1), kind: type[Corpus] = Corpus) -> Corpus:
    """Return the videos of the data set and their parts; call its `look` before anything that needs their facts."""
    root = Path(config["store"]["root"])
    with writing_to(root, REMEDY):
        root.mkdir(parents=True, exist_ok=True)
    dataset, split, sampling = (build_node(config[key]) for key in ("dataset", "split", "sampling"))
    return kind(dataset, split, sampling, Catalogue(root), config["seed"], _num_threads(config), shard)


def build_source(
    config: Config,
    corpus: Corpus,
    backbone: FrozenBackbone | TunedBackbone,
    device: torch.device,
    training: bool = False,
    stored: bool = True,
) -> Source:
    """Return the source of batches: stored features if `features` and the stages allow it, else frames.

    Args:
        config: of the verb.
        corpus: of videos.
        backbone: computes the features on `device`.
        device: of the backbone.
        training: whether training views are augmented.
        stored: False for frames, whatever `features` says.

    Raises:
        VidclfError: `features=store`, but features cannot be stored; or an augmentation would make labels wrong.
    """
    transform = build_transform(config, backbone.picture_format)
    augmentation = build_node(config["augmentation"]) if training else None
    if augmentation:
        augmentation = call_factory(augmentation, backbone.picture_format)
        if check_classes := optional(augmentation, Augmentation, "check_classes"):
            check_classes(corpus.class_names)
    obstacle = why_not_storable(backbone.backbone, transform, augmentation)
    if _choose_features(config["features"], obstacle) and stored:
        return build_stored_features(config, corpus, backbone, transform, device, training)
    num_workers = config["num_workers"]
    if num_workers is None:
        num_epochs = (config["trainer"]["max_epochs"] or 1000) if training else 1
        num_frames = num_epochs * sum(facts.info.num_frames for facts in corpus.facts.values())
        num_workers = num_workers_for(num_frames, max(1, num_cores() // local_world_size()))
    paths = [video.path for video in corpus.videos]
    return FrameReader(paths, transform, corpus.exclude, augmentation, config["seed"], num_workers, backbone, device)


def build_stored_features(
    config: Config,
    corpus: Corpus,
    backbone: FrozenBackbone | TunedBackbone,
    transform: Transform,
    device: torch.device,
    training: bool = False,
) -> StoredFeatures:
    """Return the source of stored features; call `why_not_storable` first."""
    draws = config["store"]["draws"]
    if training and corpus.is_random:
        say(f"features are stored: epoch e uses draw e modulo {draws} of the training views (store.draws).")
    paths = [video.path for video in corpus.videos]
    extractor = Extractor(paths, transform, backbone, device, _num_threads(config), config["compile"])
    return StoredFeatures(
        build_store(config, backbone, transform, device),
        extractor,
        corpus.facts,
        corpus.exclude,
        draws if corpus.is_random else 1,
        config["seed"],
    )


def build_store(
    config: Config, backbone: FrozenBackbone | TunedBackbone, transform: Transform, device: torch.device
) -> FeatureStore:
    """Return the store of the features that `backbone` computes on `device`; call `why_not_storable` first."""
    network = backbone.backbone
    default_format = set_number_formats(device.type)
    number_format = optional(network, Backbone, "precision") or default_format
    recipe = recipe_of(
        network,
        transform,
        {key: config[key] for key in ("backbone", "transform")},
        backbone.picture_format,
        hash_weights(network),
        f"{number_format} {optional(network, Backbone, 'arithmetic')}".strip(),
        device.type,
        fixed_batch(device.type, backbone.picture_format.clip_length),
    )
    shape = optional(transform, Transform, "num_crops"), backbone.feature_dim
    return FeatureStore(Path(config["store"]["root"]), recipe, backbone.name, shape)


def _choose_features(features: str, obstacle: str | None) -> bool:
    """Return whether to store features."""
    if features not in FEATURES:
        raise VidclfError(f"features={features}: unknown; use one of {', '.join(FEATURES)}.")
    if features == "store" and obstacle:
        raise VidclfError(f"features=store: {obstacle}. Use features=frames or features=auto.")
    if features == "auto" and obstacle:
        say(f"features=auto reads frames, not the store: {obstacle}.")
    return features != "frames" and obstacle is None


def _num_threads(config: Config) -> int:
    """Return the number of videos that this process decodes at once."""
    return config["num_threads"] or max(1, num_cores() // local_world_size())

"""From a verb's configuration, plain data, to the objects it names: the only place where it meets constructors."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from omegaconf import OmegaConf
from torch import Tensor, nn

from vidclf.contracts import PictureFormat, Transform
from vidclf.data.catalogue import Catalogue
from vidclf.data.corpus import Corpus
from vidclf.data.frames import FrameReader, num_workers_for
from vidclf.errors import VidclfError
from vidclf.features.batches import StoredFeatures
from vidclf.features.extract import Extractor
from vidclf.features.recipe import hash_weights, recipe_of, why_not_stored
from vidclf.features.store import REMEDY, FeatureStore
from vidclf.models.backbones.trainable import resolve_precision
from vidclf.models.backbones.wrapped import FrozenBackbone, TunedBackbone, fixed_batch, wrap
from vidclf.models.classifier import Classifier
from vidclf.models.scaling import Scaling, scaling_of
from vidclf.run.compatible import check_weights
from vidclf.run.config import escaped
from vidclf.run.folder import Run, load_trained
from vidclf.run.trust import walk
from vidclf.system.disk import writing_to
from vidclf.system.machine import num_cores, set_number_formats
from vidclf.system.ranks import num_here
from vidclf.system.terminal import progress_bar, say

Config = Mapping[str, Any]
FEATURES = ("auto", "store", "frames")
METRICS = ("train/loss", "train/view_top1", "val/loss", "val/view_top1", "val/top1")  # that training logs
TAKES_WHITELIST = "_execution_whitelist_" in signature(instantiate).parameters  # Hydra from 1.4 on


def build(node: Config | None, **changed: object) -> Any:
    """Instantiate one node, with some of its keys changed; None where nothing is chosen."""
    if not node:
        return None
    plain = {**node, **changed}
    whitelist = {}
    if TAKES_WHITELIST:
        named = [value for path, value in walk(plain) if path[-1] == "_target_"]  # looked through before, by `trust`
        whitelist = {"_execution_whitelist_": named}
    return instantiate(escaped(escaped(plain)), _convert_="object", **whitelist)  # it resolves twice


def build_backbone(config: Config) -> FrozenBackbone | TunedBackbone:
    """Return the backbone as it is used; weights that it has none of are drawn from the seed."""
    L.seed_everything(config["seed"], workers=True, verbose=False)
    return wrap(build(settle_precision(config)["backbone"]))


def rebuild(config: Config, run: Run) -> Classifier:
    """Return a run's classifier as it was trained, or with what differs in `config`.

    Raises:
        VidclfError: the backbone or the head is not the run's.
    """
    backbone = build_backbone(config)
    check_weights(run, hash_weights(backbone.backbone))
    classifier = build_classifier(config, backbone, len(run.class_names))
    load_trained(run, classifier)
    return classifier


def settle_precision(config: Config) -> dict[str, Any]:
    """Return the configuration with `backbone.precision=auto` named after the kind of device that is used.

    So a run keeps it: its weights' hash is that of one number format.
    """
    node = config["backbone"]
    if node.get("precision") != "auto" or not str(node["_target_"]).startswith("vidclf."):
        return dict(config)
    device_type = "cpu" if config["trainer"].get("accelerator") == "cpu" else None
    name = resolve_precision("auto", node.get("trainable", "none"), device_type)
    return {**config, "backbone": {**node, "precision": name}}


def build_transform(config: Config, picture_format: PictureFormat) -> Transform:
    """Return the transform to the pictures that a backbone wants."""
    return _call(build(config["transform"]), picture_format)


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
        augmentation = _call(augmentation, backbone.picture_format)
        if hasattr(augmentation, "check_classes"):  # one's own need not have it
            augmentation.check_classes(corpus.class_names)
    obstacle = why_not_stored(backbone.backbone, transform, augmentation)
    if _choose_features(config["features"], obstacle) and stored:
        return _stored_features(config, corpus, backbone, transform, device, training)
    num_workers = config["num_workers"]
    if num_workers is None:
        num_epochs = (config["trainer"]["max_epochs"] or 1000) if training else 1
        num_frames = num_epochs * sum(facts.info.num_frames for facts in corpus.facts.values())
        num_workers = num_workers_for(num_frames, max(1, num_cores() // num_here()))
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
    return num_threads or max(1, num_cores() // num_here())


def build_classifier(config: Config, backbone: FrozenBackbone | TunedBackbone, num_classes: int) -> Classifier:
    """Return the classifier; its head is drawn from the seed."""
    L.seed_everything(config["seed"], workers=True, verbose=False)
    if "_target_" not in config["head"]:
        raise VidclfError("head=grid: many heads, which only train can take. Leave it out: a run has one of them.")
    make_head = build(config["head"])
    if "scaling" in config["head"] and "scaling" not in signature(make_head.func).parameters:
        raise VidclfError(
            f"head.scaling={config['head']['scaling']}: scaling is a stage of its own before the head, which "
            f"{make_head.func.__qualname__} knows nothing of. Say scaling={config['head']['scaling']}."
        )
    head = _call(make_head, backbone.feature_dim, num_classes)
    if config["mixing"] and config["batch_size"] < 2:
        raise VidclfError(f"batch_size={config['batch_size']}: mixing needs two views or more in a batch.")
    return Classifier(
        backbone,
        Scaling(backbone.feature_dim, scaling_of(config["scaling"], head, isinstance(backbone, TunedBackbone))),
        head,
        build(config["aggregation"]),
        optimizer=build_optimizer(config, backbone),
        scheduler=_checked(build(config["scheduler"]), None, 1),
        loss=_call(build(config["loss"]), num_classes),
        num_classes=num_classes,
        seed=config["seed"],
        layer_decay=config["layer_decay"],
        mixing=build(config["mixing"]),
    )


def build_optimizer(config: Config, backbone: FrozenBackbone | TunedBackbone) -> Any:
    """Return what makes the optimiser; not a fused one where Lightning clips gradients under mixed precision."""
    node, clips = dict(config["optimizer"]), config["trainer"].get("gradient_clip_val")
    if node.get("fused") and clips and "mixed" in _precision(config, backbone):
        say("optimizer.fused is off: Lightning clips no gradients of fused optimisers under mixed precision.")
        node["fused"] = False
    factory = _checked(build(node), [])
    if str(node["_target_"]).startswith("torch."):
        factory([nn.Parameter(torch.zeros(1))])  # what it refuses is told now, not when all features are computed
    return factory


def build_callbacks(config: Config) -> list[Callback]:
    """Return the callbacks, after checking that what they watch is logged.

    Raises:
        VidclfError: one watches what is not logged, or none keeps the best checkpoint.
    """
    callbacks = list((build(config["callbacks"]) or {}).values())
    if not config["logger"] and any(isinstance(callback, LearningRateMonitor) for callback in callbacks):
        say("logger=null: the learning rate is not logged.")
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    own = any(not type(callback).__module__.startswith(("lightning.", "vidclf.")) for callback in callbacks)
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if isinstance(callback, EarlyStopping | ModelCheckpoint) and not own and monitor not in (None, *METRICS):
            raise VidclfError(
                f"callbacks: {type(callback).__name__} watches monitor={monitor}, which training does not log. "
                f"Use one of {', '.join(METRICS)}."
            )
    if not any(getattr(callback, "filename", None) == "best" for callback in callbacks):
        raise VidclfError("callbacks: none keeps best.ckpt, so nothing would be left to score; see callbacks=default.")
    return callbacks


def build_training(
    config: Config, backbone: FrozenBackbone | TunedBackbone, describe: Callback, choose: Any = None
) -> L.Trainer:
    """Return the Trainer with what `callbacks` and `logger` name, and `describe`; `choose` is a grid's, `ChooseHead`.

    Raises:
        VidclfError: nothing would be trained, or training would end before it is validated, without a checkpoint.
    """
    num_epochs = config["trainer"]["max_epochs"]
    if not isinstance(num_epochs, int | None) or num_epochs == 0:
        raise VidclfError(f"trainer.max_epochs={num_epochs}: nothing would be trained; give 1 or more.")
    callbacks = build_callbacks(config)
    callbacks = choose.take_over(callbacks) if choose else callbacks
    trainer = build_trainer(config, backbone, build(config["logger"]), [*callbacks, describe])
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        say("trainer.fast_dev_run: all of it runs, on a few batches; no checkpoint and no scores are kept.")
    every, num_batches = trainer.check_val_every_n_epoch, trainer.limit_val_batches
    if num_batches == 0 or (every and num_epochs is not None and 0 <= num_epochs < every):
        raise VidclfError(
            f"trainer.check_val_every_n_epoch={every} trainer.max_epochs={num_epochs} trainer.limit_val_batches="
            f"{num_batches}: training would never be validated, and the best epoch is chosen by validation. Validate "
            "at least once; to try whether all of it runs, use +trainer.fast_dev_run=true."
        )
    return trainer


def build_trainer(
    config: Config, backbone: FrozenBackbone | TunedBackbone, logger: object = None, callbacks: Sequence[Callback] = ()
) -> L.Trainer:
    """Return Lightning's Trainer, quiet where there is no terminal."""
    bar = progress_bar()
    return _call(
        build(config["trainer"], _partial_=True),
        logger=logger or False,
        callbacks=[*callbacks, *bar],
        enable_progress_bar=bool(bar),
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        precision=_precision(config, backbone),
    )


def _precision(config: Config, backbone: FrozenBackbone | TunedBackbone) -> str:
    """Return Lightning's name of the precision that heads are trained in."""
    precision = str(config["trainer"].get("precision") or "32-true")
    if precision != "auto":
        return precision
    stored_in_bfloat16 = getattr(backbone.backbone, "precision", "float32") == "bfloat16"
    return "bf16-mixed" if stored_in_bfloat16 else "32-true"


def build_aggregations() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return every aggregation that has a YAML in conf/aggregation, by name."""
    names = GlobalHydra.instance().config_loader().get_group_options("aggregation")
    nodes = {name: compose(f"aggregation/{name}").aggregation for name in names}
    return {
        name: build(OmegaConf.to_container(node, resolve=True))  # type: ignore[arg-type]
        for name, node in nodes.items()
        if not OmegaConf.is_missing(node, "_target_")
    }


def _call(factory: partial, *arguments: object, **settings: object) -> Any:
    """Call what a `_partial_` node gave."""
    return _checked(factory, *arguments, **settings)(*arguments, **settings)


def _checked(factory: partial, *arguments: object, **settings: object) -> partial:
    """Return what a `_partial_` node gave; keys that are no arguments of it are the configuration's mistake."""
    try:
        signature(factory.func).bind(*factory.args, *arguments, **{**factory.keywords, **settings})
    except TypeError as error:
        name = factory.func.__qualname__
        raise VidclfError(f"{name}: {error}. The keys of a YAML are the arguments of its _target_.") from error
    return factory

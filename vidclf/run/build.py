"""From a verb's configuration to the objects it names: the only place where configuration meets constructors."""

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import lightning as L
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, Checkpoint
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from vidclf.cli import CONF
from vidclf.contracts import PictureFormat, Transform
from vidclf.datamodule import VideoDataModule
from vidclf.errors import VidclfError
from vidclf.models.backbones.trained import Trained
from vidclf.models.backbones.wrapped import Frozen
from vidclf.models.classifier import Classifier
from vidclf.run.config import escape, known_keys
from vidclf.system.terminal import progress_bar, say


def check_keys(cfg: DictConfig, verb: str) -> dict[str, Any]:
    """Return the configuration as plain data, after checking that nothing in it is misspelt or missing.

    Hydra finds unknown keys on the command line, but a top-level one in an experiment passes in silence.

    Raises:
        VidclfError: a key is unknown, or one that must be given is not.
    """
    known = known_keys(Path(CONF), verb) - {"experiment", "sweep"}  # its content belongs to the top level
    unknown = sorted(set(map(str, cfg)) - known)
    if unknown:
        hint = "Begin the file with `# @package _global_`. " if "experiment" in unknown else ""
        raise VidclfError(
            f"{', '.join(unknown)}: unknown top-level key(s), from an experiment file or a +override. "
            f"{hint}Allowed: {', '.join(sorted(known))}."
        )
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        example = " ".join(f"{key}=..." for key in missing)
        raise VidclfError(f"{', '.join(missing)} must be given: vidclf {verb} {example}")
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def build(node: DictConfig, **changed: object) -> Any:
    """Instantiate one node, with some of its keys changed."""
    plain = {**OmegaConf.to_container(node, resolve=True), **changed}  # type: ignore[dict-item]
    return instantiate(_escaped(_escaped(plain)), _convert_="object")


def build_backbone(cfg: DictConfig) -> Any:
    """Return the backbone; weights that it has none of are drawn from cfg.seed."""
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    return build(cfg.backbone)


def build_transform(cfg: DictConfig, picture_format: PictureFormat) -> Transform:
    """Return the transform to the pictures that a backbone wants."""
    return _call(build(cfg.transform), picture_format)


def build_datamodule(cfg: DictConfig, training: bool = False) -> VideoDataModule:
    """Return the data module, which augments in `training`; the backbone is built on the way."""
    dataset = build(cfg.dataset)
    backbone = build_backbone(cfg)
    return VideoDataModule(
        dataset=dataset,
        split=build(cfg.split),
        sampling=build(cfg.sampling),
        transform=build_transform(cfg, backbone.picture_format),
        backbone=backbone,
        store=cfg.store.root,
        features=cfg.features,
        batch_size=cfg.batch_size,
        num_threads=cfg.num_threads,
        seed=cfg.seed,
        augmentation=_call(build(cfg.augmentation), backbone.picture_format) if training and cfg.augmentation else None,
        compile=cfg.compile,
    )


def build_classifier(cfg: DictConfig, backbone: Frozen | Trained, num_classes: int) -> Classifier:
    """Return the classifier; its head is drawn from cfg.seed."""
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    head = _call(build(cfg.head), backbone.feature_dim, num_classes)
    if cfg.mixing and cfg.batch_size < 2:
        raise VidclfError(f"batch_size={cfg.batch_size}: mixing needs two views or more in a batch.")
    return Classifier(
        backbone,
        head,
        build(cfg.aggregation),
        optimizer=build_optimizer(cfg, backbone),
        scheduler=build(cfg.scheduler),
        loss=_call(build(cfg.loss), num_classes),
        seed=cfg.seed,
        layer_decay=cfg.layer_decay,
        mixing=build(cfg.mixing) if cfg.mixing else None,
    )


def build_optimizer(cfg: DictConfig, backbone: Frozen | Trained) -> Any:
    """Return what makes the optimiser; not a fused one where Lightning clips gradients under mixed precision."""
    clips = cfg.trainer.get("gradient_clip_val") and "mixed" in _precision(cfg, backbone)
    if not (clips and cfg.optimizer.get("fused")):
        return build(cfg.optimizer)
    say("optimizer.fused is off: Lightning clips no gradients of fused optimisers under mixed precision.")
    return build(cfg.optimizer, fused=False)


def build_trainer(
    cfg: DictConfig, backbone: Frozen | Trained, logger: object = False, callbacks: Sequence[Callback] = ()
) -> L.Trainer:
    """Return Lightning's Trainer, quiet where there is no terminal."""
    bar = progress_bar()
    return instantiate(
        cfg.trainer,
        _convert_="object",
        logger=logger,
        callbacks=[*callbacks, *bar],
        enable_progress_bar=bool(bar),
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        precision=_precision(cfg, backbone),
    )


def _precision(cfg: DictConfig, backbone: Frozen | Trained) -> str:
    """Return Lightning's name of the precision that heads are trained in."""
    precision = str(cfg.trainer.get("precision") or "32-true")
    if precision != "auto":
        return precision
    stored_in_bfloat16 = getattr(backbone.backbone, "precision", "float32") == "bfloat16"
    return "bf16-mixed" if stored_in_bfloat16 else "32-true"


def build_aggregations() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return every aggregation that has a YAML in conf/aggregation, by name."""
    names = GlobalHydra.instance().config_loader().get_group_options("aggregation")
    nodes = {name: compose(f"aggregation/{name}").aggregation for name in names}
    return {name: build(node) for name, node in nodes.items() if not OmegaConf.is_missing(node, "_target_")}


def _escaped(value: Any) -> Any:
    """Return plain data as OmegaConf must be told it; `instantiate` resolves twice, and a path may hold ${...}."""
    if isinstance(value, dict):
        return {key: _escaped(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    return escape(value) if isinstance(value, str) else value


def _call(factory: partial, *arguments: object, **settings: object) -> Any:
    """Call what a `_partial_` node gave; keys that are no arguments of it are the configuration's mistake."""
    try:
        signature(factory.func).bind(*factory.args, *arguments, **factory.keywords, **settings)
    except TypeError as error:
        name = factory.func.__qualname__
        raise VidclfError(f"{name}: {error}. The keys of a YAML are the arguments of its _target_.") from error
    return factory(*arguments, **settings)

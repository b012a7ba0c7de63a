"""From a verb's configuration to the objects it names: the only place where configuration meets constructors."""

from collections.abc import Callable
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
from vidclf.data.datamodule import VideoDataModule
from vidclf.data.transforms import Transform
from vidclf.errors import VidclfError
from vidclf.models.backbones.frozen import Frozen
from vidclf.models.backbones.preset import Preset
from vidclf.models.classifier import Classifier
from vidclf.terminal import progress_bar


def check_keys(cfg: DictConfig, verb: str) -> dict[str, Any]:
    """Return the configuration as plain data, after checking that nothing in it is misspelt or missing.

    Hydra finds unknown keys on the command line, but a top-level one in an experiment passes in silence.
    """
    known = _keys_of(Path(CONF), verb)
    unknown = sorted(set(map(str, cfg)) - known)
    if unknown:
        raise VidclfError(
            f"{', '.join(unknown)}: unknown top-level key(s), from an experiment file or a +override. "
            f"Allowed: {', '.join(sorted(known))}."
        )
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


def build(node: DictConfig) -> Any:
    """Instantiate one node."""
    return instantiate(node, _convert_="object")


def build_backbone(cfg: DictConfig) -> Any:
    """Return the backbone; weights that it has none of are drawn from cfg.seed."""
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    return build(cfg.backbone)


def build_transform(cfg: DictConfig, preset: Preset) -> Transform:
    """Return the transform to the pictures that a backbone wants."""
    return build(cfg.transform)(preset=preset)


def build_datamodule(cfg: DictConfig) -> VideoDataModule:
    """Return the data module; the backbone is built on the way."""
    dataset = build(cfg.dataset)
    backbone = build_backbone(cfg)
    return VideoDataModule(
        dataset=dataset,
        split=build(cfg.split),
        sampling=build(cfg.sampling),
        transform=build_transform(cfg, backbone.preset),
        backbone=backbone,
        store=cfg.store.root,
        features=cfg.features,
        batch_size=cfg.batch_size,
        num_threads=cfg.num_threads,
        seed=cfg.seed,
    )


def build_classifier(cfg: DictConfig, backbone: Frozen, num_classes: int) -> Classifier:
    """Return the classifier; its head is drawn from cfg.seed."""
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    head = build(cfg.head)(backbone.feature_dim, num_classes)
    return Classifier(backbone, head, build(cfg.aggregation), build(cfg.optimizer), build(cfg.scheduler), cfg.seed)


def build_trainer(cfg: DictConfig, logger: object, callbacks: list[Callback]) -> L.Trainer:
    """Return Lightning's Trainer, quiet where there is no terminal."""
    bar = progress_bar()
    return instantiate(
        cfg.trainer,
        _convert_="object",
        logger=logger,
        callbacks=[*callbacks, *bar],
        enable_progress_bar=bool(bar),
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
    )


def build_aggregations() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return every aggregation that has a YAML in conf/aggregation, by name."""
    names = GlobalHydra.instance().config_loader().get_group_options("aggregation")
    nodes = {name: compose(f"aggregation/{name}").aggregation for name in names}
    return {name: build(node) for name, node in nodes.items() if not OmegaConf.is_missing(node, "_target_")}


def _keys_of(conf: Path, verb: str) -> set[str]:
    """Return the top-level keys that the verb's YAML, and train's, which all verbs read, know."""
    keys: set[str] = set()
    for name in {"train", verb}:
        primary = OmegaConf.load(conf / f"{name}.yaml")
        groups = [str(key) for entry in primary.defaults if isinstance(entry, DictConfig) for key in entry]
        keys |= {*map(str, primary), *groups}
    return keys - {"defaults", "hydra"}

"""Build what trains a classifier from a configuration: the LightningModule, its optimiser, the Trainer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn

from vidclf.build.parts import build_classifier, build_node, call_factory, check_arguments, is_grid
from vidclf.command.verbs import groups_of
from vidclf.errors import VidclfError
from vidclf.models.backbones.wrap import FrozenBackbone, TunedBackbone
from vidclf.models.learner import Learner
from vidclf.run.checkpoints import DESCRIPTION, FORMAT, check_optimizers
from vidclf.run.config import CONF, Config
from vidclf.run.resume import relocate_states
from vidclf.run.values import check_types
from vidclf.system.disk import replacing, writing_to
from vidclf.system.epochs import progress_bars
from vidclf.system.terminal import say

METRICS = ("train/loss", "train/view_top1", "val/loss", "val/view_top1", "val/top1")  # logged by training


@dataclass(eq=False)
class Describe(Callback):
    """Writes the configuration and the other facts that are needed to read a checkpoint into it."""

    config: Mapping[str, Any]
    weights_hash: str  # of the backbone, before any training
    split_digest: str  # of split.csv
    resumed_in: Path | None = None  # the folder of checkpoints of a run that resumes another checkpoint
    changes: Callable[[], Mapping[str, Any]] = dict  # the nodes that a grid's chosen head replaces in `config`
    resumed: Mapping[str, Any] = field(default_factory=dict)  # the checkpoint, until it is restored

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.resumed_in is not None:
            relocate_states(checkpoint["callbacks"], trainer.callbacks, self.resumed_in)  # type: ignore[attr-defined]
            self.resumed = checkpoint

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.resumed:  # Lightning restores the optimiser after this
            check_optimizers(self.resumed, trainer.optimizers, Path(str(trainer.ckpt_path)))
            self.resumed = {}

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        corpus = trainer.datamodule.corpus  # type: ignore[attr-defined]
        checkpoint[DESCRIPTION] = {
            "format": FORMAT,
            "class_names": corpus.class_names,
            "config": {**self.config, **self.changes()},
            "asked": self.config,
            "versions": versions(),
            "split_fingerprint": corpus.split.fingerprint,
            "split_digest": self.split_digest,
            "weights_hash": self.weights_hash,
        }


def versions() -> dict[str, str]:
    """Return the versions of the libraries that determine a run's results."""
    from importlib.metadata import version

    return {name: version(name) for name in ("vidclf", "torch", "torchvision", "lightning", "av")}


def check_stages(config: Config) -> None:
    """Make the stages that cost nothing on trial, so that settings they refuse are known before weights are read."""
    for stage in groups_of("train"):
        if config.get(stage) and not (stage == "head" and is_grid(config)):
            check_types({**config[stage]}, Path(CONF), stage)
    for stage in ("sampling", "mixing", "augmentation", "aggregation"):
        build_node(config[stage])
    call_factory(build_node(config["loss"]), 2)
    if str(config["head"].get("_target_")).startswith("vidclf."):
        call_factory(build_node(config["head"]), 64, 2)
    if str(config["optimizer"]["_target_"]).startswith("torch."):
        optimizer = call_factory(build_node(config["optimizer"]), [nn.Parameter(torch.zeros(1))])
        call_factory(build_node(config["scheduler"]), optimizer, 100)


def build_learner(config: Config, backbone: FrozenBackbone | TunedBackbone, num_classes: int) -> Learner:
    """Return the classifier for training, its head drawn from the seed."""
    untrained = build_classifier(config, backbone, num_classes)
    if config["mixing"] and config["batch_size"] < 2:
        raise VidclfError(f"batch_size={config['batch_size']}: mixing needs two views or more in a batch.")
    return Learner(
        backbone,
        untrained.scaling,
        untrained.head,
        untrained.aggregation,
        optimizer=build_optimizer(config, backbone),
        scheduler=check_arguments(build_node(config["scheduler"]), None, 1),
        loss=call_factory(build_node(config["loss"]), num_classes),
        num_classes=num_classes,
        seed=config["seed"],
        layer_decay=config["layer_decay"],
        mixing=build_node(config["mixing"]),
    )


def build_optimizer(config: Config, backbone: FrozenBackbone | TunedBackbone) -> Any:
    """Return the optimiser's factory; not fused if Lightning clips gradients under mixed precision."""
    node, clips = dict(config["optimizer"]), config["trainer"].get("gradient_clip_val")
    if node.get("fused") and clips and "mixed" in _precision(config, backbone):
        say("optimizer.fused is off: Lightning clips no gradients of fused optimisers under mixed precision.")
        node["fused"] = False
    return check_arguments(build_node(node), [])


def build_callbacks(config: Config) -> list[Callback]:
    """Return the callbacks, after checking that what they watch is logged."""
    nodes = {name: node for name, node in (config["callbacks"] or {}).items() if node is not None}
    callbacks = list((build_node(nodes) or {}).values())
    if not config["logger"] and any(isinstance(callback, LearningRateMonitor) for callback in callbacks):
        say("logger=null: the learning rate is not logged.")
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    may_log_more = any(not type(callback).__module__.startswith(("lightning.", "vidclf.")) for callback in callbacks)
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if (
            isinstance(callback, EarlyStopping | ModelCheckpoint)
            and not may_log_more
            and monitor not in (None, *METRICS)
        ):
            raise VidclfError(
                f"callbacks: {type(callback).__name__} watches monitor={monitor}, which training does not log. "
                f"Use one of {', '.join(METRICS)}."
            )
    if not any(getattr(callback, "filename", None) == "best" for callback in callbacks):
        raise VidclfError("callbacks: none keeps best.ckpt, so nothing could be scored. Use callbacks=default.")
    return callbacks


class CheckpointFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: whole or not at all.

    Lightning's own goes through memory and the system's folder for temporary files.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write a checkpoint; raise VidclfError if the disk refuses."""
        path = Path(path)
        can_go_on = path.with_name("last.ckpt").is_file()
        rest = f"; resume={path.parent.parent} goes on." if can_go_on else " and train again."
        with writing_to(path, f"Make room{rest}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with replacing(path) as temporary, temporary.open("wb") as file:
                    torch.save(checkpoint, file)
            except RuntimeError as error:  # torch raises it while it handles the disk's error
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def build_training(config: Config, backbone: FrozenBackbone | TunedBackbone, choose: Any = None) -> L.Trainer:
    """Return the Trainer with the `callbacks` and `logger` of the configuration; `choose` is a grid's `ChooseHead`."""
    num_epochs = config["trainer"]["max_epochs"]
    if not isinstance(num_epochs, int | None) or num_epochs == 0:
        raise VidclfError(f"trainer.max_epochs={num_epochs}: nothing would be trained. Set 1 or more.")
    callbacks = build_callbacks(config)
    callbacks = choose.replace_callbacks(callbacks) if choose else callbacks
    trainer = build_trainer(config, backbone, build_node(config["logger"]), callbacks)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        say("trainer.fast_dev_run: runs on a few batches; no checkpoint and no scores are kept.")
    every, num_batches = trainer.check_val_every_n_epoch, trainer.limit_val_batches
    if num_batches == 0 or (every and num_epochs is not None and 0 <= num_epochs < every):
        raise VidclfError(
            f"trainer.check_val_every_n_epoch={every} trainer.max_epochs={num_epochs} trainer.limit_val_batches="
            f"{num_batches}: training would never be validated, and the best epoch is chosen by validation. Validate "
            "at least once, or use +trainer.fast_dev_run=true for a trial."
        )
    return trainer


def build_trainer(
    config: Config, backbone: FrozenBackbone | TunedBackbone, logger: object = None, callbacks: Sequence[Callback] = ()
) -> L.Trainer:
    """Return Lightning's Trainer."""
    bars = progress_bars()
    trainer: L.Trainer = call_factory(
        build_node(config["trainer"], _partial_=True),
        logger=logger or False,
        callbacks=[*callbacks, *bars],
        enable_progress_bar=bool(bars),
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        precision=_precision(config, backbone),
    )
    strategy = trainer.strategy
    if type(strategy) in (SingleDeviceStrategy, DDPStrategy) and type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = CheckpointFiles()
    return trainer


def _precision(config: Config, backbone: FrozenBackbone | TunedBackbone) -> str:
    """Return the precision for training, by Lightning's name."""
    precision = str(config["trainer"].get("precision") or "32-true")
    if precision != "auto":
        return precision
    return "bf16-mixed" if backbone.precision == "bfloat16" else "32-true"

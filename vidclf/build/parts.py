"""Build the parts of a classifier from a verb's configuration, which is plain data.

`training` builds what trains a classifier, `datasets` what it reads.
"""

from collections.abc import Callable
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from vidclf.contracts import PictureFormat, Transform
from vidclf.data.corpus import Corpus
from vidclf.errors import VidclfError
from vidclf.features.calibration import calibrate
from vidclf.features.recipe import hash_weights
from vidclf.models.backbones.int8 import Int8Backbone
from vidclf.models.backbones.trainable import resolve_precision
from vidclf.models.backbones.wrap import FrozenBackbone, TunedBackbone, wrap
from vidclf.models.classifier import Classifier, check_steps
from vidclf.models.scaling import Scaling, resolve_scaling
from vidclf.run.compatible import check_weights
from vidclf.run.config import CONF, Config, escaped
from vidclf.run.folder import Run, load_trained
from vidclf.run.trust import walk
from vidclf.run.values import check_types
from vidclf.system.machine import choose_device, set_determinism
from vidclf.system.messages import raised_in_user_code, refusal_of
from vidclf.system.ranks import gather, is_rank_zero
from vidclf.system.seeds import seed_all
from vidclf.system.terminal import say

TAKES_WHITELIST = "_execution_whitelist_" in signature(instantiate).parameters  # Hydra from 1.4 on


def build_node(node: Config | None, **changed: object) -> Any:
    """Instantiate a node, with some of its keys changed; None for an empty node."""
    if not node:
        return None
    plain = {**node, **changed}
    check_types(plain, Path(CONF))
    whitelist = {}
    if TAKES_WHITELIST:
        targets = [value for path, value in walk(plain) if path[-1] == "_target_"]  # checked before, by `trust`
        whitelist = {"_execution_whitelist_": targets}
    return instantiate(escaped(escaped(plain)), _convert_="object", **whitelist)  # it resolves twice


def build_backbone(config: Config) -> FrozenBackbone | TunedBackbone:
    """Return the wrapped backbone; without pretrained weights, they are drawn from the seed."""
    seed_all(config["seed"])
    node = dict(fix_precision(config)["backbone"])
    node.pop("allow_short", None)  # see `check_views`
    calibration = node.pop("calibration", None)  # of a run
    if node.get("precision") != "int8":
        return wrap(build_node(node))
    if (device := build_device(config)).type != "cpu":
        raise VidclfError(
            f"backbone.precision=int8 is computed by the CPU, and trainer.accelerator is {device.type}. Set "
            "trainer.accelerator=cpu, or leave int8 out: a GPU is faster in bfloat16."
        )
    del node["precision"]
    if "precision" in signature(build_node(node, _partial_=True).func).parameters:  # not in every class of a user
        node["precision"] = "float32"
    in_float32 = build_node(node)
    return FrozenBackbone(Int8Backbone(in_float32, calibration))


def check_views(config: Config, backbone: FrozenBackbone | TunedBackbone) -> None:
    """Check that the sampling's views suit the backbone and the head; say if clips have another length than usual.

    Raises:
        VidclfError: a clip network, or a head over time, would see single frames.
    """
    num_frames = build_node(config["sampling"])(1000, 25.0).shape[1]  # the same for every video
    usual = backbone.picture_format.clip_length
    if usual == 1:  # each frame is a step
        check_steps(build_node(config["head"]).func, num_frames)
        return
    if num_frames == usual:
        return
    if num_frames == 1 and not config["backbone"].get("allow_short"):
        raise VidclfError(
            f"backbone: {backbone.name} sees motion in clips of {usual} frames, and each view has one frame. Use "
            f"sampling=uniform sampling.num_frames={usual}, or allow it with +backbone.allow_short=true."
        )
    say(f"backbone: {backbone.name} was made for clips of {usual} frames; each view has {num_frames}.")


def prepare_backbone(
    config: Config, backbone: FrozenBackbone | TunedBackbone, build_corpus: Callable[[], Corpus]
) -> dict[str, Any]:
    """Calibrate an int8 backbone that has no ranges yet; return the configuration with its ranges.

    Rank zero computes them for all. Other backbones need no preparation, and `build_corpus` is not called.
    """
    network = backbone.backbone
    if not isinstance(network, Int8Backbone) or network.ranges is not None:
        return dict(config)
    corpus = build_corpus()
    if is_rank_zero():
        transform = build_transform(config, network.picture_format)
        recipe = {key: config[key] for key in ("backbone", "transform")}
        calibrate(network, transform, recipe, corpus, config["seed"], Path(config["store"]["root"]))
    network.ranges = gather(network.ranges)[0]
    return {**config, "backbone": {**config["backbone"], "calibration": network.ranges}}


def restore_classifier(config: Config, run: Run) -> Classifier:
    """Return a run's trained classifier, with the changes in `config`.

    Raises:
        VidclfError: the backbone or the head is not the run's.
    """
    backbone = build_backbone(config)
    check_weights(run, hash_weights(backbone.backbone))
    classifier = build_classifier(config, backbone, len(run.class_names))
    load_trained(run, classifier)
    return classifier


def fix_precision(config: Config) -> dict[str, Any]:
    """Return the configuration with `backbone.precision=auto` named after the kind of device that is used.

    A run stores that name, because the hash of its weights belongs to one number format.
    """
    node = config["backbone"]
    if node.get("precision") != "auto" or not str(node["_target_"]).startswith("vidclf."):
        return dict(config)
    device_type = "cpu" if config["trainer"].get("accelerator") == "cpu" else None
    name = resolve_precision("auto", node.get("trainable", "none"), device_type)
    return {**config, "backbone": {**node, "precision": name}}


def build_transform(config: Config, picture_format: PictureFormat) -> Transform:
    """Return the transform to the images of a picture format."""
    return call_factory(build_node(config["transform"]), picture_format)


def build_classifier(config: Config, backbone: FrozenBackbone | TunedBackbone, num_classes: int) -> Classifier:
    """Return the classifier, its head drawn from the seed."""
    seed_all(config["seed"])
    if "_target_" not in config["head"]:
        raise VidclfError("head=grid: only train can use many heads. Leave it out; the run has one head.")
    make_head = build_node(config["head"])
    head = call_factory(make_head, backbone.feature_dim, num_classes)
    scaling = resolve_scaling(config["scaling"], head, isinstance(backbone, TunedBackbone))
    return Classifier(backbone, Scaling(backbone.feature_dim, scaling), head, build_node(config["aggregation"]))


def is_grid(config: Config) -> bool:
    """Return whether the head is `head=grid`: one for every combination of settings, at once."""
    return "over" in config["head"] and "_target_" not in config["head"]


def build_device(config: Config) -> torch.device:
    """Return the device of one process, and set determinism, both as `trainer` says."""
    settings = config["trainer"]
    set_determinism(settings.get("deterministic"))
    return choose_device(settings.get("accelerator", "auto"), settings.get("devices", "auto"))


def build_aggregations() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return every aggregation that has a YAML in conf/aggregation, by name."""
    names = GlobalHydra.instance().config_loader().get_group_options("aggregation")
    # All at once, because composing takes 0.06 s however small the configuration is.
    options = compose(overrides=[f"+aggregation@option{number}='{name}'" for number, name in enumerate(names)])
    return {
        name: build_node(OmegaConf.to_container(node, resolve=True))  # type: ignore[arg-type]
        for name, node in zip(names, options.values(), strict=True)
        if not OmegaConf.is_missing(node, "_target_")
    }


def call_factory(factory: partial, *arguments: object, **settings: object) -> Any:
    """Call the factory of a `_partial_` node; see `check_arguments`.

    Raises:
        VidclfError: also for an error of a library's, such as a value out of range.
    """
    check_arguments(factory, *arguments, **settings)
    try:
        return factory(*arguments, **settings)
    except Exception as error:
        if isinstance(error, VidclfError) or raised_in_user_code(error):
            raise
        raise VidclfError(refusal_of(factory.func, factory.keywords, error)) from error


def check_arguments(factory: partial, *arguments: object, **settings: object) -> partial:
    """Return the factory of a `_partial_` node; raise VidclfError if its keys are not arguments of the target."""
    try:
        signature(factory.func).bind(*factory.args, *arguments, **{**factory.keywords, **settings})
    except TypeError as error:
        name = factory.func.__qualname__
        raise VidclfError(f"{name}: {error}. The keys of a YAML are the arguments of its _target_.") from error
    return factory

"""Digest everything that can change a stored feature, except the video."""

import hashlib
import inspect
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidclf.contracts import Backbone, PictureFormat, Transform, optional

FORMAT = 2  # of the store's files; another number never reads these
# Defaults of newer fields of PictureFormat. They are left out, so that older features are still found.
NOT_CHOSEN = ", antialias=None, crop_down=False"
LIBRARIES = {"vidclf", "torch", "torchvision", *sys.stdlib_module_names}  # all other sources are hashed


@dataclass(frozen=True)
class Recipe:
    """Everything that can change a feature, except the video.

    Attributes:
        backbone: its resolved configuration, as JSON.
        transform: the same of the transform, and the picture format.
        sources: `hash_sources` of the modules that users wrote.
        weights: `hash_weights` of the backbone.
        number_format: float32, tf32 (float32 rounded by an NVIDIA GPU's matrix units), bfloat16.
        device: cpu, cuda, ...
        batch: clips or frames that the backbone computes at once.
        format: of the store's files.
    """

    backbone: str
    transform: str
    sources: str
    weights: str
    number_format: str
    device: str
    batch: int
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """Return the first twelve hex digits of the recipe's sha256."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]


def recipe_of(
    backbone: nn.Module,
    transform: Transform,
    nodes: Mapping[str, Mapping[str, Any]],
    picture_format: PictureFormat,
    weights: str,
    number_format: str,
    device: str,
    batch: int,
) -> Recipe:
    """Return the recipe of the features of `backbone` (not wrapped) from images of `transform`; see `Recipe`.

    `nodes` is the resolved configuration of both. Call `why_not_storable` first.
    """
    return Recipe(
        backbone=_as_json(nodes["backbone"]),
        transform=f"{_as_json(nodes['transform'])} {picture_format}".replace(NOT_CHOSEN, ""),
        sources=hash_sources(_user_modules([*backbone.modules(), transform], nodes)),
        weights=weights,
        number_format=number_format,
        device=device,
        batch=batch,
    )


def why_not_storable(backbone: nn.Module, transform: Transform, augmentation: object = None) -> str | None:
    """Return why the features of these stages cannot be stored, or None if they can."""
    if any(parameter.requires_grad for parameter in backbone.parameters()):
        return "the backbone is trained, so its features change"
    for stage in (augmentation, transform):
        if stage is augmentation is not None or optional(stage, Transform, "random"):
            return f"{type(stage).__name__} is random, so its images change"
    try:
        hash_sources(_user_modules([*backbone.modules(), transform], {}))
    except (OSError, TypeError) as error:
        return f"the source of a class cannot be read, so changes to it would not be noticed ({error})"
    return None


def hash_weights(module: nn.Module) -> str:
    """Return the sha256, in hex, of all parameters and buffers (names and bytes) and of `Backbone.configuration`."""
    configuration = optional(module, Backbone, "configuration")
    digest = hashlib.sha256(configuration.encode() if isinstance(configuration, str) else b"")
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_sources(modules: Iterable[str]) -> str:
    """Return the sha256 of the modules' source, in hex; empty without modules."""
    sources = "".join(inspect.getsource(sys.modules[name]) for name in dict.fromkeys(modules))
    return hashlib.sha256(sources.encode()).hexdigest() if sources else ""


def describe_stages(nodes: Mapping[str, Any], stages: Iterable[object]) -> str:
    """Return what determines the results of stages, besides their weights: settings, number format, users' own code.

    Args:
        nodes: the configuration of each stage, by its name.
        stages: the objects made of them.
    """
    settings = [
        f"{name} {_as_json(node)} {node.get('precision')}" if isinstance(node, Mapping) else f"{name} {node}"
        for name, node in sorted(nodes.items())
    ]
    sources = ""
    with suppress(OSError, TypeError):  # typed into an interpreter
        sources = hash_sources(_user_modules(stages, nodes))
    return "\n".join([*settings, sources])


def _as_json(node: Mapping[str, Any]) -> str:
    """Return a node as text, without what other fields of the recipe say exactly."""
    node = dict(node)
    if str(node.get("_target_")).startswith("vidclf."):
        node.pop("precision", None)  # number_format
        node.pop("fetch", None)
        if isinstance(name := node.get("name"), str) and os.path.isdir(name):
            node["name"] = Path(name).name  # its content is in the hash of the weights
    if isinstance(weights := node.get("weights"), str | Path) and Path(weights).is_file():
        node["weights"] = Path(weights).name  # determines the images; the hash has the content
    return json.dumps(node, sort_keys=True, default=str)


def _user_modules(objects: Iterable[object], nodes: Mapping[str, Any]) -> Iterator[str]:
    """Yield the modules, outside LIBRARIES, of all classes of the objects and of all targets in the nodes."""
    names = [kind.__module__ for item in objects for kind in type(item).__mro__]
    names += filter(None, map(_module_of, _targets(nodes)))
    return (name for name in names if name.partition(".")[0] not in LIBRARIES)


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        yield from ([str(node["_target_"])] if "_target_" in node else [])
        node = node.values()
    elif not isinstance(node, list | tuple):
        return
    for value in node:
        yield from _targets(value)


def _module_of(target: str) -> str | None:
    """Return the imported module that contains a dotted name, if there is one."""
    name = target
    while name and name not in sys.modules:
        name = name.rpartition(".")[0]
    return name or None

"""What can change a stored feature: everything but the video, in one digest."""

import hashlib
import inspect
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidclf.contracts import Backbone, PictureFormat, Transform, optional

FORMAT = 2  # of the store's files; another number never reads these
# Of a PictureFormat, where they are as they were before they could be chosen: so what is stored is still found.
NOT_CHOSEN = ", antialias=None, crop_down=False"
LIBRARIES = {"vidclf", "torch", "torchvision", *sys.stdlib_module_names}  # others are their user's to change


@dataclass(frozen=True)
class Recipe:
    """Everything but the video that can change a feature.

    Attributes:
        backbone: its resolved configuration, as JSON.
        transform: the same of the transform, and the images that it makes.
        sources: a digest of the source of all classes that are their user's own.
        weights: `hash_weights` of the backbone.
        number_format: float32, tf32 (float32 rounded by an NVIDIA GPU's matrix units), bfloat16.
        device: cpu, cuda, ...
        batch: views (of a clip backbone) or frames that the backbone computes at once.
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
        """Twelve hex digits of its sha256."""
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
    """Return the recipe of features that `backbone` computes of `transform`'s images; call `why_not_storable` first.

    Args:
        backbone: as it is built, not wrapped.
        transform: as it is built.
        nodes: the resolved configuration of the `backbone` and of the `transform`.
        picture_format: what the transform was given.
        weights: of the backbone, by `hash_weights`.
        number_format: in which it computes.
        device: the kind of it.
        batch: its fixed batch.
    """
    return Recipe(
        backbone=_as_json(nodes["backbone"]),
        transform=f"{_as_json(nodes['transform'])} {picture_format}".replace(NOT_CHOSEN, ""),
        sources=hash_sources(_modules_of([*backbone.modules(), transform], nodes)),
        weights=weights,
        number_format=number_format,
        device=device,
        batch=batch,
    )


def why_not_storable(backbone: nn.Module, transform: Transform, augmentation: object = None) -> str | None:
    """Return why features of these cannot be kept, or None if they can."""
    if any(parameter.requires_grad for parameter in backbone.parameters()):
        return "the backbone is trained, so its features change"
    for stage in (augmentation, transform):
        if stage is augmentation is not None or optional(stage, Transform, "random"):
            return f"{type(stage).__name__} draws by chance, so its images change"
    try:
        hash_sources(_modules_of([*backbone.modules(), transform], {}))
    except (OSError, TypeError) as error:
        return f"the source of a class cannot be read, so changes to it would go unseen ({error})"
    return None


def hash_weights(module: nn.Module) -> str:
    """Return the sha256 of every parameter and buffer, names and bytes, in hex.

    And of the module's `configuration`, where it has one: the text beside the weights that says what the network is.
    """
    configuration = optional(module, Backbone, "configuration")
    digest = hashlib.sha256(configuration.encode() if isinstance(configuration, str) else b"")
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_sources(modules: Iterable[str]) -> str:
    """Return the sha256 of the modules' source, in hex; empty where there is none."""
    sources = "".join(inspect.getsource(sys.modules[name]) for name in dict.fromkeys(modules))
    return hashlib.sha256(sources.encode()).hexdigest() if sources else ""


def _as_json(node: Mapping[str, Any]) -> str:
    """Return a node as text; what other parts of the recipe say exactly is left out of it."""
    node = dict(node)
    if str(node.get("_target_")).startswith("vidclf."):
        node.pop("precision", None)  # number_format
        node.pop("fetch", None)
        if isinstance(name := node.get("name"), str) and os.path.isdir(name):
            node["name"] = Path(name).name  # what lies in it is in the weights' hash
    if isinstance(weights := node.get("weights"), str | Path) and Path(weights).is_file():
        node["weights"] = Path(weights).name  # which says how images are made; their hash says what they hold
    return json.dumps(node, sort_keys=True, default=str)


def _modules_of(parts: Iterable[object], nodes: Mapping[str, Any]) -> Iterator[str]:
    """Yield the modules of all classes, and of all that the configuration names, that are their user's own."""
    names = [kind.__module__ for part in parts for kind in type(part).__mro__]
    names += [name for target in _targets(nodes) if (name := _module_of(target))]
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
    """Return the module that a dotted name lies in, as far as it has been imported."""
    name = target
    while name and name not in sys.modules:
        name = name.rpartition(".")[0]
    return name or None

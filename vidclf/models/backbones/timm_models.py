"""Any of timm's image models, without its classifier: images -> features."""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.contracts import PictureFormat
from vidclf.errors import VidclfError
from vidclf.models.backbones.hub import (
    PICKLED,
    SAFE,
    check_local,
    find_file,
    find_folder,
    folder_at,
    reading_folder,
    weights_in,
)
from vidclf.models.backbones.library import LibraryBackbone, check_name
from vidclf.models.backbones.trainable import resolve_precision
from vidclf.models.backbones.weights import fetch_file, read_state_dict, verify_finite, verify_hash, weights_file
from vidclf.system.extras import require

AT_LEAST = "1.0.26"  # with DINOv3, and without a warning of torch's
FEATURES = ("pooled", "cls", "tokens")
LOCAL, HUB = "local-dir:", ("hf-hub:", "hf_hub:")


class TimmBackbone(LibraryBackbone):
    """The features that a model of timm has of each frame.

    Args:
        name: any of `timm.list_models()`, with the tag of its weights (`vit_small_patch16_dinov3.lvd1689m`) or
            without; `hf-hub:owner/model`; `local-dir:FOLDER`, as timm saves one.
        features: `pooled`: the classifier's input (S=1 a frame); `cls`: the class token (S=1); `tokens`: the last
            layer's output, all tokens with class and register tokens, or all positions of a feature map (S: how many).
        weights: `DEFAULT`: those of `name`; a state dict in a local file (its classifier is ignored); None: random.

    For the other arguments, and the errors, see `LibraryBackbone`. The stages are timm's groups of layers.
    """

    shown = ("name", "features", "precision")

    def __init__(
        self,
        name: str,
        features: str = "pooled",
        weights: str | Path | None = "DEFAULT",
        trainable: str | int = "none",
        freeze_batchnorm: bool = False,
        precision: str = "auto",
        fetch: bool = False,
    ) -> None:
        require("timm", AT_LEAST, "encoders", "backbone=timm")
        number_format = resolve_precision(precision, trainable)
        if features not in FEATURES:
            raise VidclfError(f"backbone.features={features}: allowed are {', '.join(FEATURES)}.")
        source, about, description = _find(name, fetch)
        path = None if weights is None else _find_weights(name, source, about, weights, fetch)
        with reading_folder(Path(source.removeprefix(LOCAL))):
            network: Any = _build(source, about, path)
            picture_format = picture_format_of(name, network)
        super().__init__(
            source.removeprefix(LOCAL).rstrip("/").rpartition("/")[2],
            network.to(memory_format=torch.channels_last),
            network.head_hidden_size if features == "pooled" else network.num_features,
            picture_format,
            number_format,
            trainable,
            freeze_batchnorm,
        )
        self.features, self.configuration = features, description
        self.licence = str(network.pretrained_cfg.get("license") or "") if weights == "DEFAULT" else ""
        if features == "cls" and getattr(network, "cls_token", None) is None:
            raise VidclfError(
                f"backbone.features=cls: {self.name} has no class token. Use backbone.features=pooled or tokens."
            )

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N S D"]:
        """Return the features of every image, those of a view's frames one after the other."""
        folded = images.flatten(0, 1).to(dtype=self._dtype, memory_format=torch.channels_last)
        if self.network.pretrained_cfg.get("fixed_input_size"):
            self.check_size(folded)
        output = self.network(folded) if self.features == "pooled" else self.network.forward_features(folded)
        steps = self._steps(output)  # (N*T, S, D)
        return steps.unflatten(0, images.shape[:2]).flatten(1, 2)

    def _steps(self, output: object) -> Float[Tensor, "N S D"]:
        allowed = {"pooled": (2,), "cls": (3,), "tokens": (3, 4)}[self.features]
        if not isinstance(output, Tensor) or output.ndim not in allowed:
            shape = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise VidclfError(
                f"backbone.features={self.features}: {self.name} gives {shape} there, which is not a sequence of "
                f"features. Choose another of {', '.join(FEATURES)}, or another model."
            )
        if output.ndim == 2:
            return output.unsqueeze(1)
        if output.ndim == 3:
            return output[:, :1] if self.features == "cls" else output
        if getattr(self.network, "output_fmt", "NCHW") == "NHWC":
            return output.flatten(1, 2)
        return output.flatten(2).transpose(1, 2)


def picture_format_of(name: str, network: Any) -> PictureFormat:
    """Return how timm prepares images for a network's weights; they must be square RGB."""
    from timm.data import resolve_model_data_config

    data = resolve_model_data_config(network)
    channels, height, width = data["input_size"]
    if channels != 3 or height != width or data["crop_mode"] not in ("center", "squash"):
        raise VidclfError(
            f"backbone.name={name}: it takes images of {height} x {width} in {channels} channels, "
            f"crop_mode={data['crop_mode']}; allowed are square images of 3 channels, crop_mode=center or squash."
        )
    resize = math.floor(height / data["crop_pct"])
    return PictureFormat(
        size=height,
        resize=(resize, resize) if data["crop_mode"] == "squash" else resize,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
    )


def _find(name: str, fetch: bool) -> tuple[str, Mapping[str, Any], str]:
    """Return timm's name of the model, the properties of its weights, and the text of its config.json, if any."""
    check_local(name)
    if name.startswith((LOCAL, *HUB)):
        where = name.partition(":")[2]
        if name.startswith(LOCAL) and not os.path.isdir(folder_at(where)):
            raise VidclfError(f"backbone.name={name}: no such folder.")
        folder = find_folder(where, fetch)
        description = _read_description(folder)
        about = description.get("pretrained_cfg", description)
        return f"{LOCAL}{folder}", about, json.dumps(description, sort_keys=True)
    import timm

    architecture, tag, _ = name.partition(".")
    allowed = timm.list_models()
    if tag and architecture in allowed:
        allowed = timm.list_pretrained(f"{architecture}.*")
    check_name(name, allowed, "timm has no model")
    cfg = timm.models.get_pretrained_cfg(name)
    return name, cfg.to_dict() if cfg else {}, ""


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        description = json.loads((folder / "config.json").read_bytes())
        if isinstance(description, dict) and isinstance(description["architecture"], str):
            return description
    except (OSError, ValueError, KeyError):
        pass
    raise VidclfError(f"backbone.name={LOCAL}{folder}: it needs a config.json with an architecture, as timm saves it.")


def _find_weights(name: str, source: str, about: Mapping[str, Any], weights: str | Path, fetch: bool) -> Path:
    if str(weights) != "DEFAULT":
        path = weights_file(weights, ["DEFAULT"])
        verify_hash(path)
        return path
    if source.startswith(LOCAL):
        return weights_in(Path(source.removeprefix(LOCAL)))
    if about.get("hf_hub_id"):
        return find_file(about["hf_hub_id"], (SAFE[0], PICKLED[0]), fetch)
    if about.get("url"):
        return fetch_file(about["url"], fetch)
    raise VidclfError(
        f"backbone.name={name}: timm has no weights for it. Give a file (backbone.weights=FILE), or "
        "backbone.weights=null for random weights."
    )


def _build(source: str, about: Mapping[str, Any], path: Path | None) -> Any:
    """Return the network without its classifier, with the weights of the file, which must match it exactly.

    timm renames the keys of other projects' files. It loads strictly only if the file and the network have the same
    number of classes, so both have 0 here.
    """
    import timm

    logging.getLogger("timm").setLevel(logging.ERROR)
    if path is None:
        return timm.create_model(source, pretrained=False, num_classes=0)
    classifiers = about.get("classifier") or ()
    prefixes = tuple(f"{name}." for name in ([classifiers] if isinstance(classifiers, str) else classifiers))
    state = {name: tensor for name, tensor in read_state_dict(path).items() if not name.startswith(prefixes)}
    names = set(state)
    overlay = {"state_dict": state, "num_classes": 0, "classifier": None, "label_offset": None, "source": None}
    try:
        network: Any = timm.create_model(source, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except (RuntimeError, ValueError, KeyError, AttributeError, AssertionError, TypeError) as error:
        raise VidclfError(f"{path}: these are not exactly the weights of {source}. {error}") from error
    if "siglip" in source and getattr(network, "global_pool", "map") != "map":
        check_names(path, network, names)
    network.pretrained_cfg.pop("state_dict", None)
    verify_finite(network, path.name)
    return network


def check_names(path: Path, network: nn.Module, names: set[str]) -> None:
    """Raise VidclfError if a file's names are not the network's: timm loads SigLIP without pooling unchecked."""
    expected = network.state_dict().keys()
    missing, unknown = expected - names, {name for name in names - expected if not name.startswith("attn_pool.")}
    if missing or unknown:
        raise VidclfError(
            f"{path}: these are weights of another network: missing {sorted(missing)}, unknown {sorted(unknown)}."
        )

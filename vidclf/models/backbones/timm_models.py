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
from vidclf.models.backbones.hub import PICKLED, SAFE, check_local, find_file, find_folder, folder_at, weights_in
from vidclf.models.backbones.library import LibraryBackbone, check_name
from vidclf.models.backbones.trainable import resolve_precision
from vidclf.models.backbones.weights import SUFFIXES, fetch_file, read_state_dict, verify_finite, verify_hash
from vidclf.system.extras import require

AT_LEAST = "1.0.26"  # with DINOv3, and no warning of torch's own
FEATURES = ("pooled", "cls", "tokens")
LOCAL, HUB = "local-dir:", ("hf-hub:", "hf_hub:")


class TimmBackbone(LibraryBackbone):
    """The features that a model of timm has of each frame.

    Args:
        name: any of `timm.list_models()`, with the tag of its weights (`vit_small_patch16_dinov3.lvd1689m`) or
            without; `hf-hub:owner/model`; `local-dir:FOLDER`, as timm saves one.
        features: `pooled`: what its classifier takes in (S=1 a frame); `cls`: the class token (S=1); `tokens`: all
            that its last layer gives, class and register tokens too, or the places of a feature map (S their number).
        weights: `DEFAULT`: those of `name`; a state dict in a local file (a classifier in it is not used); None for
            random ones.
        trainable: `none` (frozen), `last`, `all`, or a number of stages, which are timm's own groups of layers.
        freeze_batchnorm: see `LibraryBackbone`.
        precision: `float32`, `bfloat16`, or `auto` (see `resolve_precision`).
        fetch: whether files that are not on this machine may be fetched.

    Attributes:
        feature_dim: D.
        picture_format: what timm evaluates these weights with.

    Raises:
        VidclfError: timm is not installed, an argument is none of the above, or the weights cannot be had or are not
            those of this network, whole.
    """

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
        source, about, self_described = _find(name, fetch)
        path = _find_weights(name, source, about, weights, fetch)
        network: Any = _build(source, about, path)
        super().__init__(
            source.removeprefix(LOCAL).rstrip("/").rpartition("/")[2],
            network.to(memory_format=torch.channels_last),
            network.head_hidden_size if features == "pooled" else network.num_features,
            picture_format_of(name, network),
            number_format,
            trainable,
            freeze_batchnorm,
        )
        self.features, self.configuration = features, self_described
        if features == "cls" and getattr(network, "cls_token", None) is None:
            raise VidclfError(
                f"backbone.features=cls: {self.name} has no class token. Use backbone.features=pooled or tokens."
            )

    def extra_repr(self) -> str:
        """Return what does not show in the layers."""
        return f"name={self.name}, features={self.features}, precision={self.precision}"

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N S D"]:
        """Return the features of every image on its own, those of a view's frames behind one another.

        Raises:
            VidclfError: the images are of a size that the network cannot take, or it gives no such features.
        """
        folded = images.flatten(0, 1).to(dtype=self._dtype, memory_format=torch.channels_last)
        self._check_size(folded)
        found = self.network(folded) if self.features == "pooled" else self.network.forward_features(folded)
        steps = self._steps(found)  # (N*T, S, D)
        return steps.unflatten(0, images.shape[:2]).flatten(1, 2)

    def _steps(self, found: object) -> Float[Tensor, "N S D"]:
        allowed = (2,) if self.features == "pooled" else (3,) if self.features == "cls" else (3, 4)
        if not isinstance(found, Tensor) or found.ndim not in allowed:
            shape = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise VidclfError(
                f"backbone.features={self.features}: {self.name} gives {shape} there, which is no sequence of "
                f"features. Choose another of {', '.join(FEATURES)}, or another model."
            )
        if found.ndim == 2:
            return found.unsqueeze(1)
        if found.ndim == 3:
            return found[:, :1] if self.features == "cls" else found
        if getattr(self.network, "output_fmt", "NCHW") == "NHWC":
            return found.flatten(1, 2)
        return found.flatten(2).transpose(1, 2)

    def _check_size(self, images: Tensor) -> None:
        size = self.picture_format.size
        if self.network.pretrained_cfg.get("fixed_input_size") and tuple(images.shape[-2:]) != (size, size):
            raise VidclfError(
                f"{self.name} takes images of {size} x {size}, which its positions are for; these have "
                f"{images.shape[-2]} x {images.shape[-1]}. Leave transform=backbone, or choose another model."
            )


def picture_format_of(name: str, network: Any) -> PictureFormat:
    """Return how timm prepares images for a network's weights.

    Raises:
        VidclfError: by a way that there is none here for.
    """
    from timm.data import resolve_model_data_config

    found = resolve_model_data_config(network)
    channels, height, width = found["input_size"]
    if channels != 3 or height != width or found["crop_mode"] not in ("center", "squash"):
        raise VidclfError(
            f"backbone.name={name}: it takes images of {height} x {width} in {channels} channels, "
            f"crop_mode={found['crop_mode']}; allowed here are squares of three, cropped or squashed."
        )
    resize = math.floor(height / found["crop_pct"])
    return PictureFormat(
        size=height,
        resize=(resize, resize) if found["crop_mode"] == "squash" else resize,
        mean=tuple(found["mean"]),
        std=tuple(found["std"]),
        interpolation=found["interpolation"],
    )


def _find(name: str, fetch: bool) -> tuple[str, Mapping[str, Any], str]:
    """Return what timm calls it, what is known of its weights, and the text that describes it, if a file does."""
    check_local(name)
    if name.startswith((LOCAL, *HUB)):
        where = name.partition(":")[2]
        if name.startswith(LOCAL) and not os.path.isdir(folder_at(where)):
            raise VidclfError(f"backbone.name={name}: there is no such folder.")
        folder = find_folder(where, fetch)
        described = _read_description(folder)
        return f"{LOCAL}{folder}", described.get("pretrained_cfg", described), json.dumps(described, sort_keys=True)
    import timm

    architecture, tag, _ = name.partition(".")
    known = timm.list_models()
    if tag and architecture in known:
        known = timm.list_pretrained(f"{architecture}.*")
    check_name(name, known, "timm has no model")
    cfg = timm.models.get_pretrained_cfg(name)
    return name, cfg.to_dict() if cfg else {}, ""


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        described = json.loads((folder / "config.json").read_bytes())
        if isinstance(described, dict) and isinstance(described["architecture"], str):
            return described
    except (OSError, ValueError, KeyError):
        pass
    raise VidclfError(f"backbone.name={LOCAL}{folder}: it needs a config.json with an architecture, as timm saves it.")


def _find_weights(
    name: str, source: str, about: Mapping[str, Any], weights: str | Path | None, fetch: bool
) -> Path | None:
    if weights is None:
        return None
    if str(weights) == "DEFAULT":
        if source.startswith(LOCAL):
            return weights_in(Path(source.removeprefix(LOCAL)))
        if about.get("hf_hub_id"):
            return find_file(about["hf_hub_id"], (SAFE[0], PICKLED[0]), fetch)
        if about.get("url"):
            return fetch_file(about["url"], fetch)
        raise VidclfError(
            f"backbone.name={name}: timm has no weights for it. Give a file (backbone.weights=FILE), or "
            "backbone.weights=null for random ones."
        )
    path = Path(weights).expanduser()
    if path.suffix not in (*SUFFIXES, ".bin"):
        raise VidclfError(
            f"backbone.weights={weights}: allowed are DEFAULT, a file ({', '.join(SUFFIXES)}), or null for random "
            "weights."
        )
    if not path.is_file():
        raise VidclfError(f"backbone.weights={weights}: there is no such file.")
    verify_hash(path)
    return path


def _build(source: str, about: Mapping[str, Any], path: Path | None) -> Any:
    """Return the network without its classifier, its weights those of the file, of which nothing else is left.

    timm's own rules rename what other projects call otherwise; it loads a state dict strictly, and lists what differs,
    where the file is for as many classes as the network has: none.
    """
    import timm

    logging.getLogger("timm").setLevel(logging.ERROR)
    if path is None:
        return timm.create_model(source, pretrained=False, num_classes=0)
    state = _without_classifier(read_state_dict(path), about.get("classifier"))
    names = set(state)
    overlay = {"state_dict": state, "num_classes": 0, "classifier": None, "label_offset": None, "source": None}
    try:
        network: Any = timm.create_model(source, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    except (RuntimeError, ValueError, KeyError, AttributeError, AssertionError, TypeError) as error:
        raise VidclfError(
            f"{path}: these are weights of another network than {source}, or not all of them. {error}"
        ) from error
    if "siglip" in source and getattr(network, "global_pool", "map") != "map":
        check_names(path, network, names)
    network.pretrained_cfg.pop("state_dict", None)
    verify_finite(network, path.name)
    return network


def _without_classifier(
    state: dict[str, Tensor], classifier: str | list[str] | tuple[str, ...] | None
) -> dict[str, Any]:
    names = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier or []))
    return {name: tensor for name, tensor in state.items() if not name.startswith(names)} if names else state


def check_names(path: Path, network: nn.Module, names: set[str]) -> None:
    """Raise VidclfError where a file's names are not the network's: timm loads SigLIP's without pooling unlooked at."""
    own = network.state_dict().keys()
    missing, unknown = own - names, {name for name in names - own if not name.startswith("attn_pool.")}
    if missing or unknown:
        raise VidclfError(
            f"{path}: these are weights of another network: missing {sorted(missing)}, unknown {sorted(unknown)}."
        )

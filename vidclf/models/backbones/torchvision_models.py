"""Any torchvision picture classifier, cut before its classifier: pictures -> features."""

from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision import models

from vidclf.errors import VidclfError
from vidclf.models.backbones.precision import resolve_precision
from vidclf.models.backbones.published import build_cut, check_name, cut_last_layer, picture_format_of, source_of
from vidclf.models.backbones.trainable import set_trainable

VGG_LAYERS = ("conv", "conv_avg", "fc6", "fc7")


class ImageBackbone(nn.Module):
    """The features that a torchvision network, trained to classify pictures, has of each frame.

    Args:
        name: any of `torchvision.models.list_models(module=torchvision.models)`.
        layer: where the network is cut; None takes the first of what there is.
            VGG and AlexNet: `conv` (the last feature maps, flattened: 7 * 7 * 512 for VGG), `conv_avg` (their
            mean over all positions), `fc6` and `fc7` (the hidden layers, after ReLU).
            All others: `penultimate`, what the last layer of the classifier takes in.
        weights: one of torchvision's names for them, a state dict in a local file (what it holds for the
            layers cut off is not looked at), or None for random ones.
        trainable: `none` (frozen), `last`, `all`, or a number of stages (see `set_trainable`).
        freeze_batchnorm: keep batch normalisation's statistics and scales as they are where the rest is trained.
        precision: `float32`, `bfloat16`, or `auto` (see `resolve_precision`).

    Attributes:
        feature_dim: D.
        picture_format: the pictures that torchvision evaluates these weights with (a file is known by its name), or
            the model's default weights.

    Raises:
        VidclfError: an argument is none of the above, or the weights cannot be had or are not the right ones.
    """

    def __init__(
        self,
        name: str = "vgg16",
        layer: str | None = None,
        weights: str | Path | None = "IMAGENET1K_V1",
        trainable: str | int = "none",
        freeze_batchnorm: bool = False,
        precision: str = "auto",
    ) -> None:
        super().__init__()
        check_name(name, models, "picture")
        self.name, self.layer = name, _check_layer(name, layer)
        dtype = getattr(torch, resolve_precision(precision, trainable))
        source = source_of(name, weights)
        self.picture_format = picture_format_of(name, source)
        network, self.feature_dim = build_cut(
            name, source, partial(_cut, layer=self.layer), **_options(name, self.picture_format.size)
        )
        self.network = network.to(dtype).to(memory_format=torch.channels_last)  # the faster layout
        set_trainable(self.network, trainable, freeze_batchnorm)
        self.eval()

    @property
    def precision(self) -> str:
        """The number format of the computation and of the features: `float32` or `bfloat16`."""
        return str(self._dtype).removeprefix("torch.")

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def extra_repr(self) -> str:
        """Return what changes a feature and does not show in the layers; the feature store keys on it."""
        return f"name={self.name}, layer={self.layer}, precision={self.precision}"

    def forward(self, pictures: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N T D"]:
        """Return the features of every picture on its own."""
        folded = pictures.flatten(0, 1).to(dtype=self._dtype, memory_format=torch.channels_last)
        return self.network(folded).unflatten(0, pictures.shape[:2])  # (N*T, D) -> (N, T, D)


def _check_layer(name: str, layer: str | None) -> str:
    allowed = VGG_LAYERS if name.startswith(("vgg", "alexnet")) else ("penultimate",)
    if layer is not None and layer not in allowed:
        raise VidclfError(f"backbone.layer={layer}: allowed for {name} are {', '.join(allowed)}, or null.")
    return layer or allowed[0]


def _options(name: str, size: int) -> dict[str, object]:
    if name in ("googlenet", "inception_v3"):
        return {"init_weights": False}  # they warn that their own initialisation will go
    if name.startswith("vit"):
        return {"image_size": size}  # a vision transformer learns a number for each position
    return {}


def _cut(network: nn.Module, layer: str) -> int:
    if isinstance(network, models.VGG | models.AlexNet):
        return _cut_vgg(network, layer)
    return cut_last_layer(network)


def _cut_vgg(network: models.VGG | models.AlexNet, layer: str) -> int:
    """Cut `network` after `layer`, in place; return the width of what is left.

    VGG kept AlexNet's classifier: fc6, ReLU, fc7, ReLU, fc8, and dropout between.
    """
    fc6, fc7, _ = [i for i, module in enumerate(network.classifier) if isinstance(module, nn.Linear)]
    last_convolution = [module for module in network.features if isinstance(module, nn.Conv2d)][-1]
    kept, feature_dim = {
        "conv": (0, network.classifier[fc6].in_features),
        "conv_avg": (0, last_convolution.out_channels),
        "fc6": (fc6 + 2, network.classifier[fc6].out_features),  # + 2: the layer and its ReLU
        "fc7": (fc7 + 2, network.classifier[fc7].out_features),
    }[layer]
    network.classifier = network.classifier[:kept]
    if layer == "conv_avg":
        network.avgpool = nn.AdaptiveAvgPool2d(1)
    return feature_dim

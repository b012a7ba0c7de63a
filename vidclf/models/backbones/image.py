"""Any torchvision picture classifier, cut before its classifier: pictures -> features."""

from difflib import get_close_matches
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from vidclf.errors import VidclfError
from vidclf.models.backbones.precision import resolve_precision
from vidclf.models.backbones.preset import Preset
from vidclf.models.backbones.weights import fetch, find_weights, load_weights, verify_finite, verify_hash

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
        trainable: `none`; the backbone is frozen.
        precision: `float32`, `bfloat16`, or `auto` (see `resolve_precision`).

    Attributes:
        feature_dim: D.
        preset: the pictures that torchvision evaluates these weights with (a file is known by its name), or
            the model's default weights.

    Raises:
        VidclfError: an argument is none of the above, or the weights cannot be had or are not the right ones.
    """

    def __init__(
        self,
        name: str = "vgg16",
        layer: str | None = None,
        weights: str | Path | None = "IMAGENET1K_V1",
        trainable: str = "none",
        precision: str = "auto",
    ) -> None:
        super().__init__()
        if trainable != "none":
            raise VidclfError(f"backbone.trainable={trainable}: allowed is none (a frozen backbone).")
        _check_name(name)
        self.name, self.layer = name, _check_layer(name, layer)
        dtype = getattr(torch, resolve_precision(precision))
        source = None if weights is None else find_weights(name, weights)

        self.preset = _preset(name, source)
        network, self.feature_dim = _build(name, self.layer, source, self.preset.size)
        if weights is not None:
            verify_finite(network, str(weights))
        self.network = network.to(dtype).to(memory_format=torch.channels_last)  # the faster layout
        self.requires_grad_(False).eval()

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


def _check_name(name: str) -> None:
    allowed = models.list_models(module=models)
    if name not in allowed:
        close = get_close_matches(name, allowed, n=4, cutoff=0.5)
        raise VidclfError(
            f"backbone.name={name}: torchvision has no picture classifier of that name. "
            + (f"Did you mean {', '.join(close)}?" if close else f"Allowed are {', '.join(allowed)}.")
        )


def _check_layer(name: str, layer: str | None) -> str:
    allowed = VGG_LAYERS if name.startswith(("vgg", "alexnet")) else ("penultimate",)
    if layer is not None and layer not in allowed:
        raise VidclfError(f"backbone.layer={layer}: allowed for {name} are {', '.join(allowed)}, or null.")
    return layer or allowed[0]


def _build(name: str, layer: str, source: WeightsEnum | Path | None, size: int) -> tuple[nn.Module, int]:
    """Return the cut network with its weights, and the width of its features."""
    published = source if isinstance(source, WeightsEnum) else None
    if published is not None:
        fetch(published)
    network = models.get_model(name, weights=published, progress=False, **_options(name, size))
    whole = network.state_dict().keys()
    if isinstance(network, models.VGG | models.AlexNet):
        feature_dim = _cut_vgg(network, layer)
    else:
        feature_dim = _cut_before_classifier(network)
    if isinstance(source, Path):
        verify_hash(source)
        load_weights(network, source, unused=whole - network.state_dict().keys())
        if hasattr(network, "transform_input"):  # torchvision's GoogLeNet and Inception were trained so
            network.transform_input = True
    return network, feature_dim


def _options(name: str, size: int) -> dict[str, object]:
    if name in ("googlenet", "inception_v3"):
        return {"init_weights": False}  # they warn that their own initialisation will go
    if name.startswith("vit"):
        return {"image_size": size}  # a vision transformer learns a number for each position
    return {}


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


def _cut_before_classifier(network: nn.Module) -> int:
    """Take the last layer with weights out of `network`, in place; return the width of what it took in.

    It is a linear layer, but for SqueezeNet's, a convolution whose maps are averaged afterwards.
    """
    name, last = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    network.set_submodule(name, nn.Identity())
    for auxiliary in ("aux1", "aux2", "AuxLogits"):  # GoogLeNet's and Inception's classifiers for training
        if hasattr(network, auxiliary):
            setattr(network, auxiliary, None)
            network.aux_logits = False  # type: ignore[assignment]
    return last.in_channels if isinstance(last, nn.Conv2d) else last.in_features


def _preset(name: str, source: WeightsEnum | Path | None) -> Preset:
    """Return how torchvision prepares pictures for these weights (a file is known by its name), or by default."""
    published = models.get_model_weights(name)
    if isinstance(source, Path):
        source = next((weights for weights in published if Path(weights.url).name == source.name), None)
    transforms = (source or published.DEFAULT).transforms()
    return Preset(
        size=transforms.crop_size[0],  # a list of one number: a square
        resize=transforms.resize_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )

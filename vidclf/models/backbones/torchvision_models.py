"""Any torchvision image or video classifier, cut before its classifier: images or clips -> features."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from vidclf.contracts import PictureFormat
from vidclf.errors import VidclfError
from vidclf.models.backbones.library import LibraryBackbone, check_name, wrong_length
from vidclf.models.backbones.trainable import resolve_precision
from vidclf.models.backbones.weights import fetch, find_weights, load_weights, verify_finite, verify_hash

VGG_LAYERS = ("conv", "conv_avg", "fc6", "fc7")
CLIP_LENGTH = {"swin3d": 32}  # frames that the published figures were made with; 16 for the others
SHORTEST = {"s3d": 14}


class TorchvisionBackbone(LibraryBackbone):
    """What torchvision's image and video models share: a network without its classifier, and its images.

    Args:
        name: of a model that there is.
        weights: one of torchvision's names for them, a state dict in a local file (what it holds for the
            layers cut off is not looked at), or None for random ones.
        trainable: `none` (frozen), `last`, `all`, or a number of stages (see `set_trainable`).
        freeze_batchnorm: keep batch normalisation's statistics and scales as they are where the rest is trained.
        precision: `float32`, `bfloat16`, or `auto` (see `resolve_precision`).
        cut: takes the classifier off, in place, and returns the width of what is left.
        clip_length: frames that go in at once.

    Attributes:
        feature_dim: D.
        picture_format: the images that torchvision evaluates these weights with (a file is known by its name), or
            the model's default weights.

    Raises:
        VidclfError: an argument is none of the above, or the weights cannot be had or are not the right ones.
    """

    def __init__(
        self,
        name: str,
        weights: str | Path | None,
        trainable: str | int,
        freeze_batchnorm: bool,
        precision: str,
        cut: Callable[[nn.Module], int],
        clip_length: int = 1,
    ) -> None:
        number_format = resolve_precision(precision, trainable)
        source = None if weights is None else find_weights(name, weights)
        picture_format = _picture_format(name, source, clip_length)
        network, feature_dim = _build_cut(name, source, cut, **_options(name, picture_format.size))
        super().__init__(name, network, feature_dim, picture_format, number_format, trainable, freeze_batchnorm)


class ImageBackbone(TorchvisionBackbone):
    """The features that a torchvision network, trained to classify images, has of each frame.

    Args:
        name: any of `torchvision.models.list_models(module=torchvision.models)`.
        layer: where the network is cut; None takes the first of what there is.
            VGG and AlexNet: `conv` (the last feature maps, flattened: 7 * 7 * 512 for VGG), `conv_avg` (their
            mean over all positions), `fc6` and `fc7` (the hidden layers, after ReLU).
            All others: `penultimate`, what the last layer of the classifier takes in.

    The others are those of `TorchvisionBackbone`.
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
        check_name(name, models.list_models(module=models), "torchvision has no image classifier")
        layer = _check_layer(name, layer)
        super().__init__(name, weights, trainable, freeze_batchnorm, precision, partial(_cut, layer=layer))
        self.layer = layer
        self.network.to(memory_format=torch.channels_last)  # the faster layout

    def extra_repr(self) -> str:
        """Return what does not show in the layers."""
        return f"name={self.name}, layer={self.layer}, precision={self.precision}"

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N T D"]:
        """Return the features of every image on its own."""
        folded = images.flatten(0, 1).to(dtype=self._dtype, memory_format=torch.channels_last)
        return self.network(folded).unflatten(0, images.shape[:2])  # (N*T, D) -> (N, T, D)


class ClipBackbone(TorchvisionBackbone):
    """The features that a torchvision network, trained to classify clips, has of each view as a whole (S=1).

    Args:
        name: any of `torchvision.models.list_models(module=torchvision.models.video)`.

    The others are those of `TorchvisionBackbone`.
    """

    def __init__(
        self,
        name: str = "r3d_18",
        weights: str | Path | None = "KINETICS400_V1",
        trainable: str | int = "none",
        freeze_batchnorm: bool = False,
        precision: str = "auto",
    ) -> None:
        check_name(name, models.list_models(module=models.video), "torchvision has no video classifier")
        clip_length = CLIP_LENGTH.get(name.split("_")[0], 16)
        super().__init__(name, weights, trainable, freeze_batchnorm, precision, cut_last_layer, clip_length)

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N 1 D"]:
        """Return the features of every clip.

        Raises:
            VidclfError: the network cannot take clips of T frames.
        """
        _check_clip_length(self.name, images.shape[1])
        clips = images.transpose(1, 2).to(self._dtype)  # (N, 3, T, h, w)
        return self.network(clips).unsqueeze(1)


def _check_layer(name: str, layer: str | None) -> str:
    allowed = VGG_LAYERS if name.startswith(("vgg", "alexnet")) else ("penultimate",)
    if layer is not None and layer not in allowed:
        raise VidclfError(f"backbone.layer={layer}: allowed for {name} are {', '.join(allowed)}, or null.")
    return layer or allowed[0]


def _check_clip_length(name: str, num_frames: int) -> None:
    family = name.split("_")[0]
    if family == "mvit" and num_frames != 16:
        allowed = "16 frames"
    elif family == "swin3d" and num_frames % 2:
        allowed = "an even number of frames"
    elif num_frames < SHORTEST.get(family, 1):
        allowed = f"at least {SHORTEST[family]} frames"
    else:
        return
    raise wrong_length(name, num_frames, allowed)


def _picture_format(name: str, source: WeightsEnum | Path | None, clip_length: int) -> PictureFormat:
    """Return how torchvision prepares images for these weights (a file is known by its name), or by default."""
    published = models.get_model_weights(name)
    if isinstance(source, Path):
        source = next((weights for weights in published if Path(weights.url).name == source.name), None)
    transforms = (source or published.DEFAULT).transforms()
    resize = transforms.resize_size
    return PictureFormat(
        size=transforms.crop_size[0],  # a list of one number, or of two alike: a square
        resize=resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
        clip_length=clip_length,
    )


def _options(name: str, size: int) -> dict[str, object]:
    if name in ("googlenet", "inception_v3"):
        return {"init_weights": False}  # they warn that their own initialisation will go
    if name.startswith("vit"):
        return {"image_size": size}  # a vision transformer learns a number for each position
    return {}


def _build_cut(
    name: str, source: WeightsEnum | Path | None, cut: Callable[[nn.Module], int], **options: object
) -> tuple[nn.Module, int]:
    """Return the network with its weights after `cut` took its classifier off, and the width of what is left."""
    published = source if isinstance(source, WeightsEnum) else None
    if published is not None:
        fetch(published)
    network = models.get_model(name, weights=published, progress=False, **options)
    whole = network.state_dict().keys()
    feature_dim = cut(network)
    if isinstance(source, Path):
        verify_hash(source)
        load_weights(network, source, unused=whole - network.state_dict().keys())
        if hasattr(network, "transform_input"):  # torchvision's GoogLeNet and Inception were trained so
            network.transform_input = True
    if source is not None:
        verify_finite(network, source.name)
    return network, feature_dim


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


def cut_last_layer(network: nn.Module) -> int:
    """Take the last layer with weights out of `network`, in place; return the width of what it took in.

    It is a linear layer, but for SqueezeNet's and S3D's, convolutions whose maps are averaged afterwards.
    """
    kinds = (nn.Linear, nn.Conv2d, nn.Conv3d)
    name, last = [(n, m) for n, m in network.named_modules() if isinstance(m, kinds)][-1]
    network.set_submodule(name, nn.Identity())
    for auxiliary in ("aux1", "aux2", "AuxLogits"):  # GoogLeNet's and Inception's classifiers for training
        if hasattr(network, auxiliary):
            setattr(network, auxiliary, None)
            network.aux_logits = False  # type: ignore[assignment]
    return last.in_features if isinstance(last, nn.Linear) else last.in_channels

"""Any torchvision image or video classifier, cut before its classifier: images or clips -> features."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from vidclf.contracts import PictureFormat
from vidclf.errors import VidclfError
from vidclf.models.backbones.library import LibraryBackbone, check_name, wrong_length
from vidclf.models.backbones.trainable import resolve_precision
from vidclf.models.backbones.weights import fetch_file, load_weights, verify_finite, verify_hash, weights_file

VGG_LAYERS = ("conv", "conv_avg", "fc6", "fc7")
CLIP_LENGTH = {"swin3d": 32}  # frames that the published figures were made with; 16 for the others


class ImageBackbone(LibraryBackbone):
    """The features that a torchvision network, trained to classify images, has of each frame.

    Args:
        name: any of `torchvision.models.list_models(module=torchvision.models)`.
        layer: where the network is cut; None: at the first of these.
            VGG and AlexNet: `conv` (the last feature maps, flattened: 7 * 7 * 512 for VGG), `conv_avg` (their
            mean over all positions), `fc6` and `fc7` (the hidden layers, after ReLU).
            All others: `penultimate`, the input of the classifier's last layer.
        weights: one of torchvision's names for them, a state dict in a local file (its values for the layers cut off
            are ignored), or None for random ones. The images are those of the weights, if the file's name is known,
            else of the model's default weights.

    For the other arguments, and the errors, see `LibraryBackbone`.
    """

    shown = ("name", "layer", "precision")

    def __init__(
        self,
        name: str = "vgg16",
        layer: str | None = None,
        weights: str | Path | None = "IMAGENET1K_V1",
        trainable: str | int = "none",
        freeze_batchnorm: bool = False,
        precision: str = "auto",
        fetch: bool = False,
    ) -> None:
        check_name(name, models.list_models(module=models), "torchvision has no image classifier")
        allowed = VGG_LAYERS if name.startswith(("vgg", "alexnet")) else ("penultimate",)
        layer = allowed[0] if layer is None else layer
        if layer not in allowed:
            raise VidclfError(f"backbone.layer={layer}: allowed for {name} are {', '.join(allowed)}, or null.")
        number_format = resolve_precision(precision, trainable)
        network, feature_dim, picture_format = _load(name, weights, fetch, layer)
        super().__init__(name, network, feature_dim, picture_format, number_format, trainable, freeze_batchnorm)
        self.layer = layer
        self.network.to(memory_format=torch.channels_last)  # the faster layout

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N T D"]:
        folded = images.flatten(0, 1).to(dtype=self._dtype, memory_format=torch.channels_last)
        return self.network(folded).unflatten(0, images.shape[:2])  # (N*T, D) -> (N, T, D)


class ClipBackbone(LibraryBackbone):
    """The features that a torchvision network, trained to classify clips, has of each view as a whole (S=1).

    Args:
        name: any of `torchvision.models.list_models(module=torchvision.models.video)`.

    For the other arguments see `ImageBackbone`.
    """

    def __init__(
        self,
        name: str = "r3d_18",
        weights: str | Path | None = "KINETICS400_V1",
        trainable: str | int = "none",
        freeze_batchnorm: bool = False,
        precision: str = "auto",
        fetch: bool = False,
    ) -> None:
        check_name(name, models.list_models(module=models.video), "torchvision has no video classifier")
        number_format = resolve_precision(precision, trainable)
        network, feature_dim, picture_format = _load(
            name, weights, fetch, clip_length=CLIP_LENGTH.get(name.split("_")[0], 16)
        )
        super().__init__(name, network, feature_dim, picture_format, number_format, trainable, freeze_batchnorm)

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N 1 D"]:
        num_frames, family = images.shape[1], self.name.split("_")[0]
        if family == "mvit" and num_frames != 16:
            raise wrong_length(self.name, num_frames, "16 frames")
        if family == "swin3d" and num_frames % 2:
            raise wrong_length(self.name, num_frames, "an even number of frames")
        if family == "s3d" and num_frames < 14:
            raise wrong_length(self.name, num_frames, "at least 14 frames")
        clips = images.transpose(1, 2).to(self._dtype)  # (N, 3, T, h, w)
        return self.network(clips).unsqueeze(1)


def _load(
    name: str, weights: str | Path | None, fetch: bool, layer: str = "penultimate", clip_length: int = 1
) -> tuple[nn.Module, int, PictureFormat]:
    """Return the network with its weights, cut after `layer`, the width of its output, and its images."""
    published = models.get_model_weights(name).__members__
    source, path = published.get(str(weights)), None
    if source:
        fetch_file(source.url, fetch)
    elif weights is not None:
        path = weights_file(weights, published)
        verify_hash(path)
    picture_format = _picture_format(name, source or path, clip_length)
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False  # the default warns that it will change
    if name.startswith("vit"):
        options["image_size"] = picture_format.size  # it has an embedding for each position
    network = models.get_model(name, weights=source, progress=False, **options)
    all_names = network.state_dict().keys()
    feature_dim = _cut(network, layer)
    if path:
        load_weights(network, path, unused=all_names - network.state_dict().keys())
        if hasattr(network, "transform_input"):
            network.transform_input = True  # the published GoogLeNet and Inception were trained so
    if loaded := source or path:
        verify_finite(network, loaded.name)
    return network, feature_dim, picture_format


def _picture_format(name: str, source: WeightsEnum | Path | None, clip_length: int) -> PictureFormat:
    """Return how torchvision prepares images for these weights (a file is recognised by its name), or by default."""
    published = models.get_model_weights(name)
    if isinstance(source, Path):
        source = next((weights for weights in published if Path(weights.url).name == source.name), None)
    transforms = (source or published.DEFAULT).transforms()
    resize = transforms.resize_size
    return PictureFormat(
        size=transforms.crop_size[0],  # a list of one number, or of two equal ones: a square
        resize=resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
        clip_length=clip_length,
    )


def _cut(network: nn.Module, layer: str) -> int:
    """Cut `network` after `layer`, in place; return the width of its output."""
    if not isinstance(network, models.VGG | models.AlexNet):
        return cut_last_layer(network)
    # Both have the same classifier: fc6, ReLU, fc7, ReLU, fc8, and dropout between.
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
    """Take the last layer with weights out of `network`, in place; return the width of that layer's input.

    It is a linear layer, except in SqueezeNet and S3D: there it is a convolution, followed by the mean of its maps.
    """
    kinds = (nn.Linear, nn.Conv2d, nn.Conv3d)
    name, last = [(n, m) for n, m in network.named_modules() if isinstance(m, kinds)][-1]
    network.set_submodule(name, nn.Identity())
    for auxiliary in ("aux1", "aux2", "AuxLogits"):  # classifiers of GoogLeNet and Inception, for training only
        if hasattr(network, auxiliary):
            setattr(network, auxiliary, None)
            network.aux_logits = False  # type: ignore[assignment]
    return last.in_features if isinstance(last, nn.Linear) else last.in_channels

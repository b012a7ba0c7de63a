"""What picture and video models of torchvision share: names, presets, and weights before the classifier is cut off."""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from torch import nn
from torchvision import models
from torchvision.models import WeightsEnum

from vidclf.contracts import PictureFormat
from vidclf.errors import VidclfError
from vidclf.models.backbones.weights import fetch, find_weights, load_weights, verify_finite, verify_hash


def check_name(name: str, module: ModuleType, kind: str) -> None:
    """Raise VidclfError unless torchvision's `module` has a model of that name."""
    allowed = models.list_models(module=module)
    if name not in allowed:
        close = get_close_matches(name, allowed, n=4, cutoff=0.5)
        raise VidclfError(
            f"backbone.name={name}: torchvision has no {kind} classifier of that name. "
            + (f"Did you mean {', '.join(close)}?" if close else f"Allowed are {', '.join(allowed)}.")
        )


def source_of(name: str, weights: str | Path | None) -> WeightsEnum | Path | None:
    """Return torchvision's weights of that name, the file at that path, or None for random ones."""
    return None if weights is None else find_weights(name, weights)


def picture_format_of(name: str, source: WeightsEnum | Path | None, clip_length: int = 1) -> PictureFormat:
    """Return how torchvision prepares pictures for these weights (a file is known by its name), or by default."""
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


def build_cut(
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

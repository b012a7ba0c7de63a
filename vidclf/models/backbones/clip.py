"""Any torchvision video classifier, cut before its classifier: clips -> features."""

from difflib import get_close_matches
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum, video

from vidclf.errors import VidclfError
from vidclf.models.backbones.precision import resolve_precision
from vidclf.models.backbones.preset import Preset
from vidclf.models.backbones.weights import fetch, find_weights, load_weights, verify_finite, verify_hash

CLIP_LENGTH = {"swin3d": 32}  # frames that the published figures were made with; 16 for the others
SHORTEST = {"s3d": 14}


class ClipBackbone(nn.Module):
    """The features that a torchvision network, trained to classify clips, has of each view as a whole (S=1).

    Args:
        name: any of `torchvision.models.list_models(module=torchvision.models.video)`.
        weights: one of torchvision's names for them, a state dict in a local file, or None for random ones.
        trainable: `none`; the backbone is frozen.
        precision: `float32`, `bfloat16`, or `auto` (see `resolve_precision`).

    Attributes:
        feature_dim: D.
        preset: the pictures that torchvision evaluates the model's weights with, and how many make a clip.

    Raises:
        VidclfError: an argument is none of the above, or the weights cannot be had or are not the right ones.
    """

    def __init__(
        self,
        name: str = "r3d_18",
        weights: str | Path | None = "KINETICS400_V1",
        trainable: str = "none",
        precision: str = "auto",
    ) -> None:
        super().__init__()
        if trainable != "none":
            raise VidclfError(f"backbone.trainable={trainable}: allowed is none (a frozen backbone).")
        _check_name(name)
        self.name = name
        dtype = getattr(torch, resolve_precision(precision))
        source = None if weights is None else find_weights(name, weights)
        self.preset = _preset(name, source)
        network, self.feature_dim = _build(name, source)
        if weights is not None:
            verify_finite(network, str(weights))
        self.network = network.to(dtype)
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
        return f"name={self.name}, precision={self.precision}"

    def forward(self, pictures: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N 1 D"]:
        """Return the features of every clip.

        Raises:
            VidclfError: the network cannot take clips of T frames.
        """
        _check_clip_length(self.name, pictures.shape[1])
        clips = pictures.transpose(1, 2).to(self._dtype)  # (N, 3, T, h, w)
        return self.network(clips).unsqueeze(1)


def _check_name(name: str) -> None:
    allowed = models.list_models(module=video)
    if name not in allowed:
        close = get_close_matches(name, allowed, n=4, cutoff=0.5)
        raise VidclfError(
            f"backbone.name={name}: torchvision has no video classifier of that name. "
            + (f"Did you mean {', '.join(close)}?" if close else f"Allowed are {', '.join(allowed)}.")
        )


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
    raise VidclfError(
        f"{name} takes views of {allowed}, these have {num_frames}. Set sampling.num_frames, e.g. sampling=dense "
        "sampling.num_frames=16."
    )


def _build(name: str, source: WeightsEnum | Path | None) -> tuple[nn.Module, int]:
    """Return the network without its last layer, with its weights, and the width of its features."""
    published = source if isinstance(source, WeightsEnum) else None
    if published is not None:
        fetch(published)
    network = models.get_model(name, weights=published, progress=False)
    whole = network.state_dict().keys()
    # The last layer with weights is linear, but for S3D's, a convolution whose maps are averaged afterwards.
    last_name, last = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv3d)][-1]
    network.set_submodule(last_name, nn.Identity())
    if isinstance(source, Path):
        verify_hash(source)
        load_weights(network, source, unused=whole - network.state_dict().keys())
    return network, last.in_channels if isinstance(last, nn.Conv3d) else last.in_features


def _preset(name: str, source: WeightsEnum | Path | None) -> Preset:
    """Return how torchvision prepares pictures for these weights (a file is known by its name), or by default."""
    published = models.get_model_weights(name)
    if isinstance(source, Path):
        source = next((weights for weights in published if Path(weights.url).name == source.name), None)
    transforms = (source or published.DEFAULT).transforms()
    resize = transforms.resize_size
    return Preset(
        size=transforms.crop_size[0],  # a list of one number or two alike: a square
        resize=resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
        clip_length=CLIP_LENGTH.get(name.split("_")[0], 16),
    )

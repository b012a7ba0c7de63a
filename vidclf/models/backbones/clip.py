"""Any torchvision video classifier, cut before its classifier: clips -> features."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import video

from vidclf.errors import VidclfError
from vidclf.models.backbones.precision import resolve_precision
from vidclf.models.backbones.published import build_cut, check_name, cut_last_layer, picture_format_of, source_of
from vidclf.models.backbones.trainable import set_trainable

CLIP_LENGTH = {"swin3d": 32}  # frames that the published figures were made with; 16 for the others
SHORTEST = {"s3d": 14}


class ClipBackbone(nn.Module):
    """The features that a torchvision network, trained to classify clips, has of each view as a whole (S=1).

    Args:
        name: any of `torchvision.models.list_models(module=torchvision.models.video)`.
        weights: one of torchvision's names for them, a state dict in a local file, or None for random ones.
        trainable: `none` (frozen), `last`, `all`, or a number of stages (see `set_trainable`).
        freeze_batchnorm: keep batch normalisation's statistics and scales as they are where the rest is trained.
        precision: `float32`, `bfloat16`, or `auto` (see `resolve_precision`).

    Attributes:
        feature_dim: D.
        picture_format: the pictures that torchvision evaluates the model's weights with, and how many make a clip.

    Raises:
        VidclfError: an argument is none of the above, or the weights cannot be had or are not the right ones.
    """

    def __init__(
        self,
        name: str = "r3d_18",
        weights: str | Path | None = "KINETICS400_V1",
        trainable: str | int = "none",
        freeze_batchnorm: bool = False,
        precision: str = "auto",
    ) -> None:
        super().__init__()
        check_name(name, video, "video")
        self.name = name
        dtype = getattr(torch, resolve_precision(precision, trainable))
        source = source_of(name, weights)
        self.picture_format = picture_format_of(name, source, CLIP_LENGTH.get(name.split("_")[0], 16))
        network, self.feature_dim = build_cut(name, source, cut_last_layer)
        self.network = network.to(dtype)
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
        return f"name={self.name}, precision={self.precision}"

    def forward(self, pictures: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N 1 D"]:
        """Return the features of every clip.

        Raises:
            VidclfError: the network cannot take clips of T frames.
        """
        _check_clip_length(self.name, pictures.shape[1])
        clips = pictures.transpose(1, 2).to(self._dtype)  # (N, 3, T, h, w)
        return self.network(clips).unsqueeze(1)


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

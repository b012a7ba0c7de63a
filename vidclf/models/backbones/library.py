"""What the backbones of all libraries share: a name, a number format, the stages that are trained, error messages."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vidclf.contracts import PictureFormat
from vidclf.errors import VidclfError
from vidclf.models.backbones.trainable import set_trainable
from vidclf.system.text import first_five


class LibraryBackbone(nn.Module):
    """A library's network without its classifier, and the images that it takes.

    Args:
        name: of the network, for messages and for the store's folder.
        network: with its weights.
        feature_dim: D.
        picture_format: the images that the weights were made for.
        number_format: `float32` or `bfloat16`, for the computation (see `resolve_precision`).
        trainable: `none` (frozen), `last`, `all`, or a number of stages (see `set_trainable`).
        freeze_batchnorm: keep the statistics and scales of batch normalisation while the rest is trained.

    The libraries' backbones share `trainable`, `freeze_batchnorm`, `precision` (`float32`, `bfloat16`, or `auto`, see
    `resolve_precision`) and `fetch` (whether files that are not on this machine may be fetched).

    Raises:
        VidclfError: the library is not installed, an argument is not allowed, the weights cannot be had or do not
            match the network exactly; in `forward`: the network cannot take views of this length, or images of this
            size.
    """

    network: Any
    shown: ClassVar[tuple[str, ...]] = ("name", "precision")  # attributes that the repr shows

    def __init__(
        self,
        name: str,
        network: nn.Module,
        feature_dim: int,
        picture_format: PictureFormat,
        number_format: str,
        trainable: str | int,
        freeze_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.feature_dim, self.picture_format = name, feature_dim, picture_format
        self.network = network.to(getattr(torch, number_format))
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
        """Return the settings that the layers do not show."""
        return ", ".join(f"{key}={getattr(self, key)}" for key in self.shown)

    def check_size(self, images: Tensor) -> None:
        """Raise VidclfError if images are not of the size that the network's position embeddings are for."""
        size, (height, width) = self.picture_format.size, images.shape[-2:]
        if (height, width) != (size, size):
            raise VidclfError(
                f"{self.name} takes images of {size} x {size}, for which its positions were learned; these have "
                f"{height} x {width}. Leave transform=backbone, or choose another model."
            )


def check_name(name: str, allowed: Sequence[str], problem: str) -> None:
    """Raise VidclfError if `name` is not in `allowed`; the message names those that are similar."""
    if name not in allowed:
        similar = get_close_matches(name, allowed, n=4, cutoff=0.5)
        advice = f"Did you mean {', '.join(similar)}?" if similar else f"There are {first_five(allowed)}."
        raise VidclfError(f"backbone.name={name}: {problem} of that name. {advice}")


def wrong_length(name: str, num_frames: int, allowed: str, example: int = 16) -> VidclfError:
    """Return the error for views of a length that a network cannot take."""
    return VidclfError(
        f"{name} takes views of {allowed}, these have {num_frames}. Set sampling.num_frames, e.g. sampling=dense "
        f"sampling.num_frames={example}."
    )

"""What backbones made of a library's networks share: a name, a number format, the part that is trained."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from vidclf.contracts import PictureFormat
from vidclf.errors import VidclfError
from vidclf.models.backbones.trainable import set_trainable
from vidclf.system.text import first_five


class LibraryBackbone(nn.Module):
    """A library's network without its classifier, and its images.

    Args:
        name: of the network, for messages and for the store's folder.
        network: with its weights.
        feature_dim: D.
        picture_format: of the weights.
        number_format: `float32` or `bfloat16`, in which it computes (see `resolve_precision`).
        trainable: `none` (frozen), `last`, `all`, or a number of stages (see `set_trainable`).
        freeze_batchnorm: keep batch normalisation's statistics and scales as they are where the rest is trained.
    """

    network: Any

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
        """Return what does not show in the layers."""
        return f"name={self.name}, precision={self.precision}"


def check_name(name: str, allowed: Sequence[str], library: str) -> None:
    """Raise VidclfError if `name` is not among `allowed`, with those that are close to it."""
    if name not in allowed:
        close = get_close_matches(name, allowed, n=4, cutoff=0.5)
        raise VidclfError(
            f"backbone.name={name}: {library} of that name. "
            + (f"Did you mean {', '.join(close)}?" if close else f"There are {first_five(allowed)}.")
        )


def wrong_length(name: str, num_frames: int, allowed: str, example: int = 16) -> VidclfError:
    """Return what to say of views of a length that a network cannot take."""
    return VidclfError(
        f"{name} takes views of {allowed}, these have {num_frames}. Set sampling.num_frames, e.g. sampling=dense "
        f"sampling.num_frames={example}."
    )

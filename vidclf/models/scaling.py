"""Features brought to a scale that a network learns well from; the scale is fitted on training features."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.errors import VidclfError

SCALINGS = ("max", "standard", "none")
ROWS_AT_ONCE = 256  # of VGG16's 25,088 features: 51 MB in float64


class InputScaling(nn.Module):
    """Scale features by what `fit` has seen; the figures are buffers and saved with the head.

    Args:
        feature_dim: D.
        scaling: `max` divides by the largest of all numbers, as the tutorial does; `standard` takes each
            dimension's mean away and divides by its standard deviation, or by 1 where it is constant; `none`
            leaves the features as they are.

    Raises:
        VidclfError: another scaling is asked for.
    """

    maximum: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, feature_dim: int, scaling: str) -> None:
        super().__init__()
        if scaling not in SCALINGS:
            raise VidclfError(f"head.scaling={scaling}: allowed are {', '.join(SCALINGS)}.")
        self.feature_dim = feature_dim
        self.scaling = scaling
        if scaling == "max":
            self.register_buffer("maximum", torch.tensor(torch.nan))
        if scaling == "standard":
            self.register_buffer("mean", torch.full((feature_dim,), torch.nan))
            self.register_buffer("std", torch.full((feature_dim,), torch.nan))
        self.fitted = scaling == "none"
        self.register_load_state_dict_post_hook(_recognise_fit)

    @torch.no_grad()
    def fit(self, features: Float[Tensor, "N S D"]) -> None:
        """Take the scale from training features, read in pieces: they may be a memory-mapped file.

        Raises:
            VidclfError: the width is not `feature_dim`, or no scale follows from the features.
        """
        self._check_width(features)
        if not len(features):
            raise VidclfError("The head's scaling was given no training features; the training split is empty.")
        if self.scaling == "max":
            self._fit_maximum(features)
        if self.scaling == "standard":
            self._fit_standard(features.flatten(0, 1))
        self.fitted = True

    @torch.no_grad()
    def leave_as_they_are(self) -> None:
        """Take a scale that changes nothing, for features that change while the head learns."""
        for name, buffer in self.named_buffers():
            buffer.fill_(0.0 if name == "mean" else 1.0)
        self.fitted = True

    def _fit_maximum(self, features: Float[Tensor, "N S D"]) -> None:
        maximum = features.max().to(self.maximum)
        if not (maximum.isfinite() and maximum > 0):
            raise VidclfError(
                f"head.scaling=max: the largest training feature is {maximum.item():g}; it must be finite "
                f"and above zero. Look for the cause in the backbone, or set head.scaling=standard."
            )
        self.maximum.copy_(maximum)

    def _fit_standard(self, rows: Float[Tensor, "rows D"]) -> None:
        pieces = rows.split(ROWS_AT_ONCE)
        mean = sum(piece.sum(0, dtype=torch.float64) for piece in pieces) / len(rows)
        variance = sum((piece - mean).square().sum(0) for piece in pieces) / len(rows)
        if not variance.isfinite().all():
            raise VidclfError(
                f"head.scaling=standard: {(~variance.isfinite()).sum()} of {self.feature_dim} dimensions "
                f"hold numbers that are not finite in training. Look for the cause in the backbone."
            )
        std = variance.sqrt()
        constant = std <= torch.finfo(torch.float32).eps * mean.abs()  # what is left is rounding
        self.mean.copy_(mean)
        self.std.copy_(std.masked_fill(constant, 1.0))

    def forward(self, features: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Return the features, scaled.

        Raises:
            VidclfError: `fit` was never called, or the width is not `feature_dim`.
        """
        self._check_width(features)
        if not self.fitted:
            raise VidclfError(
                f"head.scaling={self.scaling} has not seen the training features. "
                f"Call head.fit(features), or load a trained head."
            )
        if self.scaling == "max":
            return features / self.maximum
        if self.scaling == "standard":
            return (features - self.mean) / self.std
        return features

    def _check_width(self, features: Tensor) -> None:
        if features.shape[-1] != self.feature_dim:
            raise VidclfError(
                f"The head takes features of width {self.feature_dim} and got {features.shape[-1]}. "
                f"Give it those of the backbone and layer that it was built for."
            )


def scalings_of(head: nn.Module) -> list[InputScaling]:
    """Return the scalings in a head."""
    return [module for module in head.modules() if isinstance(module, InputScaling)]


def _recognise_fit(module: InputScaling, _: object) -> None:
    """A loaded scale is as good as a fitted one, unless it was saved before it was fitted."""
    module.fitted = all(bool(buffer.isfinite().all()) for buffer in module.buffers())

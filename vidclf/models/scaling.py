"""Scale features for the head, with a scale fitted to the training features."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.contracts import Head, optional
from vidclf.errors import VidclfError
from vidclf.system.terminal import say

METHODS = ("standard", "max", "none")
ROWS_AT_ONCE = 256  # of VGG16's 25,088 features: 51 MB in float64


def resolve_scaling(method: str, head: nn.Module, is_trained: bool) -> str:
    """Return the method of `Scaling` for `scaling=method` before this head.

    Args:
        method: one of METHODS, or `auto`: the attribute `scaling` of the head's class, by default `none`.
        head: comes after the scaling.
        is_trained: whether the backbone is trained; its features change, so they are not scaled.
    """
    if method not in ("auto", *METHODS):
        raise VidclfError(f"scaling={method}: allowed are auto, {', '.join(METHODS)}.")
    if is_trained:
        if method not in ("auto", "none"):
            say(f"scaling={method} is ignored: the features of a trained backbone change.")
        return "none"
    resolved = optional(type(head), Head, "scaling") if method == "auto" else method
    if resolved not in METHODS:
        raise VidclfError(f"{type(head).__name__}.scaling={resolved}: allowed are {', '.join(METHODS)}.")
    return resolved


class Scaling(nn.Module):
    """Scales features by a scale that `fit` computes; it is saved with the classifier.

    Args:
        feature_dim: D.
        method: `max` divides by the largest value of all, as the tutorial does; `standard` subtracts each
            dimension's mean and divides by its standard deviation, or by 1 where it is constant; `none`
            leaves the features as they are.
    """

    maximum: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, feature_dim: int, method: str) -> None:
        super().__init__()
        self.feature_dim, self.method = feature_dim, method
        if method == "max":
            self.register_buffer("maximum", torch.tensor(torch.nan))
        if method == "standard":
            self.register_buffer("mean", torch.full((feature_dim,), torch.nan))
            self.register_buffer("std", torch.full((feature_dim,), torch.nan))
        self.fitted = method == "none"
        self.register_load_state_dict_post_hook(_recognise_fit)

    @torch.no_grad()
    def fit(self, train_features: Float[Tensor, "N S D"]) -> None:
        """Compute the scale from training features, in pieces because they may be a memory-mapped file."""
        self._check_width(train_features)
        if not len(train_features):
            raise VidclfError("scaling: there are no training features. Put videos into the training part.")
        if self.method == "max":
            self._fit_maximum(train_features)
        if self.method == "standard":
            self._fit_standard(train_features.flatten(0, 1))
        self.fitted = True

    def _fit_maximum(self, features: Float[Tensor, "N S D"]) -> None:
        maximum = features.max().to(self.maximum)
        if not (maximum.isfinite() and maximum > 0):
            raise VidclfError(
                f"scaling=max: the largest training feature is {maximum.item():g}; must be finite "
                f"and above 0. Check the backbone, or set scaling=standard."
            )
        self.maximum.copy_(maximum)

    def _fit_standard(self, rows: Float[Tensor, "rows D"]) -> None:
        pieces = rows.split(ROWS_AT_ONCE)
        mean = sum(piece.sum(0, dtype=torch.float64) for piece in pieces) / len(rows)
        variance = sum((piece - mean).square().sum(0) for piece in pieces) / len(rows)
        if not variance.isfinite().all():
            raise VidclfError(
                f"scaling=standard: {(~variance.isfinite()).sum()} of {self.feature_dim} dimensions "
                f"have training features that are not finite. Check the backbone."
            )
        std = variance.sqrt()
        constant = std <= torch.finfo(torch.float32).eps * mean.abs()  # the rest is rounding error
        self.mean.copy_(mean)
        self.std.copy_(std.masked_fill(constant, 1.0))

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N S D"]:
        self._check_width(features)
        if not self.fitted:
            raise VidclfError(
                f"scaling={self.method}: it is not fitted. Call scaling.fit(features), or load a trained classifier."
            )
        if self.method == "max":
            return features / self.maximum
        if self.method == "standard":
            return (features - self.mean) / self.std
        return features

    def _check_width(self, features: Tensor) -> None:
        if features.shape[-1] != self.feature_dim:
            raise VidclfError(
                f"features: the width is {features.shape[-1]}, and the classifier needs {self.feature_dim}. "
                f"Use the backbone and layer that it was built for."
            )


def _recognise_fit(module: Scaling, _: object) -> None:
    """Count a loaded scale as fitted, unless it was saved before it was fitted."""
    module.fitted = all(bool(buffer.isfinite().all()) for buffer in module.buffers())

"""A transformer encoder over the steps of a feature sequence."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.errors import VidclfError
from vidclf.models.heads.sequence import FeatureDropout


class Transformer(nn.Module):
    """A pre-norm encoder (Xiong et al., 2020, arXiv:2002.04745) that classifies its class token.

    Positions are sines and cosines (Vaswani et al., 2017, arXiv:1706.03762), so any number of steps is allowed. A
    convolution over neighbouring steps comes first (Xiao et al., 2021, arXiv:2106.14881): without it, the encoder
    memorised the demo's backgrounds and learned no order (experiments/temporal).

    Args:
        width: of the encoder; a multiple of `num_heads`, even.
        num_layers: of the encoder.
        num_heads: of its attention.
        dropout: inside the encoder.
        feature_dropout: share of the features left out in training, see `FeatureDropout`.
    """

    scaling: ClassVar[str] = "standard"  # before this head, where scaling=auto
    min_steps: ClassVar[int] = 2

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        width: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout: float | int = 0.1,
        feature_dropout: float | int = 0.8,
    ) -> None:
        super().__init__()
        check_width(width, num_heads)
        self.inputs = FeatureDropout(feature_dropout)
        self.projection = nn.Linear(feature_dim, width)
        self.neighbours = nn.Conv1d(width, width, 3, padding=1)
        self.class_token = nn.Parameter(torch.randn(width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, num_heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N K"]:
        steps = self.projection(self.inputs(features))  # (N, S, width)
        steps = steps + F.gelu(self.neighbours(steps.transpose(1, 2))).transpose(1, 2)
        steps = steps + sinusoidal_positions(steps.shape[1], steps.shape[2]).to(steps)
        tokens = torch.cat([self.class_token.expand(steps.shape[0], 1, -1), steps], dim=1)
        return self.classifier(self.encoder(tokens)[:, 0])


def check_width(width: int, num_heads: int) -> None:
    """Raise VidclfError unless `width` is even and a multiple of `num_heads`."""
    if width % 2 or width % num_heads:
        raise VidclfError(
            f"head.width={width} head.num_heads={num_heads}: the width must be even and a multiple of num_heads."
        )


def sinusoidal_positions(num_steps: int | torch.SymInt, width: int) -> Float[Tensor, "S width"]:
    """Return sines and cosines of every step at wavelengths from 2 pi to 20,000 pi."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(num_steps)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)

"""Convolutions along the steps of a feature sequence."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from vidclf.models.heads.sequence import FeatureDropout


class TemporalConv(nn.Module):
    """Averages residual convolutions over time, each with twice the dilation of the one before.

    Design: Bai, Kolter and Koltun, 2018, arXiv:1803.01271, without the causal mask, as the whole view is available.

    Args:
        width: channels.
        num_layers: with dilations 1, 2, 4, ...
        kernel_size: steps, odd.
        dropout: after each convolution.
        feature_dropout: share of the features left out in training, see `FeatureDropout`.
    """

    scaling: ClassVar[str] = "standard"  # before this head, where scaling=auto
    min_steps: ClassVar[int] = 2

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        width: int = 128,
        num_layers: int = 3,
        kernel_size: int = 3,
        dropout: float | int = 0.2,
        feature_dropout: float | int = 0.8,
    ) -> None:
        super().__init__()
        self.inputs = FeatureDropout(feature_dropout)
        self.projection = nn.Conv1d(feature_dim, width, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, width, kernel_size, dilation=2**layer, padding="same"), nn.GELU(), nn.Dropout(dropout)
            )
            for layer in range(num_layers)
        )
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N K"]:
        maps = self.projection(self.inputs(features).transpose(1, 2))  # (N, width, S)
        for block in self.blocks:
            maps = maps + block(maps)
        return self.classifier(maps.mean(dim=2))

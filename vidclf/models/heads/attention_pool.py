"""Attention pooling over the steps of a feature sequence."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.models.heads.sequence import FeatureDropout
from vidclf.models.heads.transformer import check_width, sinusoidal_positions


class AttentionPool(nn.Module):
    """A learned query that attends to all steps, then a small network: V-JEPA's attentive probe.

    Source: Bardes et al., 2024, arXiv:2404.08471. Without positions it cannot tell the order of the steps.

    Args:
        width: of the attention; a multiple of `num_heads`.
        num_heads: of the attention.
        positions: add sinusoidal positions to the steps.
        dropout: of the attention's weights.
        feature_dropout: share of the features left out in training, see `FeatureDropout`.
    """

    scaling: ClassVar[str] = "standard"  # before this head, where scaling=auto
    min_steps: ClassVar[int] = 2

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        width: int = 128,
        num_heads: int = 4,
        positions: bool = False,
        dropout: float | int = 0.1,
        feature_dropout: float | int = 0.8,
    ) -> None:
        super().__init__()
        check_width(width, num_heads)
        self.inputs = FeatureDropout(feature_dropout)
        self.positions = positions
        self.projection = nn.Linear(feature_dim, width)
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, num_heads, dropout, batch_first=True)
        self.network = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N K"]:
        steps = self.projection(self.inputs(features))  # (N, S, width)
        if self.positions:
            steps = steps + sinusoidal_positions(steps.shape[1], steps.shape[2]).to(steps)
        steps = self.norm(steps)
        query = self.query.expand(steps.shape[0], 1, -1)
        pooled = query + self.attention(query, steps, steps, need_weights=False)[0]  # (N, 1, width)
        pooled = pooled + self.network(pooled)
        return self.classifier(pooled[:, 0])

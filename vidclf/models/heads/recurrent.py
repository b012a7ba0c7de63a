"""Recurrent networks over the steps of a feature sequence."""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.models.heads.sequence import FeatureDropout


class GRU(nn.Module):
    """Applies a linear layer to the last state of a gated recurrent unit.

    Args:
        hidden_dim: width of the state of each direction.
        num_layers: number of stacked recurrent layers.
        bidirectional: also read the sequence backwards.
        dropout: between layers and before the linear layer.
        feature_dropout: share of the features left out in training, see `FeatureDropout`.
    """

    scaling: ClassVar[str] = "standard"  # before this head, where scaling=auto
    min_steps: ClassVar[int] = 2
    cell: ClassVar[Callable[..., nn.RNNBase]] = nn.GRU

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        hidden_dim: int = 256,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float | int = 0.2,
        feature_dropout: float | int = 0.8,
    ) -> None:
        super().__init__()
        self.inputs = FeatureDropout(feature_dropout)
        between_layers = dropout if num_layers > 1 else 0.0
        self.recurrent = self.cell(
            feature_dim, hidden_dim, num_layers, batch_first=True, bidirectional=bidirectional, dropout=between_layers
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_dim * (1 + bidirectional), num_classes)

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N K"]:
        states, _ = self.recurrent(self.inputs(features))  # (N, S, hidden * directions)
        hidden = self.recurrent.hidden_size
        last = torch.cat([states[:, -1, :hidden], states[:, 0, hidden:]], 1)  # each direction has read every step
        return self.classifier(self.dropout(last))


class LSTM(GRU):
    """As `GRU`, with long short-term memory cells."""

    cell = nn.LSTM

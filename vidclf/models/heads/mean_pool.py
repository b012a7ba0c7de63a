"""A baseline for heads over time that ignores the order of the steps."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from vidclf.models.heads.sequence import FeatureDropout


class MeanPool(nn.Module):
    """Applies a small network to every step and averages the steps.

    Args:
        width: of the network.
        dropout: before the mean.
        feature_dropout: share of the features left out in training, see `FeatureDropout`.
    """

    scaling: ClassVar[str] = "standard"  # before this head, where scaling=auto

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        width: int = 128,
        dropout: float | int = 0.2,
        feature_dropout: float | int = 0.8,
    ) -> None:
        super().__init__()
        self.inputs = FeatureDropout(feature_dropout)
        self.network = nn.Sequential(
            nn.Linear(feature_dim, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout)
        )
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N K"]:
        steps = self.network(self.inputs(features))  # (N, S, width)
        return self.classifier(steps.mean(dim=1))

"""The linear head: one layer on the mean of the features."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn


class Linear(nn.Module):
    """Computes logits as a linear function of the features, averaged over their S steps."""

    scaling: ClassVar[str] = "standard"  # before this head, where scaling=auto

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(feature_dim, num_classes)

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N K"]:
        return self.classifier(features.mean(1))

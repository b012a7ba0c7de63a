"""What every head over time does first with a feature sequence."""

from jaxtyping import Float
from torch import Tensor, nn

from vidclf.models.scaling import InputScaling


class SequenceInput(nn.Module):
    """Feature sequences, scaled; in training, dimensions drawn for each view are zero in all its steps.

    Without that, a head learns the backgrounds of its training videos by heart before it learns how they move:
    a wide feature tells a scene at every step, and its motion only between them. Source: Gal and Ghahramani,
    2016, arXiv:1512.05287; the share of 0.8 is TSN's (Wang et al., 2016, arXiv:1608.00859).

    Args:
        feature_dim: D.
        scaling: see `InputScaling`.
        dropout: the share of the dimensions that is set to zero in training.
    """

    def __init__(self, feature_dim: int, scaling: str, dropout: float | int) -> None:
        super().__init__()
        self.scaling = InputScaling(feature_dim, scaling)
        self.dropout = nn.Dropout1d(dropout)

    def fit(self, train_features: Float[Tensor, "N S D"]) -> None:
        """Take the scaling from the training features."""
        self.scaling.fit(train_features)

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N S D"]:
        """Return the sequences as the head reads them."""
        return self.dropout(self.scaling(features).transpose(1, 2)).transpose(1, 2)

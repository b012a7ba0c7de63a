"""What every head over time does first with a feature sequence."""

from jaxtyping import Float
from torch import Tensor, nn


class FeatureDropout(nn.Dropout1d):
    """Feature sequences; in training, dimensions drawn for each view are zero in all its steps.

    Without that, a head learns the backgrounds of its training videos by heart before it learns how they move:
    a wide feature tells a scene at every step, and its motion only between them. Source: Gal and Ghahramani,
    2016, arXiv:1512.05287; the share of 0.8 is TSN's (Wang et al., 2016, arXiv:1608.00859).
    """

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N S D"]:
        """Return the sequences as the head reads them."""
        return super().forward(features.transpose(1, 2)).transpose(1, 2)

"""Dropout for the inputs of heads over time."""

from jaxtyping import Float
from torch import Tensor, nn


class FeatureDropout(nn.Dropout1d):
    """Sets random dimensions of each view to zero in all its steps, in training.

    Without it, a head memorises the backgrounds of its training videos before it learns their motion: a wide feature
    identifies the scene at every step, and the motion only between steps. Source: Gal and Ghahramani,
    2016, arXiv:1512.05287; the share of 0.8 is TSN's (Wang et al., 2016, arXiv:1608.00859).
    """

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N S D"]:
        """Return the sequences with the dropped dimensions set to zero."""
        return super().forward(features.transpose(1, 2)).transpose(1, 2)

"""Pixels as features, without a network: for comparing videos where no weights are available."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from vidclf.contracts import PictureFormat

SIZE = 16  # height and width of the image


class Pixels(nn.Module):
    """Each frame as 16x16 RGB pixels: finds copies of a video, but not cropped ones.

    Attributes:
        feature_dim: D, 768.
        picture_format: the whole frame, resized to a square.
    """

    name: ClassVar[str] = "pixels"
    feature_dim: ClassVar[int] = 3 * SIZE**2
    picture_format = PictureFormat(size=SIZE, resize=(SIZE, SIZE), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N T D"]:
        return images.flatten(2)

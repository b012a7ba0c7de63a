"""Two frozen backbones for the benchmark: one counts its images, the other costs next to nothing."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.contracts import PictureFormat
from vidclf.models.backbones.tiny import Tiny
from vidclf.models.backbones.trainable import resolve_precision


class Counting(nn.Module):
    """The demo's `tiny`, which adds a line to the file `counts` for each batch: how many images it held.

    Images of zeros fill a batch up and are not counted. Use transform=tutorial, which keeps zeros zero.
    """

    picture_format = Tiny.picture_format

    def __init__(self, counts: str) -> None:
        super().__init__()
        self.counts = counts
        self.network = Tiny()
        self.feature_dim = self.network.feature_dim

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N T D"]:
        num_images = int(images.flatten(2).any(2).sum())
        with Path(self.counts).open("a") as file:  # one write of a few bytes: jobs at once do not mix them
            file.write(f"{num_images}\n")
        return self.network(images)


class Wide(nn.Module):
    """As wide as VGG16's convolutions, in its format, and almost free: 49 numbers of an image, 512 times."""

    picture_format = PictureFormat(size=8, resize=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    feature_dim = 49 * 512

    def __init__(self) -> None:
        super().__init__()
        self.precision = resolve_precision("auto")

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N T D"]:
        return images.flatten(2)[..., :49].to(getattr(torch, self.precision)).repeat(1, 1, 512)

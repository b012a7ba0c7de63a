"""The demo's image backbone: a VGG with a hundred thousand parameters, shipped with its weights.

Design: Simonyan and Zisserman, 2014, arXiv:1409.1556. `experiments/tiny/train.py` trains the weights again.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.vgg import make_layers

from vidclf.contracts import PictureFormat
from vidclf.errors import VidclfError
from vidclf.models.backbones.trainable import FORMATS
from vidclf.models.backbones.weights import load_weights, weights_file

STAGES = ((16, 16), (32, 32), (48, 48), (64, 64))  # channels of the convolutions
SHIPPED = Path(__file__).with_name("tiny.safetensors")


class Tiny(nn.Module):
    """The feature maps, flattened, that a network trained to classify handwritten digits has of each frame.

    Args:
        weights: `shipped`, a state dict in a local file, or None for random ones.
        trainable: `none`; the backbone is frozen.
        precision: `float32`, so that the demo gives the same result on every machine, or `bfloat16`.

    Attributes:
        feature_dim: D.
        picture_format: the images that the shipped weights were trained with.
    """

    picture_format = PictureFormat(size=64, resize=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

    def __init__(
        self, weights: str | Path | None = "shipped", trainable: str = "none", precision: str = "float32"
    ) -> None:
        super().__init__()
        if trainable != "none":
            raise VidclfError(f"backbone.trainable={trainable}: allowed is none (a frozen backbone).")
        if precision not in FORMATS:
            raise VidclfError(f"backbone.precision={precision}: allowed for tiny are {', '.join(FORMATS)}.")
        self.precision = precision
        self.licence = "MIT, shipped with vidclf" if weights == "shipped" else ""
        widths = [width for stage in STAGES for width in (*stage, "M")]  # M: pooling, which halves the maps
        self.layers = make_layers(widths).to(memory_format=torch.channels_last)  # twice as fast
        side = self.picture_format.size // 2 ** len(STAGES)
        self.feature_dim = STAGES[-1][-1] * side**2
        if weights is not None:
            load_weights(self, SHIPPED if weights == "shipped" else weights_file(weights, ["shipped"]))
        self.layers.to(getattr(torch, precision))
        self.requires_grad_(False).eval()

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N T D"]:
        folded = images.flatten(0, 1).to(getattr(torch, self.precision), memory_format=torch.channels_last)
        maps = self.layers(folded)  # (N*T, 64, 4, 4)
        return maps.flatten(1).unflatten(0, images.shape[:2])

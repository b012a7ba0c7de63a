"""A small 3D network for the demo and the tests, trained from scratch."""

from jaxtyping import Float
from torch import Tensor, nn

from vidclf.contracts import PictureFormat
from vidclf.models.backbones.trainable import set_trainable


class Tiny3D(nn.Module):
    """The pooled output of four 3D-convolutional stages for each view as a whole (S=1).

    Args:
        width: channels of the first stage; each further one has twice as many.
        trainable: `all`, `none`, `last`, or a number of stages (of 4).
        freeze_batchnorm: keep the statistics and scales of batch normalisation.

    Attributes:
        feature_dim: D = 8 * width.
        picture_format: 16 frames of 64x64.
    """

    picture_format = PictureFormat(size=64, resize=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), clip_length=16)
    precision = "float32"

    def __init__(self, width: int = 16, trainable: str | int = "all", freeze_batchnorm: bool = False) -> None:
        super().__init__()
        widths = [width * 2**stage for stage in range(4)]
        strides = [(1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(num_in, num_out, 3, stride, padding=1, bias=False), nn.BatchNorm3d(num_out), nn.ReLU()
            )
            for num_in, num_out, stride in zip([3, *widths], widths, strides, strict=False)
        )
        self.feature_dim = widths[-1]
        set_trainable(self, trainable, freeze_batchnorm)

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N 1 D"]:
        maps = images.transpose(1, 2)  # (N, 3, T, h, w)
        for block in self.blocks:
            maps = block(maps)
        return maps.mean(dim=(2, 3, 4)).unsqueeze(1)

"""The images of the demo: a handwritten digit, placed at will, over a crop of a photograph.

scikit-learn's digits and photographs; nothing here knows of classes, groups or files.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64, UInt8
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

CREDIT = (
    "Photographs behind the digits: china.jpg by danielbuechele "
    "(flickr.com/photos/danielbuechele/6061409035) and flower.jpg by vultilion "
    "(flickr.com/photos/vultilion/6056698931), as scikit-learn ships them, cropped, darkened, colours exchanged; "
    "licence CC BY 2.0 (creativecommons.org/licenses/by/2.0)."
)

CROP_SIDES = (96, 240)  # pixels of a photograph, 427 x 640
BRIGHTNESS = 0.6  # of the background, so that white ink is seen everywhere
INK_SIDE = 40  # pixels, up from load_digits' 8 and a margin of 1 on every side


@cache
def photographs() -> list[Image.Image]:
    """Return scikit-learn's two photographs, darkened."""
    return [Image.fromarray((BRIGHTNESS * image).astype(np.uint8)) for image in load_sample_images().images]


@cache
def handwriting(digit: int) -> Float64[Tensor, "samples 40 40"]:
    """Return every sample of `digit` in load_digits, in its order, as ink in 0..1."""
    digits = load_digits()
    samples = torch.from_numpy(digits.images[digits.target == digit] / digits.images.max())
    ink = F.interpolate(F.pad(samples[:, None], (1, 1, 1, 1)), size=(INK_SIDE, INK_SIDE), mode="bicubic")
    return ink[:, 0].clamp(0, 1)


def cut_background(side: int, random: np.random.Generator) -> UInt8[Tensor, "3 side side"]:
    """Return a square of one of the photographs at a random place and size, mirrored or not, its colours exchanged.

    With the photographs' own colours alone, crops of different groups are too alike for a leak to show.
    """
    photograph = photographs()[random.integers(len(photographs()))]
    crop = int(random.integers(*CROP_SIDES, endpoint=True))
    left = int(random.integers(photograph.width - crop + 1))
    top = int(random.integers(photograph.height - crop + 1))
    square = photograph.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + crop, top + crop))
    pixels = np.array(square)[:, :: random.choice([-1, 1])]
    return torch.from_numpy(pixels[..., random.permutation(3)]).permute(2, 0, 1)


def draw(
    background: UInt8[Tensor, "*#T 3 side side"],
    ink: Float64[Tensor, "*#T 40 40"],
    poses: Float64[Tensor, "T 4"],
) -> UInt8[Tensor, "T 3 side side"]:
    """Return one image a pose, in which white ink lies over the background.

    Args:
        background: one for all images, or one each.
        ink: opacity in 0..1; one for all images, or one each.
        poses: centre x and y (-1..1 from left to right and top to bottom), size (1 fills the image) and
            clockwise angle (radians). What leaves the image on one side enters it on the other.
    """
    side = background.shape[-1]
    axis = (2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1  # the pixels' centres
    x, y, size, angle = poses.T[:, :, None, None]
    dx, dy = (torch.remainder(offset + 1, 2) - 1 for offset in (axis - x, axis[:, None] - y))
    cos, sin = angle.cos() / size, angle.sin() / size
    grid = torch.stack([cos * dx + sin * dy, cos * dy - sin * dx], dim=-1)  # (T, side, side, 2)
    sources = ink.expand(len(poses), INK_SIDE, INK_SIDE)[:, None]
    opacity = F.grid_sample(sources, grid, align_corners=False)  # (T, 1, side, side)
    cover = (128 * opacity).round().to(torch.int16)  # of 128, so that products stay below 2^15
    return ((background * (128 - cover) + 255 * cover) // 128).to(torch.uint8)

"""Random training images: torchvision's transforms, with the same draw for all frames of a view."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.transforms import v2

from vidclf.contracts import PictureFormat
from vidclf.errors import VidclfError

DIRECTIONS = ("left", "right", "clockwise")  # in class names: a mirror image would have the wrong label


class Augmentation:
    """Crop, flip, change colours, RandAugment and erase at random; then normalise for the backbone.

    Args:
        picture_format: of the backbone.
        scale: smallest and largest area of the crop, as a fraction of the image; its aspect ratio is 3:4 to 4:3.
        flip: probability of a mirror image; 0 if classes differ in left and right.
        color_jitter: strength of random brightness, contrast and saturation; hue changes a quarter as much.
        rand_augment: magnitude (0 to 30) of two random operations per view (arXiv:1909.13719); None: no operations.
        erase: probability of a random rectangle of noise, the same in all frames (arXiv:1708.04896).
    """

    num_crops: ClassVar[int] = 1
    random: ClassVar[bool] = True

    def __init__(
        self,
        picture_format: PictureFormat,
        scale: Sequence[float] = (0.5, 1.0),
        flip: float | int = 0.0,
        color_jitter: float | int = 0.0,
        rand_augment: int | None = None,
        erase: float | int = 0.0,
    ) -> None:
        self.flip = flip
        interpolation = v2.InterpolationMode(picture_format.interpolation)
        steps: list[nn.Module] = [
            v2.RandomResizedCrop(
                picture_format.size,
                scale=tuple(scale),
                interpolation=interpolation,
                antialias=picture_format.is_antialiased,
            )
        ]
        if flip:
            steps.append(v2.RandomHorizontalFlip(flip))
        if color_jitter:
            steps.append(v2.ColorJitter(color_jitter, color_jitter, color_jitter, color_jitter / 4))
        if rand_augment is not None:
            steps.append(v2.RandAugment(magnitude=rand_augment))
        steps += [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(picture_format.mean), list(picture_format.std)),
        ]
        if erase:
            steps.append(v2.RandomErasing(erase, value="random"))
        self.steps = v2.Compose(steps)

    def __call__(self, frames: UInt8[Tensor, "V T 3 H W"]) -> Float[Tensor, "V T 3 h w"]:
        """Return images of `picture_format.size`, drawn from torch's global random state."""
        return torch.stack([self.steps(view) for view in frames])

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Raise VidclfError if views may be mirrored while class names contain a direction."""
        directed = [name for name in class_names if any(word in name.lower() for word in DIRECTIONS)]
        if self.flip and directed:
            raise VidclfError(
                f"augmentation.flip={self.flip}: a mirror image of {', '.join(directed[:5])} would have the wrong "
                "label. Set it to 0."
            )

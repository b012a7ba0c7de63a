"""From decoded frames to the images that a backbone expects: resize, crop, scale, normalise.

The feature store keys on a transform's configuration and on the PictureFormat, see `vidclf.features.recipe`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from vidclf.contracts import PictureFormat, Transform
from vidclf.errors import VidclfError


def halves_of(transform: Transform) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor] | None]:
    """Return the half that runs where frames are decoded, and the half that runs next to the backbone (None: nothing).

    The first half returns bytes, a quarter of the size of floats. A class that overrides only `__call__` is not
    divided, because the halves of its parent do not do what it does.
    """
    owner = next(kind for kind in type(transform).__mro__ if "__call__" in vars(kind))
    if all(callable(vars(owner).get(half)) for half in ("crop", "normalize")):
        return transform.crop, transform.normalize  # type: ignore[attr-defined]
    return transform, None


@dataclass(frozen=True)
class BackboneTransform:
    """Resize, crop and normalise as in the training of the backbone.

    Args:
        picture_format: of the backbone.
        crops: 1: the centre; 3: both ends and the middle of the longer side (arXiv:1711.07971).
        mirrored: whether the mirror images of all crops follow them.
    """

    picture_format: PictureFormat
    crops: int = 1
    mirrored: bool = False
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.crops not in (1, 3):
            raise VidclfError(f"transform.crops={self.crops}: must be 1 (the centre) or 3 (along the longer side).")

    @property
    def num_crops(self) -> int:
        """Number of images made of a frame."""
        return self.crops * (1 + self.mirrored)

    def __call__(self, frames: UInt8[Tensor, "V T 3 H W"]) -> Float[Tensor, "views T 3 h w"]:
        """Return normalised images of `picture_format.size`, the crops of a view next to each other."""
        return self.normalize(self.crop(frames))

    def crop(self, frames: UInt8[Tensor, "V T 3 H W"]) -> UInt8[Tensor, "views T 3 h w"]:
        """Return images of `picture_format.size`, not yet normalised."""
        resize = self.picture_format.resize
        resized = F.resize(
            frames,
            [resize] if isinstance(resize, int) else list(resize),
            InterpolationMode(self.picture_format.interpolation),
            antialias=self.picture_format.is_antialiased,
        )
        crops = [self._middle(resized)] if self.crops == 1 else self._along(resized)
        crops += [F.horizontal_flip(crop) for crop in crops] if self.mirrored else []
        return torch.stack(crops, dim=1).flatten(0, 1)  # (V * crops, T, 3, h, w)

    def normalize(self, cropped: UInt8[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch 3 h w"]:
        """Scale to 0..1, subtract `picture_format.mean` and divide by `picture_format.std`."""
        images = F.to_dtype(cropped, torch.float32, scale=True)
        return F.normalize(images, list(self.picture_format.mean), list(self.picture_format.std))

    def _middle(self, frames: UInt8[Tensor, "V T 3 H W"]) -> UInt8[Tensor, "V T 3 h w"]:
        size, height, width = self.picture_format.size, *frames.shape[-2:]
        if self.picture_format.crop_down and min(height, width) >= size:
            return F.crop(frames, (height - size) // 2, (width - size) // 2, size, size)
        return F.center_crop(frames, [size])

    def _along(self, frames: UInt8[Tensor, "V T 3 H W"]) -> list[Tensor]:
        size, (height, width) = self.picture_format.size, frames.shape[-2:]
        top, left = (max(0, round((side - size) / 2)) for side in (height, width))  # as in center_crop
        if width >= height:
            places = [(top, 0), (top, left), (top, max(0, width - size))]
        else:
            places = [(0, left), (top, left), (max(0, height - size), left)]
        return [F.crop(frames, *place, size, size) for place in places]


@dataclass(frozen=True)
class TutorialTransform:
    """Resize to a square as the tutorial does: nearest neighbour, aspect ratio ignored, 0..1, not normalised.

    This is Keras's `load_img(target_size=...)`; its detour through JPEG files is not copied.
    """

    picture_format: PictureFormat
    num_crops: ClassVar[int] = 1
    random: ClassVar[bool] = False

    def __call__(self, frames: UInt8[Tensor, "V T 3 H W"]) -> Float[Tensor, "V T 3 h w"]:
        """Return images of `picture_format.size` in 0..1."""
        return self.normalize(self.crop(frames))

    def crop(self, frames: UInt8[Tensor, "V T 3 H W"]) -> UInt8[Tensor, "V T 3 h w"]:
        """Return images of `picture_format.size` in 0..255."""
        rows = _nearest(frames.shape[-2], self.picture_format.size)
        columns = _nearest(frames.shape[-1], self.picture_format.size)
        return frames[..., rows[:, None], columns]

    def normalize(self, cropped: UInt8[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch 3 h w"]:
        """Return values in 0..1."""
        return F.to_dtype(cropped, torch.float32, scale=True)


def _nearest(length: int, size: int) -> Int[Tensor, " size"]:
    """Return which of `length` pixels Pillow takes for each of `size`: it sums steps, which decides ties.

    From 320 x 240 to 224 x 224, a seventh of all columns are ties, and torch's `nearest-exact` rounds them differently.
    """
    steps = torch.full((size,), length / size, dtype=torch.float64)
    steps[0] /= 2  # the middle of the first pixel
    return steps.cumsum(0).long()

"""Resize and crop frames of any size in operations that torch.export and ONNX know: the bytes of `BackboneTransform`.

torchvision resizes bytes by weights that are rounded to 16 bits, first along the rows, then along the columns, and
rounds to bytes after both (ATen's UpSampleKernelAVXAntialias.h). Here each direction is a product with the matrix of
these weights. Sums of whole numbers are exact in float64, so the bytes are the same, and frames of a high resolution
take longer.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from vidclf.contracts import Transform
from vidclf.data.transforms import BackboneTransform, TutorialTransform

Length = int | torch.SymInt  # a trace's lengths vary
Kernel = Callable[[Float[Tensor, "*places"]], Float[Tensor, "*places"]]

MAX_BITS, MAX_WEIGHT = 22, 2**15


def traceable_crop(transform: Transform) -> nn.Module | None:
    """Return what a transform does to bytes as a traceable module; None: the transform is of another kind."""
    if type(transform) is TutorialTransform:
        return Pointwise(transform.crop)
    if type(transform) is BackboneTransform:
        pictures = transform.picture_format
        sides = (pictures.resize,) if isinstance(pictures.resize, int) else pictures.resize
        if min(sides) >= pictures.size and pictures.interpolation in KERNELS:
            return Crop(transform)
    return None


class Pointwise(nn.Module):
    """A function of frames as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, frames: UInt8[Tensor, "V T 3 H W"]) -> UInt8[Tensor, "V T 3 h w"]:
        return self.function(frames)


class Crop(nn.Module):
    """Does what `BackboneTransform.crop` does, for frames of any size."""

    def __init__(self, transform: BackboneTransform) -> None:
        super().__init__()
        self.transform, self.pictures = transform, transform.picture_format

    def forward(self, frames: UInt8[Tensor, "V T 3 H W"]) -> UInt8[Tensor, "views T 3 h w"]:
        """Return images of `picture_format.size`, the crops of a view next to each other."""
        sides, resized = frames.shape[-2:], self._resized(*frames.shape[-2:])
        (rows, row_unit), (columns, column_unit) = (self._weights(*pair) for pair in zip(sides, resized, strict=True))
        inside = torch.arange(self.pictures.size)
        values, crops = frames.double(), []
        for top, left in self._corners(*resized):
            narrow = _weigh(values, columns[left + inside], column_unit)
            crop = _weigh(narrow.transpose(-1, -2), rows[top + inside], row_unit)
            crops.append(crop.transpose(-1, -2).to(torch.uint8))
        crops += [crop.flip(-1) for crop in crops] if self.transform.mirrored else []
        return torch.stack(crops, dim=1).flatten(0, 1)

    def _resized(self, height: Length, width: Length) -> tuple[Length, Length]:
        resize: Any = self.pictures.resize
        if isinstance(resize, int):
            shorter: Any = torch.sym_min(height, width)
            return resize * height // shorter, resize * width // shorter
        return resize

    def _weights(self, length: Length, resized: Length) -> tuple[Float[Tensor, "resized length"], Float[Tensor, ""]]:
        kernel, reach = KERNELS[self.pictures.interpolation][self.pictures.is_antialiased]
        make = smoothing_weights if self.pictures.is_antialiased else interpolating_weights
        return _in_whole_numbers(make(length, resized, kernel, reach))

    def _corners(self, height: Length, width: Length) -> list[tuple[Tensor, Tensor]]:
        """Return the top left corner of each crop of a resized frame."""
        size = self.pictures.size
        spare = [torch.full((), side, dtype=torch.int64) - size for side in (height, width)]
        if self.transform.crops == 1 and self.pictures.crop_down:
            middle = [side // 2 for side in spare]
        else:
            middle = [_half_to_even(side) for side in spare]
        if self.transform.crops == 1:
            return [(middle[0], middle[1])]
        is_wide = spare[1] >= spare[0]
        begin = [torch.where(is_wide, middle[0], 0), torch.where(is_wide, 0, middle[1])]
        end = [torch.where(is_wide, middle[0], spare[0]), torch.where(is_wide, spare[1], middle[1])]
        return [(begin[0], begin[1]), (middle[0], middle[1]), (end[0], end[1])]


def smoothing_weights(length: Length, resized: Length, kernel: Kernel, reach: int) -> Float[Tensor, "resized length"]:
    """Return the weight of each pixel in each resized one, for a kernel as wide as a resized pixel (antialiasing)."""
    pixels, centers, scale = _places(length, resized)
    stretch = scale.clamp(min=1)
    first = (centers - reach * stretch + 0.5).floor()
    stop = (centers + reach * stretch + 0.5).floor()
    weights = kernel((pixels - centers + 0.5) * (1 / stretch))
    weights = torch.where((pixels >= first) & (pixels < stop), weights, 0.0)
    return weights / weights.sum(1, keepdim=True)


def interpolating_weights(
    length: Length, resized: Length, kernel: Kernel, reach: int
) -> Float[Tensor, "resized length"]:
    """Return the same for a kernel as wide as a pixel: weights of the nearest pixels, the outermost repeated."""
    pixels, centers, _ = _places(length, resized)
    before = (centers - 0.5).floor()
    weights = torch.zeros_like(pixels * centers)
    for step in range(1 - reach, 1 + reach):
        place = torch.minimum((before + step).clamp(min=0), pixels[-1])
        weights = weights + torch.where(pixels == place, kernel(before + step - (centers - 0.5)), 0.0)
    return weights


def _places(
    length: Length, resized: Length
) -> tuple[Float[Tensor, " length"], Float[Tensor, "resized 1"], Float[Tensor, ""]]:
    """Return the pixels' numbers, the centers of the resized ones among them, and how many pixels make one."""
    pixels, numbers = (torch.arange(count, dtype=torch.float64) for count in (length, resized))
    scale = torch.full((), length, dtype=torch.float64) / torch.full((), resized, dtype=torch.float64)
    return pixels, (scale * (numbers + 0.5))[:, None], scale


def _in_whole_numbers(
    weights: Float[Tensor, "resized length"],
) -> tuple[Float[Tensor, "resized length"], Float[Tensor, ""]]:
    """Return weights as multiples of a power of two that the largest still fits into 16 bits with, and that power."""
    powers = 2.0 ** torch.arange(1, MAX_BITS + 1, dtype=torch.float64)
    num_bits = ((weights.max() * powers + 0.5).floor() < MAX_WEIGHT).sum()
    unit = 2.0 ** num_bits.double()
    return weights.sign() * ((weights * unit).abs() + 0.5).floor(), unit


def _weigh(
    values: Float[Tensor, "*batch a b"], weights: Float[Tensor, "size b"], unit: Float[Tensor, ""]
) -> Float[Tensor, "*batch a size"]:
    """Return weighted sums of values, rounded to bytes."""
    return ((values @ weights.T + unit / 2) / unit).floor().clamp(0, 255)


def _half_to_even(spare: Int[Tensor, ""]) -> Int[Tensor, ""]:
    """Return round(spare / 2), as Python rounds."""
    return spare // 2 + (spare % 2) * (spare // 2 % 2)


def _triangle(places: Tensor) -> Tensor:
    return (1 - places.abs()).clamp(min=0)


def _cubic(a: float) -> Kernel:
    """Return Keys' cubic kernel (1981)."""

    def kernel(places: Tensor) -> Tensor:
        x = places.abs()
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * a
        return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))

    return kernel


# By interpolation and whether it is antialiased: the kernel, and how many pixels it reaches to each side.
KERNELS: dict[str, dict[bool, tuple[Kernel, int]]] = {
    "bilinear": {False: (_triangle, 1), True: (_triangle, 1)},
    "bicubic": {False: (_cubic(-0.75), 2), True: (_cubic(-0.5), 2)},
}

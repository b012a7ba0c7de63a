"""The pictures a backbone was trained on, and so wants to be given."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """How frames become a backbone's pictures.

    The shorter side is resized to `resize` pixels (a pair: height and width), the middle `size` x `size` pixels
    are cut out, values in 0..1 are normalised by `mean` and `std` (one for each of R, G, B), and `clip_length`
    frames go in at once: 1 for a picture backbone.
    """

    size: int
    resize: int | tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    clip_length: int = 1

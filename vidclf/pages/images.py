"""Small images of videos for pages: strips of stills, and looping films."""

import base64
import io
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torchvision.transforms.v2.functional import resize, to_pil_image

from vidclf.data.decoding import decode_frames

HEIGHT = 144  # of a still in pixels; pages show it smaller until it is opened
WIDEST = 4  # times its height: JPEG ends at 65,535 pixels
FILM_HEIGHT, FRAME_MS = 112, 120


def strip_of(path: Path, frames: Int[Tensor, " F"], height: int = HEIGHT) -> str:
    """Return frames of a video side by side, as JPEG in base64.

    Raises:
        VideoError: the video can no longer be read.
    """
    jpeg = io.BytesIO()
    to_pil_image(torch.cat(_read(path, frames, height).unbind(), dim=-1)).save(jpeg, "JPEG", quality=70)
    return base64.b64encode(jpeg.getvalue()).decode()


def film_of(path: Path, frames: Int[Tensor, " F"]) -> str:
    """Return frames of a video one after the other, as a looping WebP in base64.

    Raises:
        VideoError: the video can no longer be read.
    """
    first, *others = map(to_pil_image, _read(path, frames, FILM_HEIGHT))
    webp, settings = io.BytesIO(), {"duration": FRAME_MS, "loop": 0, "quality": 50, "method": 3}
    first.save(webp, "WEBP", save_all=True, append_images=others, **settings)
    return base64.b64encode(webp.getvalue()).decode()


def spread(num_frames: int, count: int) -> Int[Tensor, " F"]:
    """Return the middles of up to `count` equal stretches of `num_frames` frames."""
    count = min(count, num_frames)
    return ((torch.arange(count) + 0.5) * num_frames / count).long()


def _read(path: Path, frames: Int[Tensor, " F"], height: int) -> UInt8[Tensor, "F 3 h w"]:
    images = decode_frames(path, frames, whole=True)
    width = round(images.shape[-1] * height / images.shape[-2])
    return resize(images, [height, min(WIDEST * height, max(1, width))], antialias=True)

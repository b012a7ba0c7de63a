"""Frames of any size are resized in a trace to the bytes that torchvision makes of them."""

from itertools import product

import pytest
import torch

from vidclf.contracts import PictureFormat
from vidclf.data.resizing import traceable_crop
from vidclf.data.transforms import BackboneTransform, TutorialTransform

SIZES = [(24, 32), (32, 24), (16, 16), (9, 40), (47, 23), (120, 161)]


def drawn(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_bytes_are_torchvisions(interpolation: str, antialias: bool):
    for size, (resize, crops, down) in product(
        SIZES, [(16, 1, False), (19, 1, True), (19, 3, False), (31, 1, False), ((20, 17), 3, False)]
    ):
        pictures = PictureFormat(16, resize, (0.0,) * 3, (1.0,) * 3, interpolation, antialias=antialias, crop_down=down)
        transform, frames = BackboneTransform(pictures, crops, mirrored=crops == 3), drawn(2, 3, 3, *size)
        crop = traceable_crop(transform)
        assert crop is not None
        assert torch.equal(crop(frames), transform.crop(frames)), (size, resize, crops)


def test_the_tutorials_transform_is_traced_as_it_is():
    transform, frames = TutorialTransform(PictureFormat(16, 16, (0.0,) * 3, (1.0,) * 3)), drawn(1, 2, 3, 24, 33)
    crop = traceable_crop(transform)
    assert crop is not None
    assert torch.equal(crop(frames), transform.crop(frames))


@pytest.mark.parametrize("changed", [{"resize": 12}, {"interpolation": "nearest"}])
def test_other_transforms_have_no_trace(changed: dict):
    pictures = {"size": 16, "resize": 16, "mean": (0.0,) * 3, "std": (1.0,) * 3} | changed
    assert traceable_crop(BackboneTransform(PictureFormat(**pictures))) is None

    class Own(BackboneTransform):
        """A user's, which may do anything."""

    assert traceable_crop(Own(PictureFormat(16, 16, (0.0,) * 3, (1.0,) * 3))) is None

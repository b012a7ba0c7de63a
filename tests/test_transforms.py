"""From frames to images, as torchvision and Pillow make them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.models import ResNet50_Weights, VGG16_Weights
from torchvision.models.video import MViT_V2_S_Weights, R3D_18_Weights
from torchvision.transforms.functional import to_pil_image
from videos import encode_video

from vidclf.contracts import PictureFormat, Transform
from vidclf.data.decoding import decode_frames
from vidclf.data.transforms import BackboneTransform, TutorialTransform
from vidclf.errors import VidclfError

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def picture_format_of(published: object, clip_length: int = 1) -> PictureFormat:
    """Return the picture format of torchvision's published transform."""
    sizes = published.resize_size
    return PictureFormat(
        size=published.crop_size[0],
        resize=sizes[0] if len(sizes) == 1 else tuple(sizes),
        mean=tuple(published.mean),
        std=tuple(published.std),
        interpolation=published.interpolation.value,
        clip_length=clip_length,
    )


def differ_by_rounding(images: Tensor, expected: Tensor) -> bool:
    """Return whether no pixel differs by more than one of 255 levels, and few do: libraries round differently."""
    difference = (images - expected).abs()
    return bool(difference.max() < 1.01 / 255 / 0.21645) and bool((difference > 0.01).float().mean() < 0.01)


@pytest.fixture(params=[(400, 300), (90, 131)])
def frames(request: pytest.FixtureRequest, tmp_path: Path) -> Tensor:
    """Two views of three decoded frames, landscape and portrait."""
    path = encode_video(tmp_path / "a.avi", num_frames=6, size=request.param, pix_fmt="yuv444p", codec="ffv1")
    return decode_frames(path, torch.arange(6).view(2, 3))


@pytest.mark.parametrize("weights", [VGG16_Weights.IMAGENET1K_V1, ResNet50_Weights.IMAGENET1K_V2])
def test_images_equal_torchvisions(weights: VGG16_Weights, frames: Tensor):
    published = weights.transforms()
    images = BackboneTransform(picture_format_of(published))(frames)
    assert differ_by_rounding(images, published(frames.flatten(0, 1)).unflatten(0, (2, 3)))
    assert differ_by_rounding(images[1, 2], published(to_pil_image(frames[1, 2])))


@pytest.mark.parametrize("weights", [R3D_18_Weights.DEFAULT, MViT_V2_S_Weights.DEFAULT])
def test_clips_equal_torchvisions(weights: R3D_18_Weights, frames: Tensor):
    published = weights.transforms()
    images = BackboneTransform(picture_format_of(published, clip_length=3))(frames)
    assert differ_by_rounding(images, published(frames).transpose(1, 2))


def test_images_are_normalised_by_channel():
    frames = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3, 1, 1).expand(1, 1, 3, 8, 8)
    picture_format = PictureFormat(size=4, resize=4, mean=(0.5, 0.1, 0.0), std=(0.25, 0.5, 2.0))
    images = BackboneTransform(picture_format)(frames)
    assert images.shape == (1, 1, 3, 4, 4)
    torch.testing.assert_close(images.amax((0, 1, 3, 4)), torch.tensor([-2.0, 0.2, 0.5]))
    torch.testing.assert_close(images.amin((0, 1, 3, 4)), torch.tensor([-2.0, 0.2, 0.5]))


def test_tutorial_images_worked_out_by_hand():
    rows, columns = torch.arange(4).view(4, 1), torch.arange(6).view(1, 6)
    frame = (10 * rows + columns).to(torch.uint8).expand(1, 1, 3, 4, 6)
    images = TutorialTransform(PictureFormat(size=2, resize=9, **PLAIN))(frame)
    # Middles of two halves: rows 1 and 3, columns 1 and 4 (1.5 and 4.5); the aspect ratio is lost.
    assert torch.equal((images[0, 0, 0] * 255).round(), torch.tensor([[11.0, 14.0], [31.0, 34.0]]))


@pytest.mark.parametrize("size", [(320, 240), (340, 256), (1920, 1080), (100, 75), (33, 47)])
def test_tutorial_images_are_pillows_nearest(size: tuple[int, int]):
    coordinates = np.indices(size[::-1]) % 251
    image = np.stack([*coordinates, coordinates.sum(0) % 256], axis=-1).astype(np.uint8)
    frames = torch.from_numpy(image).permute(2, 0, 1)[None, None]
    for side in (224, 299, 64):
        expected = np.array(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST))
        images = TutorialTransform(PictureFormat(size=side, resize=side, **PLAIN))(frames)
        assert torch.equal((images[0, 0] * 255).round(), torch.from_numpy(expected).permute(2, 0, 1).float())
        assert images.max() <= 1


@pytest.mark.parametrize("kind", [BackboneTransform, TutorialTransform])
def test_a_frame_gives_the_same_bits_in_any_batch(kind: type, frames: Tensor):
    transform = kind(PictureFormat(size=40, resize=50, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)))
    assert isinstance(transform, Transform)
    together = transform(frames)
    alone = [transform(frame.view(1, 1, *frame.shape)) for frame in frames.flatten(0, 1)]
    assert torch.equal(together.flatten(0, 1), torch.cat(alone).flatten(0, 1))


@pytest.mark.parametrize("kind", [BackboneTransform, TutorialTransform])
def test_the_repr_of_a_transform_names_every_setting(kind: type):
    picture_format = PictureFormat(size=40, resize=50, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.1))
    changed = [
        PictureFormat(size=41, resize=50, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.1)),
        PictureFormat(size=40, resize=(50, 50), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.1)),
        PictureFormat(size=40, resize=50, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.1 + 1e-12)),
        PictureFormat(size=40, resize=50, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.1), interpolation="bicubic"),
    ]
    assert repr(kind(picture_format)) == repr(kind(picture_format))
    assert len({repr(kind(variant)) for variant in [picture_format, *changed]}) == 5


@pytest.mark.parametrize(("shape", "axis"), [((30, 48), -1), ((48, 30), -2)])
def test_three_crops_are_both_ends_and_the_middle_of_the_longer_side(shape: tuple[int, int], axis: int):
    picture_format = PictureFormat(size=20, resize=20, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    ramp = torch.arange(shape[axis], dtype=torch.uint8).reshape((1, -1) if axis == -1 else (-1, 1))
    frames = ramp.expand(2, 1, 3, *shape).contiguous()
    crops = BackboneTransform(picture_format, crops=3)(frames)
    assert crops.shape == (6, 1, 3, 20, 20)
    assert torch.equal(crops[1::3], BackboneTransform(picture_format)(frames))
    starts = [crop.mean().item() for crop in crops[:3]]
    assert starts == sorted(starts)
    assert starts[1] - starts[0] == pytest.approx(starts[2] - starts[1], rel=0.1)


def test_two_crops_are_refused():
    with pytest.raises(VidclfError, match=r"transform\.crops=2: must be 1 .* or 3"):
        BackboneTransform(PictureFormat(8, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), crops=2)

"""Random training images, with the same draw for all frames of a view."""

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from vidclf.contracts import PictureFormat
from vidclf.data.augmentation import Augmentation
from vidclf.errors import VidclfError

PRESET = PictureFormat(size=8, resize=9, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
FRAMES = torch.arange(12 * 16, dtype=torch.uint8).reshape(12, 16).expand(8, 3, 3, 12, 16).contiguous()
KINDS = {
    "crop": {"scale": (0.1, 0.5)},
    "flip": {"flip": 0.5},
    "color": {"color_jitter": 0.5},
    "rand_augment": {"rand_augment": 9},
    "erase": {"erase": 0.5},
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_frames_of_a_view_share_a_draw_and_views_do_not(kind: str):
    torch.manual_seed(0)
    images = Augmentation(PRESET, **({"scale": (1.0, 1.0)} | KINDS[kind]))(FRAMES)
    assert images.shape == (8, 3, 3, 8, 8)
    assert torch.equal(images, images[:, :1].expand_as(images))
    assert not all(torch.equal(images[0], view) for view in images[1:])


def test_without_randomness_a_square_is_resized_and_normalised():
    square = torch.randint(256, (1, 2, 3, 16, 16), dtype=torch.uint8)
    images = Augmentation(PRESET, scale=(1.0, 1.0))(square)
    torch.manual_seed(0)
    whole = F.normalize(F.to_dtype(F.resize(square, [8, 8], antialias=True), torch.float32, scale=True), [0.5], [0.5])
    assert (images - whole).abs().mean() < 0.25  # the crop's sides may still differ by a third


def test_the_same_seed_gives_the_same_bits():
    augment = Augmentation(PRESET, flip=0.5, color_jitter=0.4, rand_augment=7, erase=0.5)
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(augment(FRAMES))
    assert torch.equal(*results)


def test_a_flip_is_refused_if_class_names_contain_a_direction():
    augment = Augmentation(PRESET, flip=0.5)
    with pytest.raises(VidclfError, match=r"flip=0\.5: a mirror image of SlideLeft, SpinClockwise"):
        augment.check_classes(["Archery", "SlideLeft", "SpinClockwise"])
    augment.check_classes(["Archery", "Biking"])
    Augmentation(PRESET).check_classes(["SlideLeft"])

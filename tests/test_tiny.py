import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from vidclf.errors import VidclfError
from vidclf.models.backbones.tiny import SHIPPED, Tiny
from vidclf.models.backbones.tiny3d import Tiny3D


@pytest.fixture
def images():
    return torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_shipped_file_is_under_a_megabyte_and_holds_about_a_hundred_thousand_numbers():
    assert SHIPPED.stat().st_size < 1_000_000
    assert 80_000 < sum(tensor.numel() for tensor in load_file(SHIPPED).values()) < 130_000


def test_features_equal_convolutions_written_out_by_hand(images):
    """Two 3x3 convolutions with ReLU, then the maximum of 2x2, four times."""
    weights = list(load_file(SHIPPED).items())
    tensors = dict(weights)
    maps = images.flatten(0, 1)
    for first in (0, 5, 10, 15):  # a stage has five layers: convolution, ReLU, convolution, ReLU, pooling
        for layer in (first, first + 2):
            maps = F.relu(F.conv2d(maps, tensors[f"layers.{layer}.weight"], tensors[f"layers.{layer}.bias"], padding=1))
        maps = F.max_pool2d(maps, 2)
    expected = maps.flatten(1).unflatten(0, (2, 3))
    assert torch.allclose(Tiny()(images), expected, atol=1e-5)


def test_feature_dim_is_the_width_of_the_features(images):
    backbone = Tiny()
    assert backbone(images).shape == (2, 3, backbone.feature_dim)


def test_a_batch_equals_its_images_one_by_one(images):
    backbone = Tiny()
    singles = torch.stack([torch.cat([backbone(f[None, None])[0] for f in view]) for view in images])
    assert torch.allclose(backbone(images), singles, atol=1e-5)


def test_the_shipped_weights_give_other_features_than_random_ones(images):
    assert not torch.allclose(Tiny()(images), Tiny(weights=None)(images))
    assert (Tiny()(images) > 0).float().mean() > 0.02


def test_features_are_the_same_bits_twice(images):
    assert torch.equal(Tiny()(images), Tiny()(images))


def test_no_parameter_is_trained():
    assert not any(parameter.requires_grad for parameter in Tiny().parameters())
    assert not Tiny().training


def test_weights_come_from_a_local_file(tmp_path, images):
    other = Tiny(weights=None)
    path = tmp_path / "mine.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in other.state_dict().items()}, path)
    assert torch.equal(Tiny(weights=path)(images), other(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trainable": "all"}, r"backbone\.trainable=all: allowed is none"),
        ({"precision": "float16"}, r"backbone\.precision=float16: allowed for tiny are float32, bfloat16"),
        ({"weights": "IMAGENET1K_V1"}, r"backbone\.weights=IMAGENET1K_V1: .*shipped.*null"),
    ],
)
def test_unknown_arguments_are_refused(arguments, message):
    with pytest.raises(VidclfError, match=message):
        Tiny(**arguments)


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"layers.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(VidclfError, match="weights of another network"):
        Tiny(weights=tmp_path / "other.safetensors")


def test_tiny3d_distinguishes_a_clip_from_its_reverse():
    torch.manual_seed(0)
    backbone = Tiny3D(width=4).eval()
    clip = torch.randn(2, 16, 3, 64, 64)
    with torch.no_grad():
        features = backbone(clip)
        assert features.shape == (2, 1, backbone.feature_dim)
        assert (features - backbone(clip.flip(1))).abs().max() > 1e-4

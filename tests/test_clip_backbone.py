"""Every torchvision video classifier as a backbone, and the small 3D network of the demo."""

import pytest
import torch
from torch import nn
from torchvision import models

from vidclf.errors import VidclfError
from vidclf.models.backbones.clip import ClipBackbone
from vidclf.models.backbones.tiny3d import Tiny3D

NAMES = models.list_models(module=models.video)


def on_meta(name: str, **settings: object) -> ClipBackbone:
    with torch.device("meta"):
        return ClipBackbone(name, weights=None, **settings)


@pytest.mark.parametrize("name", NAMES)
def test_every_video_model_gives_one_feature_a_clip_of_its_width(name: str):
    backbone = on_meta(name)
    picture_format = backbone.picture_format
    with torch.device("meta"):
        features = backbone(torch.empty(1, picture_format.clip_length, 3, picture_format.size, picture_format.size))
    assert features.shape == (1, 1, backbone.feature_dim)
    network = models.get_model_builder(name)
    last = [module for module in _built_on_meta(network).modules() if isinstance(module, nn.Linear | nn.Conv3d)][-1]
    assert backbone.feature_dim == getattr(last, "in_features", None) or getattr(last, "in_channels", None)


def _built_on_meta(builder: object) -> nn.Module:
    with torch.device("meta"):
        return builder(weights=None)


@pytest.mark.parametrize("name", NAMES)
def test_the_preset_is_that_of_torchvisions_weights(name: str):
    picture_format = on_meta(name).picture_format
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    assert picture_format.size == transforms.crop_size[0]
    assert list(picture_format.mean) == list(transforms.mean)
    assert picture_format.clip_length == (32 if "swin" in name else 16)


def test_features_are_what_the_last_layer_takes_in():
    torch.manual_seed(0)
    whole = models.video.mc3_18(weights=None).eval()
    backbone = ClipBackbone("mc3_18", weights=None, precision="float32")
    backbone.network.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("fc.")})
    clip = torch.randn(1, 4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(whole.fc(backbone(clip)[:, 0]), whole(clip.transpose(1, 2)))


@pytest.mark.parametrize(
    ("name", "num_frames", "message"),
    [
        ("mvit_v1_b", 8, r"mvit_v1_b takes views of 16 frames, these have 8\. Set sampling\.num_frames"),
        ("mvit_v2_s", 1, "16 frames, these have 1"),
        ("swin3d_t", 15, "an even number of frames, these have 15"),
        ("s3d", 8, "at least 14 frames, these have 8"),
    ],
)
def test_a_view_length_that_a_network_cannot_take_is_told(name: str, num_frames: int, message: str):
    backbone = on_meta(name)
    size = backbone.picture_format.size
    with pytest.raises(VidclfError, match=message), torch.device("meta"):
        backbone(torch.empty(1, num_frames, 3, size, size))


def test_an_unknown_name_is_told():
    with pytest.raises(VidclfError, match=r"backbone\.name=r3d_19: torchvision has no video classifier.*r3d_18"):
        ClipBackbone("r3d_19")


def test_tiny3d_tells_a_clip_from_its_reverse():
    torch.manual_seed(0)
    backbone = Tiny3D(width=4).eval()
    clip = torch.randn(2, 16, 3, 64, 64)
    with torch.no_grad():
        features = backbone(clip)
        assert features.shape == (2, 1, backbone.feature_dim)
        assert (features - backbone(clip.flip(1))).abs().max() > 1e-4

"""Every torchvision image and video classifier as a backbone; unsuitable weights are refused."""

import hashlib
import shutil
from collections import defaultdict
from copy import deepcopy
from functools import cache
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.hub import download_url_to_file
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.regnet import BlockParams

from vidclf.errors import VidclfError
from vidclf.models.backbones.torchvision_models import ClipBackbone, ImageBackbone

CLIPS = models.list_models(module=models.video)
FILES: dict[str, list[str]] = defaultdict(list)  # torchvision's, with the names of their image models
for _name in models.list_models(module=models):
    FILES[models.get_model_builder(_name).__module__].append(_name)
FIRST_AND_LAST = sorted({name for names in FILES.values() for name in (names[0], names[-1])})
SMALL = "shufflenet_v2_x0_5"  # 1.4 million parameters


def on_meta(name: str, **settings: str | None) -> ImageBackbone | ClipBackbone:
    with torch.device("meta"):
        return (ClipBackbone if name in CLIPS else ImageBackbone)(name, weights=None, **settings)


def trained(name: str = SMALL, **options: object) -> nn.Module:
    """Return a copy of a torchvision network with batch statistics that keep its features from being zero."""
    return deepcopy(_trained(name, **options))


@cache
def _trained(name: str, **options: object) -> nn.Module:
    torch.manual_seed(1)
    network = models.get_model(name, weights=None, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of all batches so far
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64))
    return network.eval()


def saved(network: nn.Module, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path


def with_hash(path: Path) -> Path:
    """Rename a file as torchvision names its files."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return path.rename(path.with_stem(f"{path.stem}-{digest[:8]}"))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of torch's downloads: empty, and no network to fill it."""

    def refuse(url: str, *_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch home"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "torch home" / "hub" / "checkpoints"


# Features


@pytest.mark.parametrize("name", FIRST_AND_LAST)
def test_image_models_of_every_file_give_features_of_the_declared_width(name: str, monkeypatch: pytest.MonkeyPatch):
    make_blocks = BlockParams.from_init_params

    def on_cpu(*args: object, **settings: object) -> BlockParams:
        with torch.device("cpu"):  # RegNet counts its layers with tensors, which meta tensors cannot
            return make_blocks(*args, **settings)

    monkeypatch.setattr(BlockParams, "from_init_params", on_cpu)
    backbone = on_meta(name, precision="bfloat16")
    size = backbone.picture_format.size
    features = backbone(torch.empty(2, 1, 3, size, size, device="meta"))
    assert features.shape == (2, 1, backbone.feature_dim)
    assert features.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "layer", "feature_dim"),
    [
        ("vgg16", None, 25_088),
        ("vgg16", "conv", 25_088),
        ("vgg16", "conv_avg", 512),
        ("vgg16", "fc6", 4096),
        ("vgg16", "fc7", 4096),
        ("alexnet", "conv", 6 * 6 * 256),
        ("alexnet", "conv_avg", 256),
        ("resnet50", None, 2048),
        ("squeezenet1_1", "penultimate", 512),
        ("inception_v3", None, 2048),
        ("vit_b_16", None, 768),
    ],
)
def test_the_widths_are_those_of_the_papers(name: str, layer: str | None, feature_dim: int):
    backbone = on_meta(name, layer=layer)
    size = backbone.picture_format.size
    assert backbone.feature_dim == feature_dim
    assert backbone(torch.empty(1, 1, 3, size, size, device="meta")).shape == (1, 1, feature_dim)


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("resnet18", "flatten"),
        ("mobilenet_v3_small", "classifier.2"),
        (SMALL, "mean"),
    ],
)
def test_features_are_those_of_torchvisions_own_extractor(name: str, node: str, images: Tensor, tmp_path: Path):
    network = trained(name)
    expected = create_feature_extractor(network, [node])(images.flatten(0, 1))[node]
    backbone = ImageBackbone(name, weights=saved(network, tmp_path / "weights.pth"), precision="float32")
    assert expected.std() > 0.1
    torch.testing.assert_close(backbone(images), expected.unflatten(0, (2, 3)), rtol=1e-3, atol=1e-3)


def test_the_layers_of_alexnet_are_those_of_torchvisions_own_extractor(images: Tensor):
    torch.manual_seed(1)
    nodes = {"flatten": "conv", "classifier.2": "fc6", "classifier.5": "fc7"}
    extractor = create_feature_extractor(models.alexnet(weights=None).eval(), nodes)
    for layer, expected in extractor(images.flatten(0, 1)).items():
        torch.manual_seed(1)  # the same random weights
        backbone = ImageBackbone("alexnet", layer, weights=None, precision="float32")
        torch.testing.assert_close(backbone(images), expected.unflatten(0, (2, 3)))


@pytest.mark.parametrize("layer", ["fc6", "fc7"])
def test_vgg_is_cut_after_the_relu(layer: str):
    kept = [type(module).__name__ for module in on_meta("vgg16", layer=layer).network.classifier]
    assert kept == ["Linear", "ReLU", "Dropout", "Linear", "ReLU"][: 2 if layer == "fc6" else 5]


def test_squeezenets_features_are_its_maps_averaged(images: Tensor, tmp_path: Path):
    network = trained("squeezenet1_1")
    weights = saved(network, tmp_path / "weights.pth")
    expected = network.features(images.flatten(0, 1)).mean((2, 3)).unflatten(0, (2, 3))
    backbone = ImageBackbone("squeezenet1_1", weights=weights, precision="float32")
    torch.testing.assert_close(backbone(images), expected)


def test_googlenet_from_a_file_shifts_its_input_as_in_torchvision(images: Tensor, tmp_path: Path):
    network = trained("googlenet", transform_input=True, init_weights=False)
    weights = saved(network, tmp_path / "weights.pth")
    network.fc = nn.Identity()
    backbone = ImageBackbone("googlenet", weights=weights, precision="float32")
    assert not [name for name in backbone.state_dict() if "aux" in name]
    expected = network(images.flatten(0, 1)).unflatten(0, (2, 3))
    torch.testing.assert_close(backbone(images), expected, rtol=1e-3, atol=1e-3)


def test_an_image_has_the_same_features_in_every_batch(images: Tensor, tmp_path: Path):
    backbone = ImageBackbone(SMALL, weights=saved(trained(), tmp_path / "weights.pth"), precision="float32")
    alone = torch.stack([backbone(view[None, None])[0, 0] for view in images.flatten(0, 1)])
    torch.testing.assert_close(backbone(images).flatten(0, 1), alone)


def test_a_frozen_backbone_has_no_gradients_and_is_in_eval_mode():
    backbone = on_meta("mobilenet_v3_small")
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.modules())


def test_the_repr_names_layer_and_number_format():
    assert "name=vgg16, layer=conv, precision=float32" in repr(on_meta("vgg16", precision="float32"))
    assert "layer=conv_avg, precision=bfloat16" in repr(on_meta("vgg16", layer="conv_avg", precision="bfloat16"))


# Clips


@pytest.mark.parametrize("name", CLIPS)
def test_every_video_model_gives_one_feature_of_the_declared_width_per_clip(name: str):
    backbone = on_meta(name)
    picture_format = backbone.picture_format
    with torch.device("meta"):
        features = backbone(torch.empty(1, picture_format.clip_length, 3, picture_format.size, picture_format.size))
        whole = models.get_model(name, weights=None)
    assert features.shape == (1, 1, backbone.feature_dim)
    last = [module for module in whole.modules() if isinstance(module, nn.Linear | nn.Conv3d)][-1]
    assert backbone.feature_dim == (last.in_features if isinstance(last, nn.Linear) else last.in_channels)
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    assert picture_format.size == transforms.crop_size[0]
    assert list(picture_format.mean) == list(transforms.mean)
    assert picture_format.clip_length == (32 if "swin" in name else 16)


def test_features_are_the_input_of_the_last_layer():
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
def test_a_view_length_that_a_network_cannot_take_is_refused(name: str, num_frames: int, message: str):
    backbone = on_meta(name)
    size = backbone.picture_format.size
    with pytest.raises(VidclfError, match=message), torch.device("meta"):
        backbone(torch.empty(1, num_frames, 3, size, size))


# Number formats


def test_bfloat16_features_are_float32_features_in_fewer_digits(images: Tensor, tmp_path: Path):
    weights = saved(trained("resnet18"), tmp_path / "weights.pth")
    full = ImageBackbone("resnet18", weights=weights, precision="float32")(images)
    half = ImageBackbone("resnet18", weights=weights, precision="bfloat16")(images)
    assert (full.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert 0 < (half - full).norm() / full.norm() < 0.1


@pytest.mark.parametrize(("matrix_units", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_where_the_cpu_has_matrix_units(
    matrix_units: bool, precision: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": matrix_units})
    assert on_meta(SMALL).precision == precision


@pytest.mark.parametrize(("generation", "precision"), [((8, 0), "bfloat16"), ((7, 5), "float32")])
def test_auto_is_bfloat16_where_the_gpu_has_matrix_units(
    generation: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: generation)
    assert on_meta(SMALL).precision == precision


# Picture formats


def test_the_default_picture_format_is_imagenets():
    picture_format = on_meta("vgg16").picture_format
    sizes = (picture_format.size, picture_format.resize)
    assert (*sizes, picture_format.interpolation, picture_format.clip_length) == (
        224,
        256,
        "bilinear",
        1,
    )
    assert (picture_format.mean, picture_format.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_the_picture_format_is_that_of_the_weights_by_name_and_by_file(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = with_hash(saved(trained("mobilenet_v2"), tmp_path / "mobilenet_v2.pth"))
    first, default = models.MobileNet_V2_Weights.IMAGENET1K_V1, models.MobileNet_V2_Weights.DEFAULT
    monkeypatch.setattr(first.value, "url", f"https://example.org/models/{path.name}")
    hub.mkdir(parents=True)
    shutil.copy(path, hub)
    assert first.transforms().resize_size == [256]
    assert default.transforms().resize_size == [232]
    assert ImageBackbone("mobilenet_v2", weights="IMAGENET1K_V1").picture_format.resize == 256
    assert ImageBackbone("mobilenet_v2", weights=path).picture_format.resize == 256
    assert ImageBackbone("mobilenet_v2", weights=path.rename(tmp_path / "mine.pth")).picture_format.resize == 232
    assert on_meta("mobilenet_v2").picture_format.resize == 232


# Weights by torchvision's names


def test_missing_weights_are_downloaded_and_used(
    hub: Path, tmp_path: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
):
    path = with_hash(saved(trained(), tmp_path / "weights.pth"))
    published = models.get_model_weights(SMALL).IMAGENET1K_V1
    monkeypatch.setattr(published.value, "url", f"https://example.org/models/{path.name}")
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, to, *_, **__: shutil.copy(path, to))
    with pytest.raises(VidclfError, match=r"nothing is fetched for a name that comes from a run.*trust=true"):
        ImageBackbone(SMALL, weights="IMAGENET1K_V1")
    by_name = ImageBackbone(SMALL, weights="IMAGENET1K_V1", precision="float32", fetch=True)
    assert (hub / path.name).is_file()
    assert torch.equal(by_name(images), ImageBackbone(SMALL, weights=path, precision="float32")(images))


def test_the_error_for_unfetchable_weights_says_which_file_goes_where(hub: Path):
    with pytest.raises(VidclfError) as caught:
        ImageBackbone("vgg16", fetch=True)
    assert "vgg16-397923af.pth" in str(caught.value)
    assert str(hub) in str(caught.value)
    assert "no route to host" in str(caught.value)
    assert "backbone.weights=null" in str(caught.value)


def test_a_download_with_another_hash_is_not_kept(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = saved(trained(), tmp_path / "weights-0123abcd.pth")
    published = models.get_model_weights(SMALL).IMAGENET1K_V1
    monkeypatch.setattr(published.value, "url", source.as_uri())
    monkeypatch.setattr(torch.hub, "download_url_to_file", download_url_to_file)
    with pytest.raises(VidclfError, match=r'cannot be fetched .*expected "0123abcd"'):
        ImageBackbone(SMALL, weights="IMAGENET1K_V1", fetch=True)
    assert not list(hub.iterdir())


def test_a_foreign_file_under_a_published_name_is_refused(hub: Path):
    hub.mkdir(parents=True)
    path = hub / "vgg16-397923af.pth"
    torch.save(trained().state_dict(), path)
    with pytest.raises(VidclfError, match=r"vgg16-397923af\.pth: .* its name says 397923af"):
        ImageBackbone("vgg16")
    assert path.exists()


def test_an_unknown_name_of_weights_lists_the_allowed_ones():
    with pytest.raises(VidclfError, match=r"IMAGENET1K_V9: .*IMAGENET1K_V2, DEFAULT"):
        ImageBackbone("resnet50", weights="IMAGENET1K_V9")


# Weights in a file


def test_a_state_dict_may_be_safetensors_carry_its_hash_and_have_another_classifier(tmp_path: Path, images: Tensor):
    plain = saved(trained(), tmp_path / "plain.pth")
    hashed = with_hash(saved(trained(), tmp_path / "hashed.pt"))
    state = trained().state_dict() | {"fc.weight": torch.zeros(7, 1024), "fc.bias": torch.zeros(7)}
    save_file(state, tmp_path / "seven classes.safetensors")
    features = [
        ImageBackbone(SMALL, weights=path, precision="float32")(images)
        for path in (plain, str(hashed), tmp_path / "seven classes.safetensors")
    ]
    assert torch.equal(features[0], features[1])
    assert torch.equal(features[0], features[2])
    assert not torch.equal(features[0], ImageBackbone(SMALL, weights=None, precision="float32")(images))


def test_densenets_published_names_are_understood(tmp_path: Path):
    network = trained("densenet121")
    old = {
        name.replace("norm1.", "norm.1.").replace("conv1.", "conv.1.") if "denselayer" in name else name: tensor
        for name, tensor in network.state_dict().items()
    }
    assert old.keys() != network.state_dict().keys()
    torch.save(old, tmp_path / "weights.pth")
    loaded = ImageBackbone("densenet121", weights=tmp_path / "weights.pth", precision="float32").network
    name = "features.denseblock4.denselayer16.conv1.weight"
    assert torch.equal(loaded.get_parameter(name), network.get_parameter(name))


def test_a_file_cut_short_is_refused(tmp_path: Path):
    for name in ("weights.pth", "weights.safetensors"):
        path = tmp_path / name
        if path.suffix == ".pth":
            saved(trained(), path)
        else:
            save_file(trained().state_dict(), path)
        path.write_bytes(path.read_bytes()[:100_000])
        with pytest.raises(VidclfError, match=rf"{name}: cannot be read as a state dict; it is cut short"):
            ImageBackbone(SMALL, weights=path)


def test_a_file_with_another_hash_than_its_name_says_is_refused(tmp_path: Path):
    path = saved(trained(), tmp_path / "shufflenet-0123abcd.pth")
    with pytest.raises(VidclfError, match=r"begins with [0-9a-f]{8} and its name says 0123abcd"):
        ImageBackbone(SMALL, weights=path)


def test_weights_of_another_network_are_refused(tmp_path: Path):
    path = saved(trained("mobilenet_v3_small"), tmp_path / "weights.pth")
    with pytest.raises(VidclfError, match=r"another network: \d+ names missing \['conv1\.0\.weight'"):
        ImageBackbone(SMALL, weights=path)


def test_a_missing_or_unknown_name_is_refused(tmp_path: Path):
    state = trained().state_dict()
    torch.save(state | {"conv6.weight": torch.zeros(1)}, tmp_path / "more.pth")
    state.pop("conv5.0.weight")
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(VidclfError, match=r"more\.pth: .* 0 names missing \[\], 1 unknown \['conv6\.weight'\]"):
        ImageBackbone(SMALL, weights=tmp_path / "more.pth")
    with pytest.raises(VidclfError, match=r"less\.pth: .* 1 names missing \['conv5\.0\.weight'\], 0 unknown"):
        ImageBackbone(SMALL, weights=tmp_path / "less.pth")


def test_weights_of_a_wider_network_are_refused(tmp_path: Path):
    path = saved(trained("shufflenet_v2_x1_0"), tmp_path / "weights.pth")
    with pytest.raises(VidclfError, match=r"another network\. [\s\S]*size mismatch for stage2\.0\.branch1"):
        ImageBackbone(SMALL, weights=path)


def test_a_training_checkpoint_is_not_a_state_dict(tmp_path: Path):
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "last.pt")
    with pytest.raises(VidclfError, match=r"holds no state dict .* a dict with epoch, state_dict"):
        ImageBackbone(SMALL, weights=tmp_path / "last.pt")


def test_a_pickled_module_is_refused_unopened(tmp_path: Path):
    torch.save(trained(), tmp_path / "module.pt")
    with pytest.raises(VidclfError, match=r"module\.pt: cannot be read as a state dict; .* more than tensors"):
        ImageBackbone(SMALL, weights=tmp_path / "module.pt")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(VidclfError, match=r"gone\.pth: no such file"):
        ImageBackbone(SMALL, weights=tmp_path / "gone.pth")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    network = trained()
    network.conv5[0].weight.data[0] = torch.nan
    with pytest.raises(VidclfError, match=r"weights\.pth: conv5\.0\.weight holds numbers that are not finite"):
        ImageBackbone(SMALL, weights=saved(network, tmp_path / "weights.pth"))


# Arguments


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "vgg61"}, r"vgg61: torchvision has no image classifier.*Did you mean .*vgg16"),
        ({"name": "r3d_18"}, r"r3d_18: torchvision has no image classifier"),
        ({"name": "zzzzzz"}, r"There are alexnet, .* more"),
        ({"layer": "conv5"}, r"layer=conv5: allowed for vgg16 are conv, conv_avg, fc6, fc7"),
        ({"name": "resnet50", "layer": "conv"}, r"layer=conv: allowed for resnet50 are penultimate"),
        ({"name": "alexnet", "trainable": "some", "weights": None}, r"trainable=some: allowed are none, .* 1 to 3"),
        ({"precision": "float8"}, r"precision=float8: allowed are auto, float32, bfloat16"),
    ],
)
def test_an_unknown_setting_names_those_allowed(settings: dict[str, str], message: str):
    with pytest.raises(VidclfError, match=message):
        ImageBackbone(**settings)


def test_an_unknown_video_model_suggests_similar_names():
    with pytest.raises(VidclfError, match=r"backbone\.name=r3d_19: torchvision has no video classifier.*r3d_18"):
        ClipBackbone("r3d_19")

"""Image models of timm: features equal those of timm's pipeline, weights are checked, unsuitable models refused."""

import json
from pathlib import Path
from typing import Any

import encoders
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from vidclf.data.transforms import BackboneTransform
from vidclf.errors import VidclfError
from vidclf.features.recipe import hash_weights
from vidclf.models.backbones.timm_models import TimmBackbone, check_names
from vidclf.models.backbones.trainable import stages_of, trained_stages
from vidclf.models.backbones.wrap import wrap

VIT = "test_vit"  # a small one in timm, 160 x 160; 100 patches and a class token
SIZE, TOKENS, WIDTH = 160, 101, 64


@pytest.fixture(scope="module")
def whole() -> nn.Module:
    """The network with its classifier of 1,000."""
    return encoders.random(timm.create_model(VIT))


@pytest.fixture(scope="module")
def weights(whole: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(whole.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller network, in a folder as timm saves it."""
    folder = tmp_path_factory.mktemp("saved")
    args = {"img_size": 32, "patch_size": 8, "depth": 2}
    network = encoders.random(timm.create_model(VIT, num_classes=5, **args))
    save_file(network.state_dict(), folder / "model.safetensors")
    cfg = {**network.pretrained_cfg, "input_size": [3, 32, 32], "mean": [0.1, 0.2, 0.3], "num_classes": 5}
    config = {"architecture": VIT, "num_classes": 5, "model_args": args, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def frames() -> Tensor:
    """Two views of three frames, in bytes, wider than high."""
    return torch.randint(0, 256, (2, 3, 3, 170, 223), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def by_timm(network: nn.Module) -> Tensor:
    """Return `frames` as timm prepares them, from Pillow's images."""
    transform = create_transform(**resolve_model_data_config(network))
    from_pillow = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames().flatten(0, 1)]
    return torch.stack([transform(image) for image in from_pillow])


def ours(*arguments: Any, **settings: Any) -> Tensor:
    backbone = wrap(TimmBackbone(*arguments, precision="float32", **settings))
    return backbone(BackboneTransform(backbone.picture_format)(frames()))


# Features


def test_features_equal_those_of_timms_pipeline(whole: nn.Module, weights: Path):
    images = by_timm(whole)
    with torch.no_grad():
        tokens = whole.forward_features(images)
        expected = {
            "pooled": whole.forward_head(tokens, pre_logits=True).unflatten(0, (2, 3)),
            "cls": tokens[:, 0].unflatten(0, (2, 3)),
            "tokens": tokens.reshape(2, 3 * TOKENS, WIDTH),
        }
    for features, values in expected.items():
        # Pillow and torch round the resized bytes to the same values, except for a few that differ by one.
        torch.testing.assert_close(ours(VIT, features, weights), values, rtol=1e-2, atol=1e-2)
    assert values.std() > 0.1


def test_the_same_images_give_the_same_features_to_the_last_digits(whole: nn.Module, weights: Path):
    images = by_timm(whole)
    with torch.no_grad():
        expected = whole.forward_features(images).reshape(2, -1, WIDTH)
        features = TimmBackbone(VIT, "tokens", weights, precision="float32")(images.unflatten(0, (2, 3)))
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


def test_a_folder_that_timm_saved_is_read_with_its_picture_format(folder: Path):
    backbone = TimmBackbone(f"local-dir:{folder}", precision="float32")
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert (backbone.picture_format.size, backbone.picture_format.mean) == (32, (0.1, 0.2, 0.3))
    images = torch.rand(2, 1, 3, 32, 32)
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(images[:, 0]), pre_logits=True)
        torch.testing.assert_close(backbone(images)[:, 0], expected)
    assert hash_weights(backbone) != hash_weights(backbone.network)  # the configuration is part of the hash


@pytest.mark.parametrize(
    ("name", "features", "shape"),
    [
        (VIT, "pooled", (1, 2, 64)),
        (VIT, "cls", (1, 2, 64)),
        (VIT, "tokens", (1, 2 * 101, 64)),
        ("test_resnet", "pooled", (1, 2, 96)),
        ("test_resnet", "tokens", (1, 2 * 25, 96)),
        ("swin_tiny_patch4_window7_224", "tokens", (1, 2 * 49, 768)),  # channels last
        ("mobilenetv3_small_050", "pooled", (1, 2, 1024)),  # wider than its maps
        ("mobilenetv3_small_050", "tokens", (1, 2 * 49, 288)),
        ("vit_small_patch16_dinov3.lvd1689m", "tokens", (1, 2 * (1 + 4 + 256), 384)),
        ("vit_base_patch16_siglip_224.v2_webli", "pooled", (1, 2, 768)),
    ],
)
def test_features_have_the_declared_shape(name: str, features: str, shape: tuple[int, ...]):
    with torch.device("meta"):
        backbone = TimmBackbone(name, features, weights=None, precision="float32")
        size = backbone.picture_format.size
        output = backbone(torch.empty(1, 2, 3, size, size))
    assert output.shape == shape
    assert backbone.feature_dim == shape[-1]


def test_the_picture_format_is_that_of_the_tags_weights():
    with torch.device("meta"):
        formats = [
            TimmBackbone(name, weights=None).picture_format
            for name in ("vit_base_patch16_clip_224.openai", "convnext_tiny.fb_in22k_ft_in1k_384")
        ]
    assert [(images.size, images.resize, images.interpolation) for images in formats] == [
        (224, 248, "bicubic"),
        (384, (384, 384), "bicubic"),
    ]
    assert formats[0].mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)


def test_a_backbone_in_bfloat16_computes_in_it(weights: Path):
    backbone = TimmBackbone(VIT, weights=weights, precision="bfloat16")
    assert backbone.precision == "bfloat16"
    assert backbone(torch.rand(1, 1, 3, SIZE, SIZE)).dtype == torch.bfloat16


# Training


def test_stages_and_their_rates_are_those_of_timms_groups():
    with torch.device("meta"):
        backbone = TimmBackbone("vit_tiny_patch16_224", weights=None, trainable="all")
        network = timm.create_model("vit_tiny_patch16_224")
    assert len(stages_of(backbone)) == 12
    names = {parameter: name for name, parameter in backbone.network.named_parameters()}
    ours = {names[p]: 0.5**depth for depth, stage in enumerate(trained_stages(backbone), start=1) for p in stage}
    theirs = param_groups_layer_decay(network, layer_decay=0.5)
    scales = {id(p): group["lr_scale"] for group in theirs for p in group["params"]}
    named = {name: scales[id(p)] for name, p in network.named_parameters() if not name.startswith("head.")}
    assert ours == pytest.approx(named)


def test_layers_after_the_last_stage_are_trained_with_it():
    with torch.device("meta"):
        backbones = [TimmBackbone(name, weights=None, trainable="last") for name in (VIT, "convnext_atto")]
    trained = [{n for n, p in backbone.network.named_parameters() if p.requires_grad} for backbone in backbones]
    assert {"norm.weight"} < trained[0]
    assert {"head.norm.weight", "stages.3.blocks.1.gamma"} < trained[1]
    assert not any(name.startswith(("patch_embed", "stem", "stages.0")) for name in trained[0] | trained[1])


# Weights


def changed(weights: Path, path: Path, removed: str = "", added: str = "") -> Path:
    state = {name: tensor for name, tensor in load_file(weights).items() if name != removed}
    save_file(state | ({added: torch.zeros(2)} if added else {}), path)
    return path


def test_a_file_with_another_classifier_or_none_is_used(weights: Path, tmp_path: Path):
    headless = changed(weights, tmp_path / "a.safetensors", "head.weight")
    other = tmp_path / "b.pth"
    torch.save(load_file(weights) | {"head.weight": torch.zeros(7, WIDTH), "head.bias": torch.zeros(7)}, other)
    images = torch.rand(1, 1, 3, SIZE, SIZE)
    first, *others = (
        TimmBackbone(VIT, weights=path, precision="float32")(images) for path in (weights, headless, other)
    )
    assert all(torch.equal(first, features) for features in others)


def test_a_missing_or_unknown_name_is_refused_and_listed(weights: Path, tmp_path: Path):
    less = changed(weights, tmp_path / "less.safetensors", removed="blocks.1.attn.qkv.bias")
    more = changed(weights, tmp_path / "more.safetensors", added="stranger.weight")
    with pytest.raises(VidclfError, match=r"less\.safetensors: .*[\s\S]*Missing key.*blocks\.1\.attn\.qkv\.bias"):
        TimmBackbone(VIT, weights=less)
    with pytest.raises(VidclfError, match=r"more\.safetensors: .*[\s\S]*Unexpected key.*stranger\.weight"):
        TimmBackbone(VIT, weights=more)


def test_weights_that_timm_does_not_check_are_checked():
    """timm loads SigLIP without its pooling non-strictly."""
    network = nn.Linear(2, 1)
    check_names(Path("a.pth"), network, {"weight", "bias", "attn_pool.latent"})
    with pytest.raises(VidclfError, match=r"a\.pth: .* missing \['bias'\], unknown \['other'\]"):
        check_names(Path("a.pth"), network, {"weight", "other"})


def test_weights_that_are_not_finite_are_refused(weights: Path, tmp_path: Path):
    state = load_file(weights)
    state["norm.weight"][3] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(VidclfError, match=r"norm\.weight holds numbers that are not finite"):
        TimmBackbone(VIT, weights=tmp_path / "nan.safetensors")


def test_weights_of_another_model_and_unreadable_files_are_refused(weights: Path, tmp_path: Path):
    with pytest.raises(VidclfError, match=r"vit\.safetensors: .*not exactly the weights of test_resnet"):
        TimmBackbone("test_resnet", weights=weights)
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(VidclfError, match=r"cut\.safetensors: cannot be read"):
        TimmBackbone(VIT, weights=tmp_path / "cut.safetensors")
    with pytest.raises(VidclfError, match=r"backbone\.weights=none\.pth: no such file"):
        TimmBackbone(VIT, weights="none.pth")
    with pytest.raises(VidclfError, match=r"backbone\.weights=IMAGENET1K_V1: .*DEFAULT, a file"):
        TimmBackbone(VIT, weights="IMAGENET1K_V1")


# Errors


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tiny_patch16_225", r"timm has no model of that name\. Did you mean vit_tiny_patch16_224"),
        ("resnet18.a9_in1k", r"timm has no model of that name\. Did you mean resnet18\.a[123]_in1k"),
        ("timm/resnet18", "timm has no model of that name"),
        ("hf-hub:a/../b", "`..` in it is refused"),
        ("local-dir:../b", "`..` in it is refused"),
        ("local-dir:nowhere", "no such folder"),
        ("local-dir:.", r"it needs a config\.json with an architecture"),
    ],
)
def test_an_unknown_name_is_an_error_that_suggests_others(name: str, message: str):
    with pytest.raises(VidclfError, match=message):
        TimmBackbone(name)


def test_features_that_a_model_lacks_are_refused(folder: Path):
    with pytest.raises(VidclfError, match=r"features=class: allowed are pooled, cls, tokens"):
        TimmBackbone(VIT, "class")
    with torch.device("meta"):
        with pytest.raises(VidclfError, match=r"features=cls: test_resnet has no class token"):
            TimmBackbone("test_resnet", "cls", weights=None)
        with pytest.raises(VidclfError, match=r"features=tokens: crossvit_tiny_240 gives a list there"):
            TimmBackbone("crossvit_tiny_240", "tokens", weights=None)(torch.empty(1, 1, 3, 240, 240))


def test_images_of_another_size_than_the_positions_are_refused(weights: Path):
    with pytest.raises(VidclfError, match=r"test_vit takes images of 160 x 160, .*these have 96 x 96"):
        TimmBackbone(VIT, weights=weights)(torch.rand(1, 1, 3, 96, 96))


@pytest.mark.skipif(not timm.is_model("vit_base_patch16_sapiens2"), reason="timm 1.0.26 has no such model")
def test_images_that_are_not_square_are_refused():
    with torch.device("meta"), pytest.raises(VidclfError, match=r"it takes images of 1024 x 768 in 3 channels"):
        TimmBackbone("vit_base_patch16_sapiens2.fb", weights=None)


def test_an_old_timm_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vidclf.system.extras.version", lambda name: "1.0.3")
    with pytest.raises(
        VidclfError, match=r"backbone=timm needs timm 1\.0\.26 or newer \(1\.0\.3\): pip install 'vidclf"
    ):
        TimmBackbone(VIT)

"""Encoders of transformers: features equal those of its pipeline, weights are checked, unsuitable ones refused."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import encoders
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from vidclf.data.transforms import BackboneTransform
from vidclf.errors import VidclfError
from vidclf.features.recipe import hash_weights
from vidclf.models.backbones.trainable import stages_of, trained_stages
from vidclf.models.backbones.transformers_models import TransformersBackbone
from vidclf.models.backbones.wrap import wrap


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small encoders, each in a folder named after its class; tests must not change them."""
    root = tmp_path_factory.mktemp("encoders")
    for kind in ("VideoMAEModel", "VideoMAEForPreTraining", "VideoMAEForVideoClassification"):
        encoders.videomae(root / kind, kind, use_mean_pooling=kind != "VideoMAEForPreTraining")
    for kind in ("VJEPA2Model", "VJEPA2ForVideoClassification"):
        encoders.vjepa2(root / kind, kind)
    encoders.dinov2(root / "Dinov2Model")
    return root


@pytest.fixture
def copy(folders: Path, tmp_path: Path) -> Callable[[str], Path]:
    """`copy("VJEPA2Model")` is a folder that the test may change."""
    return lambda kind: shutil.copytree(folders / kind, tmp_path / kind)


def frames(num_frames: int) -> Tensor:
    """Two views of frames, in bytes, wider than high."""
    return torch.randint(
        0, 256, (2, num_frames, 3, 45, 61), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def ours(folder: Path, views: Tensor) -> Tensor:
    backbone = wrap(TransformersBackbone(str(folder), precision="float32"))
    return backbone(BackboneTransform(backbone.picture_format)(views))


def whole(folder: Path) -> Any:
    """The model that was saved, as transformers loads it."""
    kind = folder.name if hasattr(transformers, folder.name) else "VideoMAEModel"
    return getattr(transformers, kind).from_pretrained(folder).base_model.eval()


# Features


@pytest.mark.parametrize("kind", ["VideoMAEModel", "VideoMAEForPreTraining", "VideoMAEForVideoClassification"])
def test_videomaes_features_equal_those_of_its_pipeline(kind: str, folders: Path):
    views = frames(4)
    processor = transformers.VideoMAEVideoProcessor.from_pretrained(folders / kind)
    with torch.no_grad():
        tokens = whole(folders / kind)(**processor(list(views), return_tensors="pt")).last_hidden_state
    assert tokens.shape == (2, 2 * 16, 32)
    expected = tokens.unflatten(1, (2, 16)).mean(2)  # two frames a step; a step's patches are adjacent
    torch.testing.assert_close(ours(folders / kind, views), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["VJEPA2Model", "VJEPA2ForVideoClassification"])
def test_vjepa2s_features_equal_those_of_its_pipeline(kind: str, folders: Path):
    views = frames(6)
    processor = transformers.VJEPA2VideoProcessor.from_pretrained(folders / kind)
    with torch.no_grad():
        tokens = whole(folders / kind).get_vision_features(**processor(list(views), return_tensors="pt"))
    expected = tokens.unflatten(1, (3, 16)).mean(2)
    torch.testing.assert_close(ours(folders / kind, views), expected, rtol=1e-4, atol=1e-5)


def test_dinov2s_features_equal_those_of_its_pipeline(folders: Path):
    views = frames(3)
    processor = transformers.BitImageProcessor.from_pretrained(folders / "Dinov2Model")
    images = processor(list(views.flatten(0, 1)), return_tensors="pt")
    with torch.no_grad():
        expected = whole(folders / "Dinov2Model")(**images).pooler_output.unflatten(0, (2, 3))
    torch.testing.assert_close(ours(folders / "Dinov2Model", views), expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("kind", "size", "length", "shape"),
    [
        ("VideoMAEModel", 32, 4, (1, 2, 32)),
        ("VJEPA2Model", 32, 6, (1, 3, 24)),
        ("Dinov2Model", 28, 1, (1, 1, 24)),
    ],
)
def test_length_and_size_are_those_of_the_configurations(
    kind: str, size: int, length: int, shape: tuple[int, ...], folders: Path
):
    backbone = TransformersBackbone(str(folders / kind))
    picture_format = backbone.picture_format
    assert (picture_format.size, picture_format.clip_length) == (size, length)
    assert backbone(torch.zeros(1, length, 3, size, size)).shape == shape
    assert backbone.feature_dim == shape[-1]
    assert backbone.name == kind


def test_features_in_bfloat16_are_those_of_float32_in_fewer_digits(folders: Path):
    clip = torch.rand(1, 4, 3, 32, 32)
    half, full = (
        TransformersBackbone(str(folders / "VideoMAEModel"), precision=precision)(clip)
        for precision in ("bfloat16", "float32")
    )
    assert (half.dtype, full.dtype) == (torch.bfloat16, torch.float32)
    assert 0 < (half - full).norm() / full.norm() < 0.1


def test_another_configuration_of_the_same_weights_is_another_backbone(copy: Callable[[str], Path]):
    folder = copy("Dinov2Model")
    before = hash_weights(TransformersBackbone(str(folder)))
    encoders.change(folder / "config.json", transformers_version="5.3.0")
    assert hash_weights(TransformersBackbone(str(folder))) == before
    encoders.change(folder / "config.json", num_attention_heads=2)
    assert hash_weights(TransformersBackbone(str(folder))) != before


# Training


@pytest.mark.parametrize("kind", ["VideoMAEModel", "VJEPA2Model", "Dinov2Model"])
def test_stages_are_blocks_and_every_trained_parameter_gets_a_gradient(kind: str, folders: Path):
    backbone = TransformersBackbone(str(folders / kind), trainable="all")
    assert len(stages_of(backbone)) == 2
    size, length = backbone.picture_format.size, backbone.picture_format.clip_length
    backbone.train()(torch.rand(1, length, 3, size, size)).sum().backward()
    trained = [parameter for stage in trained_stages(backbone) for parameter in stage]
    assert trained
    assert all(parameter.grad is not None for parameter in trained)
    last = TransformersBackbone(str(folders / kind), trainable="last")
    names = {name for name, parameter in last.named_parameters() if parameter.requires_grad}
    assert names
    assert all("layer.1." in name or "layernorm" in name for name in names)


# Weights


def test_the_biases_of_queries_and_values_are_those_of_the_file(copy: Callable[[str], Path]):
    """For months, transformers silently loaded zeros."""
    folder = copy("VideoMAEModel")
    state = load_file(folder / "model.safetensors")
    names = [name for name in state if "query.bias" in name or "q_bias" in name]
    assert len(names) == 2
    before = ours(folder, frames(4))
    save_file(
        {name: tensor + (name in names) for name, tensor in state.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    assert not torch.allclose(ours(folder, frames(4)), before)


@pytest.mark.parametrize("kind", ["VideoMAEForVideoClassification", "VJEPA2Model", "Dinov2Model"])
def test_a_missing_or_unknown_name_is_listed(kind: str, copy: Callable[[str], Path]):
    folder = copy(kind)
    state = load_file(folder / "model.safetensors")
    removed = next(name for name in state if "layer.1.mlp.fc2.bias" in name or "layer.1.output.dense.bias" in name)
    kept = {name: tensor for name, tensor in state.items() if name != removed}
    save_file(kept | {"stranger.weight": torch.zeros(2)}, folder / "model.safetensors", {"format": "pt"})
    message = rf"{kind} \(not in the file: \S*{removed.split('.', 3)[-1]}; not used: stranger\.weight\)"
    with pytest.raises(VidclfError, match=message):
        TransformersBackbone(str(folder))


def test_weights_of_another_shape_are_refused(copy: Callable[[str], Path]):
    folder = copy("Dinov2Model")
    encoders.change(folder / "config.json", mlp_ratio=2)
    with pytest.raises(VidclfError, match=r"Dinov2Model.*mlp\.fc1"):
        TransformersBackbone(str(folder))


def test_missing_and_incomplete_weights_are_refused(copy: Callable[[str], Path]):
    folder = copy("VideoMAEModel")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(VidclfError, match="its weights cannot be loaded as VideoMAEModel"):
        TransformersBackbone(str(folder))
    path.unlink()
    with pytest.raises(VidclfError, match="its weights cannot be loaded as VideoMAEModel"):
        TransformersBackbone(str(folder))


# Errors


@pytest.mark.parametrize(("kind", "num_frames"), [("VideoMAEModel", 1), ("VideoMAEModel", 8), ("VJEPA2Model", 4)])
def test_views_of_another_length_are_refused(kind: str, num_frames: int, folders: Path):
    backbone = TransformersBackbone(str(folders / kind))
    length = backbone.picture_format.clip_length
    with pytest.raises(
        VidclfError, match=rf"{kind} takes views of {length} frames, these have {num_frames}\. Set sampl"
    ):
        backbone(torch.zeros(1, num_frames, 3, 32, 32))


def test_images_of_another_size_than_the_positions_are_refused(copy: Callable[[str], Path]):
    folder = copy("VideoMAEModel")
    with pytest.raises(VidclfError, match=r"VideoMAEModel takes images of 32 x 32.* 40 x 40"):
        TransformersBackbone(str(folder))(torch.zeros(1, 4, 3, 40, 40))
    for kind in ("VideoMAEModel", "VJEPA2Model"):
        folder = folder if kind == "VideoMAEModel" else copy(kind)
        for path in folder.glob("*preprocessor_config.json"):
            encoders.change(path, crop_size={"height": 40, "width": 40})
        with pytest.raises(VidclfError, match=r"images of 40 x 40, and the model's positions are for 32 x 32"):
            TransformersBackbone(str(folder))


@pytest.mark.parametrize(
    "changed",
    [{"do_resize": False}, {"rescale_factor": 1.0}, {"do_center_crop": False}, {"size": {"longest_edge": 40}}],
)
def test_an_unsupported_processor_is_refused(changed: dict[str, Any], copy: Callable[[str], Path]):
    folder = copy("Dinov2Model")
    encoders.change(folder / "preprocessor_config.json", **changed)
    with pytest.raises(VidclfError, match=r"makes images in a way that is not supported|how to make images"):
        TransformersBackbone(str(folder))


def test_a_processor_that_only_resizes_to_a_square_is_read(copy: Callable[[str], Path]):
    folder = copy("Dinov2Model")
    changed = {"do_center_crop": False, "crop_size": None, "size": {"height": 28, "width": 28}, "do_normalize": False}
    encoders.change(folder / "preprocessor_config.json", **changed)
    picture_format = TransformersBackbone(str(folder)).picture_format
    assert (picture_format.size, picture_format.resize, picture_format.mean) == (28, (28, 28), (0.0, 0.0, 0.0))


def test_a_folder_without_a_processor_is_refused(copy: Callable[[str], Path]):
    folder = copy("VJEPA2Model")
    (folder / "video_preprocessor_config.json").unlink()
    with pytest.raises(VidclfError, match="how to make images: it needs the preprocessor_config"):
        TransformersBackbone(str(folder))


def small_model(folder: Path, kind: str, size: int = 32) -> Path:
    """Save a small model of another architecture."""
    small = {
        "Siglip": {"image_size": 32, "patch_size": 8, "hidden_size": 16, "intermediate_size": 16},
        "ViT": {"image_size": 32, "patch_size": 8, "hidden_size": 16, "intermediate_size": 16},
        "Timesformer": {"image_size": 32, "patch_size": 8, "num_frames": 4, "hidden_size": 16, "intermediate_size": 16},
        "Bert": {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 16},
    }[kind]
    name = "SiglipVision" if kind == "Siglip" else kind
    config = getattr(transformers, f"{name}Config")(**small, num_hidden_layers=1, num_attention_heads=2)
    processor = transformers.VideoMAEImageProcessor if kind == "Timesformer" else transformers.ViTImageProcessor
    settings = {"crop_size": encoders.CROP} if kind == "Timesformer" else {"size": {"height": size, "width": size}}
    return encoders.save(folder, getattr(transformers, f"{name}Model")(config), processor(**settings))


def test_another_architecture_that_fits_is_used(tmp_path: Path):
    backbone = TransformersBackbone(str(small_model(tmp_path, "Siglip")))
    assert backbone(torch.rand(2, 3, 3, 32, 32)).shape == (2, 3, 16)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Timesformer", r"TimesformerModel does not fit: for 4 frames it gives \(1, 65, 16\), not 64 tokens"),
        ("Bert", r"model_type=bert, and vidclf takes no model of that name"),
    ],
)
def test_another_architecture_that_does_not_fit_is_refused(kind: str, message: str, tmp_path: Path):
    with pytest.raises(VidclfError, match=message):
        TransformersBackbone(str(small_model(tmp_path, kind)))


def test_a_model_with_positions_for_another_size_is_refused(tmp_path: Path):
    with pytest.raises(VidclfError, match=r"ViTModel does not fit: .*doesn't match"):
        TransformersBackbone(str(small_model(tmp_path, "ViT", size=40)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "videomea"}, r"model_type=videomea.*Did you mean videomae"),
        ({"model_type": None}, "not the configuration of a model"),
        ({"architectures": None}, "must name the one class"),
        ({"architectures": ["MyModel"]}, r"architectures=\['MyModel'\].*never run"),
        ({"architectures": ["AutoModel"]}, "must name the one class"),
        ({"architectures": ["BertModel"]}, "must name the one class"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config is not supported"),
        ({"fusion_config": {"a": 1}}, "fusion_config is not supported"),
        ({"model_type": "lightglue"}, "model_type=lightglue, and vidclf takes no model"),
        ({"keypoint_detector_config": {"model_type": "superpoint"}}, "keypoint_detector_config holds a configuration"),
        ({"backbone_config": {"trust_remote_code": True}}, "backbone_config holds a configuration of its own"),
        ({"a": {"auto_map": {"AutoConfig": "x.Y"}}}, "a holds a configuration of its own"),
        ({"a": {"b": {"_name_or_path": "someone/else"}}}, "a holds a configuration of its own"),
        ({"patch_size": 0}, "Dinov2Model"),
        ({"architectures": 3}, "do not describe a model that can be read"),
        ({"hidden_size": "many"}, "not a valid configuration of dinov2|cannot be loaded as Dinov2Model"),
    ],
)
def test_an_invalid_configuration_is_refused(changed: dict[str, Any], message: str, copy: Callable[[str], Path]):
    folder = copy("Dinov2Model")
    encoders.change(folder / "config.json", **changed)
    with pytest.raises(VidclfError, match=message):
        TransformersBackbone(str(folder))


def test_code_in_a_folder_is_never_run(copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch):
    folder = copy("Dinov2Model")
    (folder / "my_model.py").write_text("raise SystemExit('ran')")
    auto_map = {"AutoConfig": "my_model.Config", "AutoModel": "my_model.Model"}
    auto_map["AutoImageProcessor"] = "my_model.Processor"
    attention = {"_attn_implementation": "someone/kernels", "attn_implementation": "someone/kernels"}
    encoders.change(folder / "config.json", auto_map=auto_map, **attention)
    encoders.change(folder / "preprocessor_config.json", auto_map=auto_map)
    backbone = TransformersBackbone(str(folder))
    assert backbone.network.config._attn_implementation == "sdpa"
    assert not [name for name in sys.modules if name.endswith("my_model")]
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    with pytest.raises(VidclfError, match="holds an adapter"):
        TransformersBackbone(str(folder))


def test_an_old_transformers_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vidclf.system.extras.version", lambda name: "5.2.0")
    with pytest.raises(
        VidclfError, match=r"backbone=transformers needs transformers 5\.10 or newer \(5\.2\.0\): pip inst"
    ):
        TransformersBackbone("anything")

"""Backbones in 8-bit integers: their features, their calibration, and backbones that cannot be quantised."""

import csv
import json
import os
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from doubles import Clips, Images, make_corpus
from torch import Tensor, nn
from verbs import SMALL, Outcome

from vidclf.build.parts import build_backbone, prepare_backbone
from vidclf.contracts import PictureFormat
from vidclf.data.sampling import Rate
from vidclf.data.transforms import BackboneTransform
from vidclf.errors import VidclfError
from vidclf.features.calibration import _draw
from vidclf.features.extract import Extractor
from vidclf.features.recipe import hash_weights
from vidclf.models.backbones.int8 import Int8Backbone
from vidclf.models.backbones.tiny import Tiny
from vidclf.models.backbones.wrap import FrozenBackbone
from vidclf.system.machine import saturates_int8

INT8 = (*SMALL, "backbone.precision=int8", "backbone.weights=shipped")


class Same(nn.Module):
    """Returns its images as features: one weight of 1 per channel."""

    picture_format = PictureFormat(size=4, resize=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    feature_dim = 48

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1, bias=False).requires_grad_(False)
        self.convolution.weight.copy_(torch.eye(3)[:, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return self.convolution(images.flatten(0, 1)).flatten(1).unflatten(0, images.shape[:2])


class Branching(Images):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.sum() > 0 else -images)


class Forgetful(Images):
    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images) * self.calls


def calibrated(backbone: nn.Module, images: Tensor) -> Int8Backbone:
    int8 = Int8Backbone(backbone)
    int8.calibrate(images.split(8))
    return int8


def test_values_are_rounded_to_256_levels_between_the_smallest_and_the_largest_calibrated_value():
    levels = torch.arange(256) / 100  # 0 to 2.55
    images = levels[torch.randint(256, (64, 1, 3, 4, 4), generator=torch.Generator().manual_seed(0))]
    images[0].flatten()[:2] = torch.tensor([0, 2.55])
    int8 = calibrated(Same(), images)
    int8.precision = "float32"
    between = images[:32] + 0.003  # nearer to the level below
    expected = images[:32].flatten(2)
    torch.testing.assert_close(int8(between), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(int8(images[:32] + 1), (expected + 1).clamp(max=2.55), atol=1e-5, rtol=0)


def test_features_are_near_those_of_float32_and_do_not_depend_on_the_batch():
    images = torch.randn(64, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tiny = Tiny()
    frozen = FrozenBackbone(calibrated(tiny, images))
    expected, features = tiny(images), frozen(images)
    assert 1e-3 < float((features.float() - expected).norm() / expected.norm()) < 0.05
    assert torch.equal(frozen(images[40:41]), features[40:41])
    assert torch.equal(pickle.loads(pickle.dumps(frozen))(images[:3]), features[:3])


@pytest.mark.parametrize(
    ("capabilities", "machine", "arithmetic"),
    [
        ({"avx512_vnni": True}, "x86_64", ""),
        ({"avx_vnni": True}, "AMD64", ""),
        ({"avx2": True}, "x86_64", "exact sums"),
        ({}, "aarch64", ""),
    ],
)
def test_a_processor_whose_sums_overflow_computes_them_exactly_and_fills_another_store(
    capabilities: dict[str, bool], machine: str, arithmetic: str, monkeypatch: pytest.MonkeyPatch
):
    """Weights and images at the ends of their ranges: the sum of two products leaves 16 bits."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr("platform.machine", lambda: machine)
    images = torch.rand(64, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).round()
    loud = Images()
    loud.convolution.weight.copy_(loud.convolution.weight.sign())
    int8 = calibrated(loud.eval(), images)
    assert int8.arithmetic == arithmetic
    if arithmetic:
        difference = int8(images).float() - loud(images)
        assert float(difference.norm() / loud(images).norm()) < 0.01


def test_any_batch_size_is_computed_and_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch):
    images = torch.randn(64, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    int8 = calibrated(Tiny(), images)
    assert torch.equal(int8(images[:1]), int8(images[:32])[:1])  # as counting operations of one image does
    frozen = FrozenBackbone(int8)
    monkeypatch.setattr("vidclf.features.extract.has_matrix_units", lambda: True)
    monkeypatch.setattr(frozen, "compile_layers", lambda one: pytest.fail("its layers are ONNX Runtime's"))
    transform = BackboneTransform(frozen.picture_format)
    for choice in ("auto", True):
        Extractor([], transform, frozen, torch.device("cpu"), compile=choice).compile_if_it_pays(10**12)


def test_a_gpu_is_an_error_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vidclf.build.parts.choose_device", lambda *_: torch.device("cuda", 0))
    backbone = {"_target_": "vidclf.models.backbones.tiny.Tiny", "precision": "int8"}
    with pytest.raises(VidclfError, match=r"int8 is computed by the CPU.*trainer\.accelerator=cpu"):
        build_backbone({"seed": 0, "backbone": backbone, "trainer": {}})


def test_ranges_are_part_of_the_weights_hash():
    images = torch.randn(32, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    first, second = calibrated(Images(), images), calibrated(Images(), 2 * images)
    assert len({hash_weights(network) for network in (first, second, Images())}) == 3
    assert hash_weights(Int8Backbone(Images(), first.ranges)) == hash_weights(first)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (Clips, "int8 is for image backbones, and clips takes clips of 4 frames"),
        (lambda: Images().requires_grad_(True), "int8 is for a frozen backbone"),
        (Branching, "Branching cannot be exported to ONNX .*without branches"),
        (Forgetful, "Forgetful, exported to ONNX, computes other features"),
    ],
)
def test_a_backbone_that_cannot_be_quantised_is_an_error(backbone: Callable[[], nn.Module], message: str):
    with pytest.raises(VidclfError, match=message):
        calibrated(backbone().eval(), torch.rand(32, 1, 3, 16, 16))


@pytest.mark.parametrize(
    "ranges",
    [{"a": [0.0]}, {"a": [1.0, 0.0]}, {"a": ["x", 1]}, {"a": [0.0, float("nan")]}, {}, [1, 2], "${oc.env:HOME}"],
)
def test_invalid_ranges_are_an_error(ranges: object):
    with pytest.raises(VidclfError, match=r"backbone\.calibration: each tensor .* two finite numbers"):
        Int8Backbone(Images(), ranges)


def test_ranges_of_another_network_are_an_error():
    int8 = Int8Backbone(Images().eval(), {"conv": [0.0, 1.0]})
    with pytest.raises(VidclfError, match=r"backbone\.calibration belongs to another network"):
        int8(torch.rand(32, 1, 3, 16, 16))


def test_an_uncalibrated_backbone_is_an_error():
    with pytest.raises(VidclfError, match="is calibrated on training images, by vidclf train and extract"):
        Int8Backbone(Images())(torch.rand(32, 1, 3, 16, 16))


def test_calibration_draws_training_frames_by_the_seed(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vidclf.features.calibration.NUM_IMAGES", 70)
    corpus = make_corpus(clips, store=tmp_path, sampling=Rate(25))
    trained_on = {one.video: set(one.frames.flatten().tolist()) for one in corpus.views("train")}
    drawn = _draw(corpus, 0)
    assert all(set(frames) <= trained_on[video] for video, frames in drawn.items())
    assert sum(len(set(frames)) for frames in drawn.values()) == 70
    assert drawn == _draw(make_corpus(clips, store=tmp_path, sampling=Rate(25)), 0) != _draw(corpus, 1)


def test_too_few_training_frames_are_an_error(clips: Path, tmp_path: Path):
    with pytest.raises(VidclfError, match=r"has \d+ frames, and calibration needs 64"):
        _draw(make_corpus(clips, store=tmp_path, sampling=Rate(1)), 0)


def test_calibration_returns_a_new_configuration_and_is_computed_once(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    transform = {"_target_": "vidclf.data.transforms.BackboneTransform", "_partial_": True}
    config = {"seed": 0, "backbone": {"precision": "int8"}, "transform": transform, "store": {"root": str(tmp_path)}}
    before = deepcopy(config)
    corpus = make_corpus(clips, store=tmp_path, sampling=Rate(25))
    first, second = (FrozenBackbone(Int8Backbone(Images().eval())) for _ in range(2))
    prepared = prepare_backbone(config, first, lambda: corpus)
    assert config == before
    assert prepared == config | {"backbone": {"precision": "int8", "calibration": first.backbone.ranges}}
    assert prepare_backbone(config, second, lambda: corpus) == prepared
    assert capsys.readouterr().err.count("calibrating on") == 1
    assert prepare_backbone(prepared, first, lambda: pytest.fail("it is calibrated")) == prepared


def test_a_run_is_trained_scored_and_used_in_int8(
    clips: Path, vidclf: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    at = (f"dataset.root={clips}", *INT8, "sampling.rate_hz=25")
    first, second = vidclf("train", *at), vidclf("train", *at, "head.widths=[8]")
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert "calibrating on" in first.err
    assert "bfloat16 for vgg16, resnet50" in first.err
    assert "tiny was not" in first.err
    assert "calibrating on" not in second.err  # it is kept
    stores = list((tmp_path / "data" / "features").glob("tiny-*"))
    assert len(stores) == 1
    (kept,) = (tmp_path / "data" / "features" / "calibrations").glob("*.json")
    recipe = json.loads((stores[0] / "recipe.json").read_text())
    assert recipe["backbone"].count(next(iter(json.loads(kept.read_text()))))
    assert recipe["number_format"].endswith("exact sums") == saturates_int8()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"

    assert vidclf("evaluate", f"run={first.run}").status == 0
    with (first.run / "test" / "predictions.csv").open() as file:
        row = next(csv.DictReader(file))
    line = json.loads(vidclf("predict", f"run={first.run}", f"source={clips / row['video']}").out)
    assert (line["label"], f"{line['probability']:.4f}") == (row["predicted"], f"{float(row['probability']):.4f}")
    other = vidclf("evaluate", f"run={first.run}", "backbone.precision=float32")
    assert other.status == 1
    assert "was trained on a backbone with weights" in other.err
    resumed = vidclf("train", f"resume={first.run}", "trainer.max_epochs=3", "scheduler=constant")
    assert "calibrating" not in resumed.err

    monkeypatch.setattr("vidclf.system.extras.version", lambda name: "1.0")
    without = vidclf("predict", f"run={first.run}", f"source={clips / row['video']}")
    assert without.status == 1
    assert "needs onnxruntime 1.32 or newer (1.0): pip install 'vidclf[int8]'" in without.err

"""`vidclf export`: a folder that labels videos without vidclf, and equals the run, or no folder at all."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from doubles import Clips, Images
from torch import Tensor, nn
from verbs import Outcome

from vidclf.contracts import Sampling
from vidclf.data.sampling import Dense, Rate, Segments, Uniform
from vidclf.data.transforms import BackboneTransform
from vidclf.errors import VidclfError
from vidclf.models import aggregation
from vidclf.models.backbones.int8 import Int8Backbone
from vidclf.models.backbones.wrap import FrozenBackbone
from vidclf.models.classifier import Classifier
from vidclf.models.exported import export_classifier, open_model
from vidclf.models.heads.attention_pool import AttentionPool
from vidclf.models.heads.knn import KNN
from vidclf.models.heads.linear import Linear
from vidclf.models.heads.mlp import MLP
from vidclf.models.heads.recurrent import GRU, LSTM
from vidclf.models.heads.temporal_conv import TemporalConv
from vidclf.models.heads.transformer import Transformer
from vidclf.models.scaling import Scaling
from vidclf.prediction.package import CHOOSE_FRAMES, _as_code, _settings_of

NUM_CLASSES = 4
WITHOUT_TORCH = """
import runpy, sys
sys.modules.update(torch=None, vidclf=None)  # importing them is an error
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


class LooksAtValues(Linear):
    """A head with a branch on a value."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) if features.sum() > 0 else features[:, 0, :NUM_CLASSES]


def neighbours(feature_dim: int, num_classes: int) -> KNN:
    head = KNN(feature_dim, num_classes, k=3)
    features = torch.rand(9, 1, feature_dim, generator=torch.Generator().manual_seed(0))
    head.fit((features, torch.arange(9) % num_classes), (features, torch.arange(9)), nn.Identity())
    return head


def bidirectional(feature_dim: int, num_classes: int) -> GRU:
    return GRU(feature_dim, num_classes, hidden_dim=8, num_layers=2, bidirectional=True)


def small(kind: type[nn.Module]) -> Callable[[int, int], nn.Module]:
    return lambda feature_dim, num_classes: kind(feature_dim, num_classes, width=8)


def classifier_of(
    head: Callable[[int, int], nn.Module],
    backbone: nn.Module | None = None,
    combine: Callable[[Tensor], Tensor] = aggregation.mean,
) -> Classifier:
    torch.manual_seed(0)
    wrapped = FrozenBackbone(backbone or Images())
    scaling = Scaling(wrapped.feature_dim, "standard")
    scaling.fit(torch.rand(8, 1, wrapped.feature_dim))
    return Classifier(wrapped, scaling, head(wrapped.feature_dim, NUM_CLASSES), combine).eval()


def difference(
    classifier: Classifier, path: Path, num_frames: int, numbers_of_views: tuple[int, ...] = (1, 3)
) -> float:
    """Export a classifier, and return how far the file's log-probabilities are from its own."""
    transform = BackboneTransform(classifier.backbone.picture_format)
    export_classifier(classifier, transform.normalize, num_frames, path)
    size, network = classifier.backbone.picture_format.size, classifier.backbone.backbone
    exported = open_model(path, network.arithmetic if isinstance(network, Int8Backbone) else "")
    largest = 0.0
    for num_views in numbers_of_views:
        shape = num_views, num_frames, 3, size, size
        frames = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
        with torch.no_grad():
            expected = classifier.aggregation(classifier.predict_logits(transform.normalize(frames)))
        largest = max(largest, float((exported(frames) - expected).abs().nan_to_num(nan=math.inf).max()))
    return largest


@pytest.mark.parametrize(
    ("head", "num_frames", "combine", "ending"),
    [
        (neighbours, 1, aggregation.mean, ".onnx"),
        (bidirectional, 3, aggregation.median, ".onnx"),
        (small(Transformer), 4, aggregation.topk_mean, ".onnx"),
        (MLP, 1, aggregation.mode, ".pt2"),
        (LSTM, 3, aggregation.max, ".pt2"),
        (small(TemporalConv), 4, aggregation.logit_mean, ".pt2"),
        (small(AttentionPool), 4, aggregation.median, ".pt2"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_head_and_an_aggregation_are_exported_for_any_number_of_views(
    head: Callable[[int, int], nn.Module],
    num_frames: int,
    combine: Callable[[Tensor], Tensor],
    ending: str,
    tmp_path: Path,
):
    classifier = classifier_of(head, combine=combine)
    assert difference(classifier, tmp_path / f"model{ending}", num_frames, (1, 2, 5)) < 1e-5


def test_a_clip_network_is_exported(tmp_path: Path):
    assert difference(classifier_of(Linear, Clips()), tmp_path / "model.onnx", 4) < 1e-5


def test_mode_of_views_that_exclude_a_class_is_finite_in_onnx(tmp_path: Path):
    """The logarithm of the sum of 0 votes and a share of e^-200 is not that of 0."""
    classifier = classifier_of(Linear, combine=aggregation.mode)
    classifier.head.classifier.bias.data[0] = -200
    assert difference(classifier, tmp_path / "model.onnx", 1) < 1e-3


def test_an_int8_backbone_is_exported_with_its_ranges(tmp_path: Path):
    network = Int8Backbone(Images().eval())
    network.calibrate([torch.rand(8, 1, 3, 16, 16) * 4 - 2 for _ in range(2)])
    network.precision = "float32"
    classifier = classifier_of(GRU, network)
    assert difference(classifier, tmp_path / "model.onnx", 3, (1, 2, 5)) < 1e-4
    assert b"QuantizeLinear" in (tmp_path / "model.onnx").read_bytes()
    with pytest.raises(VidclfError, match=r"format=torch: ONNX Runtime computes the int8 backbone.*format=onnx"):
        export_classifier(classifier, None, 3, tmp_path / "model.pt2")


def test_a_head_that_cannot_be_traced_is_an_error_that_names_its_line(tmp_path: Path):
    with pytest.raises(VidclfError, match=r"cannot be traced \(.*, test_export\.py line \d+\)\. .*branches on values"):
        difference(classifier_of(LooksAtValues), tmp_path / "model.onnx", 1)
    assert not (tmp_path / "model.onnx").exists()


def test_a_run_is_exported_and_its_example_says_what_predict_says_without_torch_and_vidclf(
    run: Path, vidclf: Callable[..., Outcome], tmp_path: Path, clips: Path
):
    outcome = vidclf("export", f"run={run}", "to=exported")
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[1] == "views any number"
    assert "same label on 4 of 4 clips" in outcome.out
    folder = tmp_path / "exported"
    assert sorted(os.listdir(folder)) == [
        *("README.md", "example.py", "labels.json", "model.onnx", "preprocessing.json", "resize.onnx")
    ]
    card = (folder / "README.md").read_text()
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"| validation | top1 | {metrics['top1']:.3f}" in card
    assert "The run was not evaluated on test videos." in card
    assert str(clips) not in card
    clip = clips / "Archery" / "v_Archery_g01_c01.avi"
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder / "example.py"), str(clip)]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    expected = json.loads(vidclf("predict", f"run={run}", f"source={clip}").out)
    assert said["label"] == expected["label"]
    assert said["probability"] == pytest.approx(expected["probability"], abs=1e-5)


@pytest.mark.parametrize("num_frames", [1, 5, 37, 100])
@pytest.mark.parametrize(
    "sampling",
    [Rate(3), Rate(0.3), Uniform(1), Uniform(8), Segments(8), Dense(1, 4, 3), Dense(4, 6, 2)],
    ids=repr,
)
def test_the_example_chooses_the_frames_of_the_sampling(sampling: Sampling, num_frames: int):
    known = {"np": np, "math": math, "frames": [0] * num_frames, "fps": 25.0, "sampling": _settings_of(sampling, {})}
    exec(CHOOSE_FRAMES[type(sampling)], known)
    assert known["chosen"].tolist() == sampling(num_frames, 25.0).tolist()


def test_names_of_strangers_stay_in_a_block_of_code():
    names = ["wave", "# a\n</pre><script>alert(1)</script>", "``` \u202e", "| x |\r\n\r\nevil"]
    assert all(line.startswith("    ") for line in _as_code(names).splitlines())
    assert len(_as_code(names).splitlines()) == len(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["to=new", "format=tflite"], "format=tflite: must be one of onnx, torch."),
        (["to=there"], "to=there: it exists. Choose another name or delete it."),
        (["to=not/there"], "to=not/there: there is no folder not. Make it, or choose another."),
        (["to=file/new"], "to=file/new: there is no folder file."),
        (["to=/proc/new"], "to=/proc/new: no folder can be made there (No such file or directory)."),
        (["to=new", "clips=there"], "no video below this folder"),
        (["to=new", "dataset.root=there"], "Or compare on other videos: clips=FOLDER."),
    ],
)
def test_what_cannot_be_exported_is_an_error_and_leaves_no_folder(
    arguments: list[str], message: str, trained: Outcome, vidclf: Callable[..., Outcome], tmp_path: Path
):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    outcome = vidclf("export", f"run={trained.run}", *arguments)
    assert outcome.status == 1
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not [name for name in os.listdir(tmp_path) if "new" in name]


def test_a_model_that_differs_from_the_run_is_an_error_and_leaves_no_folder(
    trained: Outcome, vidclf: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def write_another(classifier: Classifier, *rest: object) -> bool:
        classifier.head.classifier.bias.data[0] += 0.01
        written = export_classifier(classifier, *rest)
        classifier.head.classifier.bias.data[0] -= 0.01
        return written

    monkeypatch.setattr("vidclf.export.export_classifier", write_another)
    outcome = vidclf("export", f"run={trained.run}", "to=new", "format=torch")
    assert outcome.status == 1
    assert "to=new: nothing was written, because log-probabilities" in outcome.err
    assert "differ by 0.00" in outcome.err
    assert not [name for name in os.listdir(tmp_path) if "new" in name]


def test_without_its_extra_export_names_it(
    trained: Outcome, vidclf: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("vidclf.system.extras.version", lambda name: "1.0")
    outcome = vidclf("export", f"run={trained.run}", "to=new")
    assert "format=onnx needs onnxruntime 1.32 or newer (1.0): pip install 'vidclf[export]'" in outcome.err

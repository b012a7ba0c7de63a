"""Compare an exported classifier in ONNX Runtime with the run's own, both in float32, from resized frames on."""

import torch

from experiments.benchmark.setting import NUM_CLASSES, NUM_FRAMES, Setting, median_s
from vidclf.data.transforms import BackboneTransform
from vidclf.models.aggregation import mean
from vidclf.models.backbones.torchvision_models import ImageBackbone
from vidclf.models.backbones.wrap import FrozenBackbone
from vidclf.models.classifier import Classifier
from vidclf.models.exported import export_classifier, open_model
from vidclf.models.heads.linear import Linear
from vidclf.models.scaling import Scaling

NETWORKS = ("vgg16", "resnet50")  # with random weights


@torch.no_grad()
def exported(setting: Setting) -> dict[str, dict[str, float]]:
    """Return the frames a second of each network: the run's, and the exported one's."""
    return {name: frames_per_s(name, setting) for name in NETWORKS}


def frames_per_s(name: str, setting: Setting) -> dict[str, float]:
    backbone = FrozenBackbone(ImageBackbone(name, weights=None, precision="float32").eval())
    head = Linear(backbone.feature_dim, NUM_CLASSES)
    classifier = Classifier(backbone, Scaling(backbone.feature_dim, "none"), head, mean).eval()
    normalize = BackboneTransform(backbone.picture_format).normalize
    export_classifier(classifier, normalize, 1, path := setting.work / f"{name}.onnx")
    model, size = open_model(path), backbone.picture_format.size
    frames = torch.randint(0, 256, (NUM_FRAMES, 1, 3, size, size), dtype=torch.uint8)
    works = {
        "run": lambda: classifier.aggregation(classifier.predict_logits(normalize(frames))),
        "exported": lambda: model(frames),
    }
    return {name: NUM_FRAMES / median_s(work) for name, work in works.items()}

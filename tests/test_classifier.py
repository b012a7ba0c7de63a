"""A classifier in use: its inputs and outputs."""

import torch
from doubles import Images
from torch import nn

from vidclf.models.aggregation import mean
from vidclf.models.backbones.wrap import FrozenBackbone
from vidclf.models.classifier import Classifier
from vidclf.models.scaling import Scaling


def test_images_pass_the_backbone_and_features_do_not():
    classifier = Classifier(
        FrozenBackbone(Images()), Scaling(6, "none"), nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), mean
    )
    images = torch.randn(3, 2, 3, 16, 16)
    assert torch.equal(classifier(images), classifier(classifier.backbone(images)))


def test_features_are_converted_to_the_heads_number_format_before_scaling():
    features = 1 + torch.rand(4, 1, 6)
    scaling = Scaling(6, "max")
    scaling.fit(features.bfloat16())
    classifier = Classifier(FrozenBackbone(Images()), scaling, nn.Flatten(), mean)
    assert torch.equal(classifier(features.bfloat16()), features.bfloat16().float()[:, 0] / scaling.maximum)
    assert classifier.double()(features.bfloat16()).dtype == torch.float64

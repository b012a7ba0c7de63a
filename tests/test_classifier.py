"""A classifier as it is used: what goes in, and what comes out."""

import torch
from doubles import Pictures
from torch import nn

from vidclf.models.aggregation import mean
from vidclf.models.backbones.wrapped import FrozenBackbone
from vidclf.models.classifier import Classifier
from vidclf.models.scaling import Scaling


def test_pictures_pass_the_backbone_and_features_do_not():
    classifier = Classifier(
        FrozenBackbone(Pictures()), Scaling(6, "none"), nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), mean
    )
    pictures = torch.randn(3, 2, 3, 16, 16)
    assert torch.equal(classifier(pictures), classifier(classifier.backbone(pictures)))


def test_features_of_another_number_format_are_brought_to_the_heads_before_they_are_scaled():
    features = 1 + torch.rand(4, 1, 6)
    scaling = Scaling(6, "max")
    scaling.fit(features.bfloat16())
    classifier = Classifier(FrozenBackbone(Pictures()), scaling, nn.Flatten(), mean)
    assert torch.equal(classifier(features.bfloat16()), features.bfloat16().float()[:, 0] / scaling.maximum)
    assert classifier.double()(features.bfloat16()).dtype == torch.float64

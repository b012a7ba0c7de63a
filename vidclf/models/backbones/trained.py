"""A backbone of which at least a part is trained."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.contracts import PictureFormat
from vidclf.models.backbones.wrapped import Frozen, in_fixed_batches


def wrap(backbone: nn.Module) -> "Frozen | Trained":
    """Return the backbone as it is used: trained if any of its parameters wants a gradient, else frozen."""
    trained = any(parameter.requires_grad for parameter in backbone.parameters())
    return Trained(backbone) if trained else Frozen(backbone)


class Trained(nn.Module):
    """Wraps a backbone: what is not trained in it stays in eval mode, and checkpoints hold all its weights.

    Scoring runs in the same fixed batches as a frozen backbone, so that evaluation and prediction give the same
    bits.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.picture_format = cast(PictureFormat, backbone.picture_format)
        self.feature_dim = cast(int, backbone.feature_dim)

    def train(self, mode: bool = True) -> "Trained":
        """Switch what is trained; the statistics and dropout of the rest stay as they are."""
        super().train(mode)
        for module in self.backbone.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    def forward(self, pictures: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N S D"]:
        """Return the features of each view."""
        if self.training:
            return self.backbone(pictures)
        with torch.no_grad():
            return in_fixed_batches(self.backbone, pictures, self.picture_format)

"""The training loss; validation and test report the plain cross-entropy."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from vidclf.errors import VidclfError

CLASS_WEIGHTS = (None, "balanced")


class CrossEntropy(nn.Module):
    """The cross-entropy of views, in nats.

    Args:
        num_classes: K.
        label_smoothing: share of a label that is spread evenly over all classes (arXiv:1512.00567).
        class_weights: `balanced` weights a view by the inverse of its class's share of the training views; None
            weights all equally.
    """

    weight: Tensor

    def __init__(self, num_classes: int, label_smoothing: float | int = 0.0, class_weights: str | None = None) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise VidclfError(f"loss.label_smoothing={label_smoothing}: must be 0 or more and below 1.")
        if class_weights not in CLASS_WEIGHTS:
            raise VidclfError(f"loss.class_weights={class_weights}: allowed are balanced and null.")
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self.register_buffer("weight", torch.ones(num_classes), persistent=False)

    def fit(self, labels: Int[Tensor, " N"]) -> None:
        """Compute the class weights from the labels of the training views."""
        if self.class_weights:
            present = labels.unique().numpy()
            weights = compute_class_weight(self.class_weights, classes=present, y=labels.numpy())
            self.weight[torch.from_numpy(present)] = torch.from_numpy(np.asarray(weights)).to(self.weight)

    def forward(self, logits: Float[Tensor, "N K *H"], labels: Tensor) -> Float[Tensor, "*H"]:
        """Return the mean loss, for each head of a grid.

        `labels` are class indices (N, *H), or probabilities (N, K, *H) of mixed views.
        """
        weight = self.weight.to(logits)
        return F.cross_entropy(logits, labels, weight, label_smoothing=self.label_smoothing, reduction="none").mean(0)

"""The loss that training minimises; validation and test report the plain cross-entropy."""

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
        label_smoothing: the share of a label that all classes are given alike (arXiv:1512.00567).
        class_weights: `balanced` weighs a view by the inverse of its class's share of the training views; None
            weighs all alike.

    Raises:
        VidclfError: an argument is none of the above.
    """

    weight: Tensor

    def __init__(self, num_classes: int, label_smoothing: float | int = 0.0, class_weights: str | None = None) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise VidclfError(f"loss.label_smoothing={label_smoothing}: it is a share, from 0 to below 1.")
        if class_weights not in CLASS_WEIGHTS:
            raise VidclfError(f"loss.class_weights={class_weights}: allowed are balanced and null.")
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self.register_buffer("weight", torch.ones(num_classes), persistent=False)

    def fit(self, labels: Int[Tensor, " N"]) -> None:
        """Take the class weights from the labels of the training views."""
        if self.class_weights:
            present = labels.unique().numpy()
            weights = compute_class_weight(self.class_weights, classes=present, y=labels.numpy())
            self.weight[torch.from_numpy(present)] = torch.from_numpy(np.asarray(weights)).to(self.weight)

    def forward(self, logits: Float[Tensor, "N K *H"], labels: Tensor) -> Float[Tensor, "*H"]:
        """Return the mean loss, of each head where there are more (H).

        `labels` are class numbers (N, *H) or, of mixed views, probabilities (N, K, *H).
        """
        weight = self.weight.to(logits)
        return F.cross_entropy(logits, labels, weight, label_smoothing=self.label_smoothing, reduction="none").mean(0)

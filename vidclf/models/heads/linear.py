"""The linear head: one layer on the mean of the features."""

from jaxtyping import Float
from torch import Tensor, nn

from vidclf.models.scaling import InputScaling


class Linear(nn.Module):
    """Logits as a linear function of the features, averaged over their S steps.

    Args:
        feature_dim: D.
        num_classes: K.
        scaling: of the features before the layer, see `InputScaling`.
    """

    def __init__(self, feature_dim: int, num_classes: int, scaling: str = "none") -> None:
        super().__init__()
        self.scaling = InputScaling(feature_dim, scaling)
        self.classifier = nn.Linear(feature_dim, num_classes)

    def fit(self, train_features: Float[Tensor, "N S D"]) -> None:
        """Take the scaling from the training features."""
        self.scaling.fit(train_features)

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N K"]:
        """Return the logits."""
        mean = features.to(self.classifier.weight.dtype).mean(1)  # (N, D)
        return self.classifier(self.scaling(mean))

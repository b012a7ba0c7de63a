"""The tutorial's dense network on the mean of the features."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from vidclf.models.scaling import InputScaling


class MLP(nn.Module):
    """Linear, ReLU and dropout for each of `widths`, then a linear layer to the logits.

    It starts as the tutorial's network did in Keras, with Glorot's uniform weights and no bias. torch's own
    start has at most a third of that variance in these layers, and fades over five of them.

    Args:
        feature_dim: D.
        num_classes: K.
        widths: of the hidden layers.
        dropout: the share of the hidden numbers that are set to zero in training.
        scaling: of the features before the first layer, see `InputScaling`.
    """

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        widths: Sequence[int] = (1024, 512, 256, 128),
        dropout: float | int = 0.5,
        scaling: str = "max",
    ) -> None:
        super().__init__()
        self.scaling = InputScaling(feature_dim, scaling)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((feature_dim, *widths)):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.classifier = nn.Linear((feature_dim, *widths)[-1], num_classes)
        self.apply(_initialise_as_keras)

    def fit(self, train_features: Float[Tensor, "N S D"]) -> None:
        """Take the scaling from the training features."""
        self.scaling.fit(train_features)

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N K"]:
        """Return the logits."""
        mean = features.to(self.classifier.weight.dtype).mean(1)  # (N, D)
        return self.classifier(self.hidden(self.scaling(mean)))


def _initialise_as_keras(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)

"""The tutorial's dense network on the mean of the features."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn


class MLP(nn.Module):
    """Applies a linear layer, ReLU and dropout for each of `widths`, then a linear layer to the logits.

    Weights are initialised as in Keras, like the tutorial's network: Glorot uniform, zero bias. torch's default has at
    most a third of that variance in these layers, so the signal would fade over five of them.

    Args:
        widths: of the hidden layers.
        dropout: after each hidden layer.
    """

    scaling: ClassVar[str] = "max"  # before this head, where scaling=auto

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        widths: Sequence[int] = (1024, 512, 256, 128),
        dropout: float | int = 0.5,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((feature_dim, *widths)):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.classifier = nn.Linear((feature_dim, *widths)[-1], num_classes)
        self.apply(_initialise_as_keras)

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N K"]:
        return self.classifier(self.hidden(features.mean(1)))


def _initialise_as_keras(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)

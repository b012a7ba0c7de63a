"""A head that is not trained: the training views are all it knows."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidclf.errors import VidclfError

UNSEEN = 1e-6  # the share of a class that no neighbour has: its logarithm is a number


class KNN(nn.Module):
    """The k nearest training views vote, each by exp(cosine / temperature): DINO's protocol (arXiv:2104.14294).

    Args:
        feature_dim: D.
        num_classes: K.
        k: how many vote.
        temperature: the lower, the more the nearest count.

    Raises:
        VidclfError: an argument is out of its range.
    """

    views: Tensor
    labels: Tensor

    def __init__(self, feature_dim: int, num_classes: int, k: int = 20, temperature: float | int = 0.07) -> None:
        super().__init__()
        if k < 1 or temperature <= 0:
            raise VidclfError(f"head.k={k} head.temperature={temperature}: k is 1 or more, the temperature above 0.")
        self.feature_dim, self.num_classes, self.k, self.temperature = feature_dim, num_classes, k, temperature
        self.register_buffer("views", torch.zeros(0, feature_dim))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))
        self.register_load_state_dict_pre_hook(_make_room)

    def fit(
        self,
        train: tuple[Float[Tensor, "N S D"], Int[Tensor, " N"]],
        val: tuple[Float[Tensor, "M S D"], Int[Tensor, " M"]],
        loss: nn.Module,
    ) -> list[dict[str, object]]:
        """Keep the training views.

        Raises:
            VidclfError: there are fewer than k.
        """
        features, labels = train
        if self.k > len(labels):
            raise VidclfError(f"head.k={self.k}: there are {len(labels)} training views. Give a smaller k.")
        self.views, self.labels = F.normalize(features.mean(1), dim=1), labels
        return []

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N K"]:
        """Return the logarithms of the classes' shares of the votes."""
        cosines = F.normalize(features.mean(1), dim=1) @ self.views.T
        nearest = cosines.topk(min(self.k, len(self.views)))
        votes = (nearest.values / self.temperature).softmax(1)  # (N, k)
        whose = F.one_hot(self.labels[nearest.indices], self.num_classes)  # (N, k, K)
        return torch.einsum("nk,nkc->nc", votes, whose.to(votes)).clamp(min=UNSEEN).log()


def _make_room(module: KNN, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Take as many views as a checkpoint has; what else is wrong with them, loading says."""
    views, labels = (state_dict.get(f"{prefix}{name}") for name in ("views", "labels"))
    if not (isinstance(views, Tensor) and isinstance(labels, Tensor) and labels.dtype == torch.int64):
        return
    fits = views.ndim == 2 and labels.shape == views.shape[:1] and len(labels) > 0
    if fits and 0 <= int(labels.min()) <= int(labels.max()) < module.num_classes:
        module.views = module.views.new_zeros(len(labels), module.feature_dim)
        module.labels = module.labels.new_zeros(len(labels))

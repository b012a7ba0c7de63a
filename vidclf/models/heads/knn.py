"""k nearest neighbours among the training views; nothing is trained."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidclf.errors import VidclfError

MIN_SHARE = 1e-6  # of a class without a vote, so that its logarithm is finite


class KNN(nn.Module):
    """Lets the k nearest training views vote with weight exp(cosine / temperature), as DINO does (arXiv:2104.14294).

    Args:
        k: number of votes.
        temperature: the lower it is, the more the nearest views count.
    """

    views: Tensor
    labels: Tensor

    def __init__(self, feature_dim: int, num_classes: int, k: int = 20, temperature: float | int = 0.07) -> None:
        super().__init__()
        if k < 1 or temperature <= 0:
            raise VidclfError(
                f"head.k={k} head.temperature={temperature}: k must be 1 or more, and the temperature above 0."
            )
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
        """Keep the training views."""
        features, labels = train
        if self.k > len(labels):
            raise VidclfError(f"head.k={self.k}: there are {len(labels)} training views. Use a smaller k.")
        self.views, self.labels = F.normalize(features.mean(1), dim=1), labels
        return []

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N K"]:
        """Return the logarithm of each class's share of the votes."""
        cosines = F.normalize(features.mean(1), dim=1) @ self.views.T
        nearest = cosines.topk(min(self.k, len(self.views)))
        votes = (nearest.values / self.temperature).softmax(1)  # (N, k)
        classes = F.one_hot(self.labels[nearest.indices], self.num_classes)  # (N, k, K)
        return torch.einsum("nk,nkc->nc", votes, classes.to(votes)).clamp(min=MIN_SHARE).log()


def _make_room(module: KNN, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Resize the buffers to a checkpoint's number of views; loading reports everything else that does not fit."""
    views, labels = (state_dict.get(f"{prefix}{name}") for name in ("views", "labels"))
    if not (isinstance(views, Tensor) and isinstance(labels, Tensor) and labels.dtype == torch.int64):
        return
    fits = views.ndim == 2 and labels.shape == views.shape[:1] and len(labels) > 0
    if fits and 0 <= int(labels.min()) <= int(labels.max()) < module.num_classes:
        module.views = module.views.new_zeros(len(labels), module.feature_dim)
        module.labels = module.labels.new_zeros(len(labels))

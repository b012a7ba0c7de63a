"""Logistic regression, solved instead of trained."""

from collections.abc import Sequence
from copy import deepcopy
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor, nn

from vidclf.errors import VidclfError
from vidclf.system.terminal import say

TOLERANCE = 1e-4  # of the gradient, over the strength: how far weights may be from the solution


class Logistic(nn.Module):
    """A linear head that minimises loss + strength / 2 * (sum of squared weights) by L-BFGS.

    scikit-learn's C is 1 / (strength * number of views). Strengths are solved from the largest to the smallest, each
    from the solution before. The one with the lowest validation loss is kept; of equal ones, the largest.

    Args:
        strengths: of the penalty.
        max_iterations: of L-BFGS, at each strength.
    """

    scaling: ClassVar[str] = "standard"  # before this head, where scaling=auto

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        strengths: Sequence[float | int] = (10, 1, 0.1, 0.01, 1e-3, 1e-4, 1e-5),
        max_iterations: int = 1000,
    ) -> None:
        super().__init__()
        if not strengths or min(strengths) <= 0:
            raise VidclfError(
                f"head.strengths={[*strengths]}: must be one or more numbers above 0. Use e.g. [0.1,0.01]."
            )
        self.strengths, self.max_iterations = sorted(strengths, reverse=True), max_iterations
        self.classifier = nn.Linear(feature_dim, num_classes)

    def fit(
        self,
        train: tuple[Float[Tensor, "N S D"], Int[Tensor, " N"]],
        val: tuple[Float[Tensor, "M S D"], Int[Tensor, " M"]],
        loss: nn.Module,
    ) -> list[dict[str, object]]:
        """Solve for every strength and keep the best; return each strength with its validation scores."""
        (features, labels), (val_features, val_labels) = ((part[0].mean(1), part[1]) for part in (train, val))
        flat = np.zeros(self.classifier.weight.numel() + self.classifier.bias.numel())
        rows: list[dict[str, object]] = []
        best: dict[str, object] = {"val/loss": np.inf}
        for strength in self.strengths:
            flat = self._solve(flat, features.double(), labels, deepcopy(loss).double(), strength)
            weight, bias = self._unpacked(torch.from_numpy(flat).to(features))
            logits = F.linear(val_features, weight, bias).float()
            score = F.cross_entropy(logits, val_labels).item()
            hits = (logits.argmax(1) == val_labels).float().mean().item()
            rows.append({"strength": float(strength), "val/loss": score, "val/view_top1": hits, "chosen": ""})
            if score < best["val/loss"]:  # type: ignore[operator]
                best = rows[-1]
                self.classifier.load_state_dict({"weight": weight, "bias": bias})
        best["chosen"] = f"the best of {len(rows)} strengths"
        return rows

    def _solve(
        self, start: np.ndarray, features: Tensor, labels: Tensor, loss: nn.Module, strength: float | int
    ) -> np.ndarray:
        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            packed = torch.from_numpy(flat).to(features).requires_grad_()
            weight, bias = self._unpacked(packed)
            value = loss(F.linear(features, weight, bias), labels) + strength / 2 * weight.square().sum()
            (gradient,) = torch.autograd.grad(value, packed)
            return value.item(), gradient.double().cpu().numpy()

        tolerance = TOLERANCE * strength
        options = {
            "maxiter": self.max_iterations,
            "maxfun": np.inf,
            "gtol": tolerance,
            "ftol": 0.0,
            "maxls": 50,
            "maxcor": 50,
        }
        result = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
        if np.abs(result.jac).max() > tolerance:
            say(f"head.strengths={strength:g}: L-BFGS not converged. Raise head.max_iterations={self.max_iterations}.")
        return result.x

    def _unpacked(self, packed: Tensor) -> tuple[Float[Tensor, "K D"], Float[Tensor, " K"]]:
        weight, bias = packed.split([self.classifier.weight.numel(), self.classifier.bias.numel()])
        return weight.view_as(self.classifier.weight), bias

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N K"]:
        return self.classifier(features.mean(1))

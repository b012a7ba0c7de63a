"""Many heads trained at once on the same batches, each with the result that it would have alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from vidclf.contracts import Views
from vidclf.models.classifier import aggregate_videos, gather_logits, top1_of
from vidclf.models.heads.linear import Linear
from vidclf.models.learner import Learner
from vidclf.models.loss import CrossEntropy
from vidclf.models.scaling import Scaling
from vidclf.system.ranks import rank_and_size


class Grid(Learner):
    """Trains many heads on the features of one backbone.

    Each head has its own parameter groups, gradient norm and random numbers, so it learns as if it were alone.
    Neighbouring linear heads with the same scaling form a block, which is computed by one matrix product; every other
    head is a block by itself.

    Args:
        learners: one per head, as it would be trained alone; all have the same backbone, loss and mixing.
        names: of the heads in the logs; by default their numbers.
    """

    def __init__(self, learners: Sequence[Learner], names: Sequence[str] = ()) -> None:
        first = learners[0]
        super().__init__(
            first.backbone,
            Scaling(first.backbone.feature_dim, "none"),  # see `scaling_by_method`
            nn.ModuleList(learner.head for learner in learners),
            first.aggregation,
            first.optimizer,
            first.scheduler,
            first.loss,
            first.num_classes,
            first.seed,
            mixing=first.mixing,
        )
        self.learners = list(learners)  # a list, so that their parameters are registered once, as `head`'s
        self.heads = [learner.head for learner in learners]
        self.methods = [learner.scaling.method for learner in learners]
        self.scaling_by_method = nn.ModuleDict({learner.scaling.method: learner.scaling for learner in learners})
        self.names = names or [str(number) for number in range(len(learners))]
        keys = [
            (method, -1 if type(head) is Linear else number)
            for number, (head, method) in enumerate(zip(self.heads, self.methods, strict=True))
        ]
        self.blocks = [[*block] for _, block in groupby(range(len(keys)), keys.__getitem__)]
        self.chosen = 0  # the head that checkpoints hold
        self.scores: dict[str, Tensor] = {}  # of the last validation, (H,); not finite: the head has diverged
        self.logits = torch.empty(0)  # of the last validation, (N, K, H)
        self._streams: list[list[Tensor]] = []

    @property
    def scalings(self) -> list[Scaling]:
        return [cast(Scaling, scaling) for scaling in self.scaling_by_method.values()]

    def forward(self, inputs: Tensor) -> Float[Tensor, "N K H"]:
        """Return the logits of all heads for images (N, T, 3, h, w) or features (N, S, D)."""
        scaled = self._scale(self.features(inputs))
        return torch.cat([self._block_logits(block, scaled) for block in self.blocks], -1)

    def _scale(self, features: Float[Tensor, "N S D"]) -> dict[str, Float[Tensor, "N S D"]]:
        return {method: scaling(features) for method, scaling in self.scaling_by_method.items()}

    def _block_logits(self, block: Sequence[int], scaled: dict[str, Tensor]) -> Float[Tensor, "N K h"]:
        features, heads = scaled[self.methods[block[0]]], [self.heads[number] for number in block]
        if len(heads) == 1:
            return heads[0](features).unsqueeze(-1)
        layers = [cast(Linear, head).classifier for head in heads]
        weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
        return F.linear(features.mean(1), weight, bias).unflatten(1, (len(heads), -1)).transpose(1, 2)

    def build_optimizer(self) -> Optimizer:
        groups = [group for learner in self.learners for group in learner.build_optimizer().param_groups]
        return self.optimizer(groups)  # a group keeps its learner's settings

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            for head in self.heads:
                nn.utils.clip_grad_norm_(head.parameters(), gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._streams = [self._random_state()] * len(self.blocks)

    @contextmanager
    def _random_stream(self, number: int) -> Iterator[None]:
        """Draw mixing and dropout from a block's random stream, as its heads would alone."""
        if len(self.blocks) > 1:
            torch.set_rng_state(self._streams[number][0])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(self._streams[number][1], self.device)
        yield
        if len(self.blocks) > 1:
            self._streams[number] = self._random_state()

    def _random_state(self) -> list[Tensor]:
        on_gpu = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        return [torch.get_rng_state(), *on_gpu]

    def compute_loss(self, batch: Views) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the sum of the heads' losses, which gives each head its own gradient, and the scores to log."""
        scaled = {} if self.mixing else self._scale(self.features(batch.inputs))
        logits, labels, mixed = [], [], batch
        for number, block in enumerate(self.blocks):
            with self._random_stream(number):
                if self.mixing:  # mixes before the backbone, differently for each block
                    mixed = self.mixing(batch, self.num_classes)
                    scaled = self._scale(self.features(mixed.inputs))
                logits.append(self._block_logits(block, scaled))
            labels.append(mixed.labels.unsqueeze(-1).expand(*mixed.labels.shape, len(block)))
        losses = self._head_losses(torch.cat(logits, -1), torch.cat(labels, -1))
        values = losses.detach()
        # A head that has diverged does not end the training of the others.
        return losses.sum(), {"train/loss": values.where(values.isfinite(), torch.nan).nanmean()}

    def _head_losses(self, logits: Float[Tensor, "N K H"], labels: Tensor) -> Float[Tensor, " H"]:
        if isinstance(self.loss, CrossEntropy):
            return self.loss(logits, labels)
        return torch.stack([self.loss(*pair) for pair in zip(logits.unbind(-1), labels.unbind(-1), strict=True)])

    def validation_step(self, batch: Views, batch_idx: int) -> None:
        self.val_outputs.append((self(batch.inputs).float(), *batch[1:]))

    def on_validation_epoch_end(self) -> None:
        logits, labels, video, _ = gather_logits(self.val_outputs)
        is_finite = logits.isfinite().all(0).all(0)
        if not is_finite.any():
            self.check_finite(logits, f"Validation in epoch {self.current_epoch + 1}, of each head")
        head_labels = labels.unsqueeze(1).expand(-1, len(self.heads))
        losses = F.cross_entropy(logits, head_labels, reduction="none").mean(0)
        hits = (logits.argmax(1) == head_labels).float().mean(0)
        self.logits, self._val_videos = logits, (labels, video)
        self.scores = {
            name: torch.where(is_finite, score, torch.nan)
            for name, score in (("val/loss", losses), ("val/view_top1", hits))
        }
        best = int(self.scores["val/loss"].nan_to_num(torch.inf).argmin())
        best_scores = {name: score[best] for name, score in self.scores.items()}
        best_scores["val/top1"] = self.top1(logits[..., best])
        head_scores = {
            f"{name.replace('/', '_')}/{head}": score[number]
            for name, score in self.scores.items()
            for number, head in enumerate(self.names)
            if is_finite[number]
        }
        self.log_dict(best_scores, prog_bar=True, sync_dist=rank_and_size()[1] > 1)
        self.log_dict(head_scores, sync_dist=rank_and_size()[1] > 1)

    def top1(self, logits: Float[Tensor, "N K"]) -> Float[Tensor, ""]:
        """Return the share of the validation videos that a head's logits classify correctly."""
        return top1_of(*aggregate_videos(logits, *self._val_videos, self.aggregation))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the chosen head alone, under the keys that it would have alone."""
        prefixes = {f"head.{self.chosen}.": "head.", f"scaling_by_method.{self.methods[self.chosen]}.": "scaling."}
        state = {}
        for name, value in checkpoint["state_dict"].items():
            prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
            if prefix or not name.startswith(("head.", "scaling_by_method.")):
                state[prefixes.get(prefix, "") + name.removeprefix(prefix)] = value
        checkpoint["state_dict"] = state
        for name in ("optimizer_states", "lr_schedulers"):  # they are of all heads, so training cannot resume from them
            checkpoint[name] = []
        for name in ("current_model_state", "averaging_state"):
            checkpoint.pop(name, None)

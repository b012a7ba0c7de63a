"""Many heads on the same features, trained at once: each with the result that it would have alone."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import SGD, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from vidclf.contracts import Head, Views, optional
from vidclf.models.classifier import aggregate_videos, gather_logits
from vidclf.models.learner import Learner, has_weight_decay, top1_of
from vidclf.models.loss import CrossEntropy
from vidclf.models.scaling import Scaling
from vidclf.system.ranks import rank_and_size

# Their step is the learning rate times what does not depend on it, number by number. torch has other ones, too: Muon
# and Adafactor look at whole matrices.
LINEAR_IN_RATE = (Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop, SGD)


class Heads(nn.Module):
    """Heads of one kind, their parameters stacked, so that one computation does for all of them; or one head.

    Args:
        heads: as they start; the first becomes the stack.
        rates: the learning rate of each.
        scaling: of the features before them.
        optimizer: parameters, in groups -> an Optimizer, at the largest of the rates.
    """

    def __init__(
        self, heads: Sequence[nn.Module], rates: Sequence[float | int], scaling: Scaling, optimizer: Callable
    ) -> None:
        super().__init__()
        self.head, self.scaling, self.optimizer = heads[0], scaling, optimizer
        self.num_heads = len(heads)
        self.decayed = {name for name, parameter in self.head.named_parameters() if has_weight_decay(name, parameter)}
        fastest = max(rates)
        self.shares = None if min(rates) == fastest else torch.tensor([rate / fastest for rate in rates])
        if self.num_heads > 1:
            stacked = {name: torch.stack([head.get_parameter(name) for head in heads]) for name in self.names}
            for name, values in stacked.items():
                module, _, last = name.rpartition(".")
                wanted = self.head.get_parameter(name).requires_grad
                setattr(self.head.get_submodule(module), last, nn.Parameter(values.detach(), wanted))

    @property
    def names(self) -> list[str]:
        """The names of a head's parameters."""
        return [name for name, _ in self.head.named_parameters()]

    def forward(self, features: Float[Tensor, "N S D"]) -> Float[Tensor, "N K H"]:
        """Return the logits of all heads, the heads last: so their loss is one."""
        features = self.scaling(features)
        if self.num_heads == 1:
            return self.head(features).unsqueeze(-1)
        if forward_stacked := optional(self.head, Head, "forward_stacked"):
            return forward_stacked(features).permute(1, 2, 0)
        stacked = dict(self.head.named_parameters())
        return vmap(self._one, in_dims=(0, None), randomness="same")(stacked, features).permute(1, 2, 0)

    def _one(self, parameters: Mapping[str, Tensor], features: Tensor) -> Tensor:
        return functional_call(self.head, dict(parameters), (features,))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what is trained as `optimizer` groups it alone: weight decay is for `has_weight_decay` parameters."""
        trained = {name: parameter for name, parameter in self.head.named_parameters() if parameter.requires_grad}
        made = self.optimizer([{"params": list(trained.values())}])
        if made.defaults.get("weight_decay"):
            decayed, spared = ([p for n, p in trained.items() if (n in self.decayed) is is_] for is_ in (True, False))
            groups: list[dict[str, Any]] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
            made = self.optimizer([group for group in groups if group["params"]])
        return made.param_groups

    def slow_down(self, before: Sequence[Tensor]) -> None:
        """Let a step at the largest rate, from `before` on, be each head's own: its share of the way."""
        assert self.shares is not None
        for parameter, start in zip(self.head.parameters(), before, strict=True):
            share = self.shares.to(parameter).view(-1, *[1] * (parameter.ndim - 1))
            torch.lerp(start, parameter.data, share, out=parameter.data)

    def clip_norms(self, largest: float | int) -> None:
        """Bring the gradient of each head to at most this norm."""
        gradients = [parameter.grad for parameter in self.head.parameters() if parameter.grad is not None]
        for number in range(self.num_heads):
            own = [gradient[number] if self.num_heads > 1 else gradient for gradient in gradients]
            norm = nn.utils.get_total_norm(own)
            for gradient in own:
                gradient.mul_((largest / (norm + 1e-6)).clamp(max=1.0))


def can_be_stacked(head: nn.Module, feature_dim: int) -> bool:
    """Whether stacked heads of this kind compute and draw what they would alone: tried out on two."""
    tied = len(list(head.parameters())) < len(list(head.named_parameters(remove_duplicate=False)))
    if tied or any(True for _ in head.buffers()):
        return False
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")  # of operations that vmap would do one head after the other
        try:
            pair = [deepcopy(head), deepcopy(head)]
            for parameter in pair[1].parameters():
                parameter.mul_(1.5)
            features = torch.randn(3, 4, feature_dim)
            stack = Heads([deepcopy(pair[0]), pair[1]], (1, 1), Scaling(feature_dim, "none"), SGD)
            for mode in (True, False):
                results = []
                for one in (*pair, stack):
                    torch.manual_seed(0)
                    results.append(one.train(mode)(features))
                if not torch.allclose(torch.stack(results[:2], -1), results[2], 1e-4, 1e-5, equal_nan=True):
                    return False  # attention draws its dropout otherwise
        except Exception:  # whatever functions of one's own have to say of stacked tensors
            return False
    return True


class Grid(Learner):
    """Stacks of heads behind one backbone, all trained on the same batches; alone or together, with the same result.

    Args:
        like: what all have in common: a learner with one of the heads.
        stacks: of all heads.
    """

    def __init__(self, like: Learner, stacks: Sequence[Heads]) -> None:
        super().__init__(
            like.backbone,
            Scaling(like.backbone.feature_dim, "none"),
            nn.ModuleList(stacks),
            like.aggregation,
            like.optimizer,
            like.scheduler,
            like.loss,
            like.num_classes,
            like.seed,
            mixing=like.mixing,
        )
        self.stacks = list(stacks)  # heads are numbered through all of them
        self.scores: dict[str, Tensor] = {}  # of the last validation, one a head; not finite: the head has diverged
        self.logits = torch.empty(0)  # (N, K, H) of it
        self.chosen = 0  # the head that a checkpoint is of
        self.names = [str(number) for number in range(self.num_heads)]  # in the logs
        self._streams: list[list[Tensor]] = []

    @property
    def num_heads(self) -> int:
        """How many heads there are."""
        return sum(stack.num_heads for stack in self.stacks)

    @property
    def scalings(self) -> list[Scaling]:
        return list({id(stack.scaling): stack.scaling for stack in self.stacks}.values())

    def forward(self, inputs: Tensor) -> Float[Tensor, "N K H"]:
        """Return the logits of images (N, T, 3, h, w) or of features (N, S, D), of all heads."""
        features = self.features(inputs)
        return torch.cat([stack(features) for stack in self.stacks], -1)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        groups = [group for stack in self.stacks for group in stack.parameter_groups()]
        optimizer = self.optimizer(groups)  # a group keeps the settings that it has
        scheduler = self.scheduler(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        with self.own_rates():
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    @contextmanager
    def own_rates(self) -> Iterator[None]:
        """Let the optimizer's step within, at the largest rate of each stack, be one at every head's own."""
        slowed = [stack for stack in self.stacks if stack.shares is not None]
        before = [[parameter.detach().clone() for parameter in stack.head.parameters()] for stack in slowed]
        yield
        for stack, start in zip(slowed, before, strict=True):
            stack.slow_down(start)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | int | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            for stack in self.stacks:
                stack.clip_norms(gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._streams = [self._stream() for _ in self.stacks]

    @contextmanager
    def _drawing(self, number: int) -> Iterator[None]:
        """Let a stack draw, for mixing and dropout, what it would if it were alone."""
        if len(self.stacks) == 1:
            yield
            return
        torch.set_rng_state(self._streams[number][0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(self._streams[number][1], self.device)
        yield
        self._streams[number] = self._stream()

    def _stream(self) -> list[Tensor]:
        on_gpu = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        return [torch.get_rng_state(), *on_gpu]

    def learn_from(self, batch: Views) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the sum of the heads' losses, whose gradient is for each head that of its own, and what is logged."""
        if not self.mixing:  # else each stack mixes for itself, before the backbone
            batch = batch._replace(inputs=self.features(batch.inputs))
        parts = []
        for number, stack in enumerate(self.stacks):
            with self._drawing(number):
                mixed = self.mixing(batch, self.num_classes) if self.mixing else batch
                parts.append(self._losses(stack(self.features(mixed.inputs)), mixed.labels))
        losses = torch.cat(parts) if len(parts) > 1 else parts[0]
        known = losses.detach()
        # One that has diverged ends none of the others.
        return losses.sum(), {"train/loss": known.where(known.isfinite(), torch.nan).nanmean()}

    def _losses(self, logits: Float[Tensor, "N K H"], labels: Tensor) -> Float[Tensor, " H"]:
        if isinstance(self.loss, CrossEntropy):
            return self.loss(logits, labels.unsqueeze(-1).expand(*labels.shape, logits.shape[-1]))
        return torch.stack([self.loss(one, labels) for one in logits.unbind(-1)])

    def validation_step(self, batch: Views, batch_idx: int) -> None:
        self.judged.append((self(batch.inputs).float(), *batch[1:]))

    def on_validation_epoch_end(self) -> None:
        logits, labels, video, _ = gather_logits(self.judged)
        alive = logits.isfinite().all(0).all(0)
        if not alive.any():
            self.check_finite(logits, f"Validation in epoch {self.current_epoch + 1}, of each head")
        of_all = labels.unsqueeze(1).expand(-1, self.num_heads)
        losses = F.cross_entropy(logits, of_all, reduction="none").mean(0)
        hits = (logits.argmax(1) == of_all).float().mean(0)
        self.logits, self._whose = logits, (labels, video)
        self.scores = {
            name: torch.where(alive, score, torch.nan)
            for name, score in (("val/loss", losses), ("val/view_top1", hits))
        }
        best = int(self.scores["val/loss"].nan_to_num(torch.inf).argmin())
        shown = {name: score[best] for name, score in self.scores.items()} | {"val/top1": self.top1(logits[..., best])}
        each = {
            f"{name.replace('/', '_')}/{head}": score[number]
            for name, score in self.scores.items()
            for number, head in enumerate(self.names)
            if alive[number]
        }
        self.log_dict(shown, prog_bar=True, sync_dist=rank_and_size()[1] > 1)
        self.log_dict(each, sync_dist=rank_and_size()[1] > 1)

    def top1(self, logits: Float[Tensor, "N K"]) -> Float[Tensor, ""]:
        """Return the share of the validation's videos that a head's logits name."""
        return top1_of(*aggregate_videos(logits, *self._whose, self.aggregation))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave of all heads the chosen one, as the checkpoint of a classifier with it alone has it."""
        state, ends = checkpoint["state_dict"], list(accumulate(stack.num_heads for stack in self.stacks))
        place = next(place for place, end in enumerate(ends) if self.chosen < end)
        stack, number = self.stacks[place], self.chosen - ends[place]
        kept = {name: value for name, value in state.items() if not name.startswith("head.")}
        for name, value in state.items():
            own = name.removeprefix(f"head.{place}.")
            if own != name:
                is_stacked = stack.num_heads > 1 and own.startswith("head.")
                kept[own] = value[number].clone() if is_stacked else value  # a view would be saved with all others
        checkpoint["state_dict"] = kept
        for name in ("optimizer_states", "lr_schedulers"):  # of all heads: none can go on from it
            checkpoint[name] = []
        for name in ("current_model_state", "averaging_state"):
            checkpoint.pop(name, None)

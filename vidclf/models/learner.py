"""The LightningModule: a classifier that learns, its backbone frozen or trained with the head."""

import re
from collections.abc import Callable

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.functional.classification import multiclass_accuracy

from vidclf.contracts import Views
from vidclf.errors import VidclfError
from vidclf.models.backbones.trainable import trained_stages
from vidclf.models.backbones.wrap import FrozenBackbone, TunedBackbone
from vidclf.models.classifier import Classifier, aggregate_videos, gather_logits, inputs_to
from vidclf.models.mixing import Mixing
from vidclf.models.scaling import Scaling
from vidclf.system.ranks import rank_and_size
from vidclf.system.seeds import generator_for


class Learner(Classifier, L.LightningModule):
    """A classifier that learns from batches of views.

    Args:
        backbone: see `Classifier`, as scaling, head and aggregation.
        optimizer: parameters, in groups -> Optimizer.
        scheduler: (Optimizer, number of its steps in all) -> LRScheduler, stepped with it.
        loss: (logits, labels) -> the loss of training; optional `fit(labels)` of the training views.
        num_classes: K.
        seed: of dropout, drawn anew from (seed, epoch, rank) at each epoch's start, so that a resumed run goes
            on as one that was not cut.
        layer_decay: a backbone's last stage learns at the head's rate times this, the stage before it at that
            times this again, and so on to its input (arXiv:1801.06146).
        mixing: blends training views and their labels, see `Mixing`.
    """

    def __init__(
        self,
        backbone: FrozenBackbone | TunedBackbone,
        scaling: Scaling,
        head: nn.Module,
        aggregation: Callable[[Tensor], Tensor],
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler],
        loss: nn.Module,
        num_classes: int,
        seed: int = 0,
        layer_decay: float | int = 1.0,
        mixing: Mixing | None = None,
    ) -> None:
        super().__init__(backbone, scaling, head, aggregation)
        if not 0 < layer_decay <= 1:
            raise VidclfError(f"layer_decay={layer_decay}: it is a share, above 0 and up to 1.")
        self.optimizer, self.scheduler, self.loss = optimizer, scheduler, loss
        self.num_classes, self.seed = num_classes, seed
        self.layer_decay, self.mixing = layer_decay, mixing
        self.judged: list[tuple[Tensor, ...]] = []  # logits of what was validated last, and whose
        self._num_views = 0  # of the training batch at hand, nobody's left out

    @property
    def scalings(self) -> list[Scaling]:
        """What is fitted on training features."""
        return [self.scaling]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        groups = self._parameter_groups()
        optimizer = self.optimizer([{"params": parameters} for parameters, _ in groups])
        if optimizer.defaults.get("weight_decay"):
            spared = {parameter for name, parameter in self.named_parameters() if not has_weight_decay(name, parameter)}
            halves = [
                ([p for p in own if (p in spared) is half], scale) for own, scale in groups for half in (False, True)
            ]
            groups = [(own, scale) for own, scale in halves if own]
            optimizer = self.optimizer(
                [{"params": own} | ({"weight_decay": 0.0} if own[0] in spared else {}) for own, _ in groups]
            )
        for group, (_, scale) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] *= scale
        scheduler = self.scheduler(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return what is trained and its rate's factor: the head, then the stages of the backbone, the last first."""
        head = [parameter for parameter in self.head.parameters() if parameter.requires_grad]
        is_tuned = isinstance(self.backbone, TunedBackbone)
        groups = [head, *(trained_stages(self.backbone.backbone) if is_tuned else [])]
        scaled = [(group, self.layer_decay**depth) for depth, group in enumerate(groups) if group]
        if not scaled:
            raise VidclfError(
                f"Nothing is trained: the head {type(self.head).__name__} has no parameter that wants a gradient and "
                "the backbone is frozen. Choose another head, or set backbone.trainable."
            )
        return scaled

    def on_fit_start(self) -> None:
        self.train()  # Lightning keeps the mode that a module comes in

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(generator_for(self.seed, "dropout", self.current_epoch, self.global_rank).initial_seed())

    def on_train_batch_start(self, batch: Views, batch_idx: int) -> None:
        self._num_views = int((batch.video >= 0).sum())  # here: DDP moves to the device all that it hands to the step

    def training_step(self, batch: Views, batch_idx: int) -> Float[Tensor, ""]:
        loss, scores = self.learn_from(batch)
        if batch_idx == 0:  # once an epoch: looking at a number waits for the device
            self.check_finite(scores["train/loss"], f"The first loss of epoch {self.current_epoch + 1}", [batch])
        size = rank_and_size()[1]
        num_views = self._num_views if size > 1 else len(batch.labels)
        # Lightning takes the processes' mean number of views, and rounds it: of these it is exact.
        self.log_dict(
            scores, prog_bar=True, on_step=False, on_epoch=True, batch_size=num_views * size, sync_dist=size > 1
        )
        return self._share_of(loss, num_views) if size > 1 else loss

    def learn_from(self, batch: Views) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss of a training batch, and what is logged of it."""
        labels = batch.labels
        if self.mixing:
            batch = self.mixing(batch, self.num_classes)
        logits = self(batch.inputs)
        loss = self.loss(logits, batch.labels)
        return loss, {"train/loss": loss, "train/view_top1": top1_of(logits, labels)}

    def _share_of(self, loss: Tensor, num_views: int) -> Tensor:
        """Scale this process's mean loss so that the mean of all processes' gradients is the whole batch's."""
        counts = torch.full((), float(num_views), device=loss.device)
        mean_count = self.trainer.strategy.reduce(counts.clone(), reduce_op="mean")  # in place
        return loss * counts / mean_count.clamp(min=torch.finfo().tiny)

    def on_train_epoch_end(self) -> None:
        loss = self.trainer.callback_metrics["train/loss"]
        self.check_finite(loss, f"The mean loss of epoch {self.current_epoch + 1}")

    def on_validation_epoch_start(self) -> None:
        self.judged = []  # those of an epoch that was broken off

    def validation_step(self, batch: Views, batch_idx: int) -> None:
        logits = self(batch.inputs).float()
        if batch_idx == 0:
            self.check_finite(logits, f"Validation in epoch {self.current_epoch + 1}", [batch])
        self.judged.append((logits, *batch[1:]))

    def on_validation_epoch_end(self) -> None:
        logits, labels, video, _ = gather_logits(self.judged)
        self.check_finite(logits, f"Validation in epoch {self.current_epoch + 1}")
        scores = {"val/loss": F.cross_entropy(logits, labels), "val/view_top1": top1_of(logits, labels)}
        scores["val/top1"] = top1_of(*aggregate_videos(logits, labels, video, self.aggregation))
        # Computed by every process from all logits, so they agree; this says so to Lightning.
        scores = {name: score.to(self.device) for name, score in scores.items()}
        self.log_dict(scores, prog_bar=True, sync_dist=rank_and_size()[1] > 1)

    def transfer_batch_to_device(self, batch: Views, device: torch.device, dataloader_idx: int) -> Views:
        return inputs_to(batch, device)


def has_weight_decay(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay is for it: weights of layers, not norms, biases, tokens, queries, positions or scales."""
    own = name.rpartition(".")[2]
    if "weight" in own:
        return parameter.ndim > 1  # a norm's has one dimension
    return parameter.squeeze().ndim > 1 and not re.search("bias|token|quer|pos", own)


def top1_of(scores: Float[Tensor, "N K"], labels: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Return the share of the labels that score highest."""
    return multiclass_accuracy(scores, labels, num_classes=scores.shape[1], average="micro")

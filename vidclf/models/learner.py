"""The LightningModule that trains a classifier, with a frozen backbone or with a tuned one."""

import re
from collections.abc import Callable

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Float
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vidclf.contracts import Views
from vidclf.errors import VidclfError
from vidclf.models.backbones.trainable import trained_stages
from vidclf.models.backbones.wrap import FrozenBackbone, TunedBackbone
from vidclf.models.classifier import Classifier, aggregate_videos, gather_logits, inputs_to, top1_of
from vidclf.models.mixing import Mixing
from vidclf.models.scaling import Scaling
from vidclf.system.ranks import rank_and_size
from vidclf.system.seeds import generator_for


class Learner(Classifier, L.LightningModule):
    """Trains a classifier on batches of views.

    Args:
        backbone: see `Classifier`, as for scaling, head and aggregation.
        optimizer: parameter groups -> Optimizer.
        scheduler: (Optimizer, total number of steps) -> LRScheduler, stepped after each step of the optimiser.
        loss: (logits, labels) -> training loss; see `vidclf.contracts.Loss`.
        num_classes: K.
        seed: of dropout. Each epoch starts from (seed, epoch, rank), so a resumed run continues as if uninterrupted.
        layer_decay: factor on the learning rate for each stage of the backbone, from the head towards the input
            (arXiv:1801.06146).
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
            raise VidclfError(f"layer_decay={layer_decay}: must be above 0 and at most 1.")
        self.optimizer, self.scheduler, self.loss = optimizer, scheduler, loss
        self.num_classes, self.seed = num_classes, seed
        self.layer_decay, self.mixing = layer_decay, mixing
        self.val_outputs: list[tuple[Tensor, ...]] = []  # (logits, labels, video, view) of each validation batch
        self._num_views = 0  # in the current training batch, without padding

    @property
    def scalings(self) -> list[Scaling]:
        """The scalings to fit on training features."""
        return [self.scaling]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.build_optimizer()
        scheduler = self.scheduler(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def build_optimizer(self) -> Optimizer:
        """Return the optimiser: one parameter group per stage, or two where some parameters have no weight decay."""
        groups = self._parameter_groups()
        optimizer = self.optimizer([{"params": parameters} for parameters, _ in groups])
        if optimizer.defaults.get("weight_decay"):
            spared = {parameter for name, parameter in self.named_parameters() if not has_weight_decay(name, parameter)}
            halves = [
                ([p for p in parameters if (p in spared) is is_spared], scale)
                for parameters, scale in groups
                for is_spared in (False, True)
            ]
            groups = [(parameters, scale) for parameters, scale in halves if parameters]
            optimizer = self.optimizer(
                [{"params": half} | ({"weight_decay": 0.0} if half[0] in spared else {}) for half, _ in groups]
            )
        for group, (_, scale) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] *= scale
        return optimizer

    def _parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return the trained parameters and their learning-rate factors: head first, then the backbone's last stage."""
        head = [parameter for parameter in self.head.parameters() if parameter.requires_grad]
        is_tuned = isinstance(self.backbone, TunedBackbone)
        groups = [head, *(trained_stages(self.backbone.backbone) if is_tuned else [])]
        scaled = [(group, self.layer_decay**depth) for depth, group in enumerate(groups) if group]
        if not scaled:
            raise VidclfError(
                f"head: {type(self.head).__name__} has no trainable parameter and the backbone is frozen, so nothing "
                "is trained. Choose another head, or set backbone.trainable."
            )
        return scaled

    def on_fit_start(self) -> None:
        self.train()  # Lightning keeps the module's mode

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(generator_for(self.seed, "dropout", self.current_epoch, self.global_rank).initial_seed())

    def on_train_batch_start(self, batch: Views, batch_idx: int) -> None:
        self._num_views = int((batch.video >= 0).sum())  # here, because DDP moves the step's whole batch to the device

    def training_step(self, batch: Views, batch_idx: int) -> Float[Tensor, ""]:
        loss, scores = self.compute_loss(batch)
        if batch_idx == 0:  # once an epoch, because reading a value waits for the device
            self.check_finite(scores["train/loss"], f"The first loss of epoch {self.current_epoch + 1}", [batch])
        size = rank_and_size()[1]
        num_views = self._num_views if size > 1 else len(batch.labels)
        # Lightning rounds the mean batch size of all processes; multiplied by their number, it is exact.
        self.log_dict(
            scores, prog_bar=True, on_step=False, on_epoch=True, batch_size=num_views * size, sync_dist=size > 1
        )
        return self._weight_by_views(loss, num_views) if size > 1 else loss

    def compute_loss(self, batch: Views) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss of a training batch and the scores to log."""
        labels = batch.labels
        if self.mixing:
            batch = self.mixing(batch, self.num_classes)
        logits = self(batch.inputs)
        loss = self.loss(logits, batch.labels)
        return loss, {"train/loss": loss, "train/view_top1": top1_of(logits, labels)}

    def _weight_by_views(self, loss: Tensor, num_views: int) -> Tensor:
        """Scale this process's mean loss so that averaged gradients equal those of the whole batch."""
        counts = torch.full((), float(num_views), device=loss.device)
        mean_count = self.trainer.strategy.reduce(counts.clone(), reduce_op="mean")  # reduces in place
        return loss * counts / mean_count.clamp(min=torch.finfo().tiny)

    def on_train_epoch_end(self) -> None:
        loss = self.trainer.callback_metrics["train/loss"]
        self.check_finite(loss, f"The mean loss of epoch {self.current_epoch + 1}")

    def on_validation_epoch_start(self) -> None:
        self.val_outputs = []  # an interrupted epoch may have left some

    def validation_step(self, batch: Views, batch_idx: int) -> None:
        logits = self(batch.inputs).float()
        if batch_idx == 0:
            self.check_finite(logits, f"Validation in epoch {self.current_epoch + 1}", [batch])
        self.val_outputs.append((logits, *batch[1:]))

    def on_validation_epoch_end(self) -> None:
        logits, labels, video, _ = gather_logits(self.val_outputs)
        self.check_finite(logits, f"Validation in epoch {self.current_epoch + 1}")
        scores = {"val/loss": F.cross_entropy(logits, labels), "val/view_top1": top1_of(logits, labels)}
        scores["val/top1"] = top1_of(*aggregate_videos(logits, labels, video, self.aggregation))
        # Every process computes the same scores from all logits; sync_dist only silences Lightning's warning.
        scores = {name: score.to(self.device) for name, score in scores.items()}
        self.log_dict(scores, prog_bar=True, sync_dist=rank_and_size()[1] > 1)

    def transfer_batch_to_device(self, batch: Views, device: torch.device, dataloader_idx: int) -> Views:
        return inputs_to(batch, device)


def has_weight_decay(name: str, parameter: nn.Parameter) -> bool:
    """Return whether a parameter has weight decay: layer weights have; norms, biases, tokens, positions have none."""
    last = name.rpartition(".")[2]
    if "weight" in last:
        return parameter.ndim > 1  # a norm's weight has one dimension
    return parameter.squeeze().ndim > 1 and not re.search("bias|token|quer|pos", last)

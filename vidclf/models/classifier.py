"""The LightningModule: a backbone, frozen or trained, a head that is trained, an aggregation that judges videos."""

from collections.abc import Callable, Sequence
from typing import Any

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
from vidclf.models.backbones.trained import Trained
from vidclf.models.backbones.wrapped import Frozen
from vidclf.models.mixing import Mixing
from vidclf.models.scaling import scalings_of
from vidclf.system.ranks import gather, rank_and_size
from vidclf.system.seeds import generator_for
from vidclf.system.terminal import say


class Classifier(L.LightningModule):
    """Pictures or stored features of views -> logits; trained by cross-entropy on views.

    Args:
        backbone: pictures (N, T, 3, h, w) -> features (N, S, D), wrapped as it is used, see `wrap`.
        head: features (N, S, D) -> logits (N, K).
        aggregation: logits (V, K) of one video -> log-probabilities (K,).
        optimizer: parameters, in groups -> Optimizer.
        scheduler: (Optimizer, number of its steps in all) -> LRScheduler, stepped with it.
        loss: (logits, labels) -> the loss of training; optional `fit(labels)` of the training views.
        seed: of dropout, drawn anew from (seed, epoch, rank) at each epoch's start, so that a resumed run goes
            on as one that was not cut.
        layer_decay: a backbone's last stage learns at the head's rate times this, the stage before it at that
            times this again, and so on to its input (arXiv:1801.06146).
        mixing: blends training views and their labels, see `Mixing`.
    """

    def __init__(
        self,
        backbone: Frozen | Trained,
        head: nn.Module,
        aggregation: Callable[[Tensor], Tensor],
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler],
        loss: nn.Module,
        seed: int = 0,
        layer_decay: float | int = 1.0,
        mixing: Mixing | None = None,
    ) -> None:
        super().__init__()
        if not 0 < layer_decay <= 1:
            raise VidclfError(f"layer_decay={layer_decay}: it is a share, above 0 and up to 1.")
        self.backbone, self.head, self.aggregation, self.loss = backbone, head, aggregation, loss
        self.optimizer, self.scheduler, self.seed = optimizer, scheduler, seed
        self.layer_decay, self.mixing = layer_decay, mixing
        self.judged: list[tuple[Tensor, Views]] = []  # logits of the validation views so far, and whose

    def forward(self, inputs: Tensor) -> Float[Tensor, "N K"]:
        """Return the logits of pictures (N, T, 3, h, w) or of features (N, S, D)."""
        return self.head(self.backbone(inputs) if inputs.ndim == 5 else inputs)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        groups = self._parameter_groups()
        optimizer = self.optimizer([{"params": parameters} for parameters, _ in groups])
        for group, (_, scale) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] *= scale
        scheduler = self.scheduler(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return what is trained and its rate's factor: the head, then the stages of the backbone, the last first."""
        head = [parameter for parameter in self.head.parameters() if parameter.requires_grad]
        groups = [head, *trained_stages(self.backbone.backbone)]
        scaled = [(group, self.layer_decay**depth) for depth, group in enumerate(groups) if group]
        if not scaled:
            raise VidclfError(
                f"Nothing is trained: the head {type(self.head).__name__} has no parameter that wants a gradient and "
                "the backbone is frozen. Choose another head, or set backbone.trainable."
            )
        return scaled

    def on_fit_start(self) -> None:
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if hasattr(self.loss, "fit"):
            labels = [torch.tensor(one.label).expand(len(one.views)) for one in datamodule.draw("train", epoch=0)]
            self.loss.fit(torch.cat(labels))  # type: ignore[operator]
        scalings = scalings_of(self.head)
        if self.trainer.ckpt_path is None and isinstance(self.backbone, Trained) and scalings:
            if any(scaling.scaling != "none" for scaling in scalings):
                say(f"head.scaling={scalings[0].scaling} is left out: the features of a trained backbone change.")
            for scaling in scalings:
                scaling.leave_as_they_are()
        elif self.trainer.ckpt_path is None and hasattr(self.head, "fit"):
            self.head.fit(datamodule.train_features())  # type: ignore[operator]
        self.train()  # Lightning keeps the mode that a module comes in

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(generator_for(self.seed, self.current_epoch, self.global_rank).initial_seed())

    def training_step(self, batch: Views, batch_idx: int) -> Float[Tensor, ""]:
        labels = batch.labels
        if self.mixing:
            num_classes = len(self.trainer.datamodule.dataset.class_names)  # type: ignore[attr-defined]
            batch = self.mixing(batch, num_classes)
        logits = self(batch.inputs)
        loss = self.loss(logits, batch.labels)
        scores = {"train/loss": loss, "train/view_top1": _top1(logits, labels)}
        size = rank_and_size()[1]
        num_views = int((batch.video >= 0).sum()) if size > 1 else len(logits)
        # Lightning takes the processes' mean number of views, and rounds it: of these it is exact.
        self.log_dict(
            scores, prog_bar=True, on_step=False, on_epoch=True, batch_size=num_views * size, sync_dist=size > 1
        )
        return self._share_of(loss, num_views) if size > 1 else loss

    def _share_of(self, loss: Tensor, num_views: int) -> Tensor:
        """Scale this process's mean loss so that the mean of all processes' gradients is the whole batch's."""
        counts = torch.tensor(float(num_views), device=loss.device)
        mean_count = self.trainer.strategy.reduce(counts.clone(), reduce_op="mean")  # in place
        return loss * counts / mean_count.clamp(min=torch.finfo().tiny)

    def on_validation_epoch_start(self) -> None:
        self.judged = []  # those of an epoch that was broken off

    def validation_step(self, batch: Views, batch_idx: int) -> None:
        if int(batch.video[0]) >= 0:  # else nobody's: another process has a batch more
            self.judged.append((self(batch.inputs).float().cpu(), _without_inputs(batch)))

    def on_validation_epoch_end(self) -> None:
        judged = [one for of_rank in gather(self.judged) for one in of_rank]
        logits = torch.cat([logits for logits, _ in judged])
        labels = torch.cat([views.labels for _, views in judged])
        video = torch.cat([views.video for _, views in judged])
        scores = {"val/loss": F.cross_entropy(logits, labels), "val/view_top1": _top1(logits, labels)}
        scores["val/top1"] = _top1(*aggregate_videos(logits, labels, video, self.aggregation))
        # Computed by every process from all logits, so they agree; this says so to Lightning.
        scores = {name: score.to(self.device) for name, score in scores.items()}
        self.log_dict(scores, prog_bar=True, sync_dist=rank_and_size()[1] > 1)

    def predict_step(self, batch: Views, batch_idx: int = 0) -> tuple[Float[Tensor, "V K"], Views]:
        """Return the logits of one video's views, and whose they are, on the CPU."""
        # In full precision, whatever the training's was: so evaluation and prediction agree to the last bit.
        with torch.autocast(self.device.type, enabled=False):
            logits = self(batch.inputs)
        return logits.float().cpu(), _without_inputs(batch)


def aggregate_videos(
    logits: Float[Tensor, "N K"],
    labels: Int[Tensor, " N"],
    video: Int[Tensor, " N"],
    aggregation: Callable[[Tensor], Tensor],
) -> tuple[Float[Tensor, "M K"], Int[Tensor, " M"]]:
    """Return the log-probabilities and the label of each of the M videos, in the order of `video`'s numbers."""
    order = video.argsort(stable=True)
    counts = torch.unique_consecutive(video[order], return_counts=True)[1].tolist()
    views: Sequence[Tensor] = logits[order].split(counts)
    firsts = [part[0] for part in labels[order].split(counts)]
    return torch.stack([aggregation(part) for part in views]), torch.stack(firsts)


def _without_inputs(batch: Views) -> Views:
    """Return whose the views are, on the CPU; a slice of the inputs would keep all of them in memory."""
    empty = batch.inputs.new_empty(0, *batch.inputs.shape[1:], device="cpu")
    return Views(empty, *(part.cpu() for part in batch[1:]))


def _top1(scores: Float[Tensor, "N K"], labels: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    return multiclass_accuracy(scores, labels, num_classes=scores.shape[1], average="micro")

"""The LightningModule: a frozen backbone, a head that is trained, an aggregation that judges videos."""

from collections.abc import Callable, Sequence

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.functional.classification import multiclass_accuracy

from vidclf.data.loaders import generator_for
from vidclf.data.video import Views
from vidclf.models.backbones.frozen import Frozen


class Classifier(L.LightningModule):
    """Pictures or stored features of views -> logits; trained by cross-entropy on views.

    Args:
        backbone: pictures (N, T, 3, h, w) -> features (N, S, D), wrapped so that it stays as it is.
        head: features (N, S, D) -> logits (N, K).
        aggregation: logits (V, K) of one video -> log-probabilities (K,).
        optimizer: parameters -> Optimizer.
        scheduler: Optimizer -> LRScheduler, stepped each epoch.
        seed: of dropout, drawn anew from (seed, epoch, rank) at each epoch's start, so that a resumed run goes
            on as one that was not cut.
    """

    def __init__(
        self,
        backbone: Frozen,
        head: nn.Module,
        aggregation: Callable[[Tensor], Tensor],
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler],
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.aggregation = backbone, head, aggregation
        self.optimizer, self.scheduler, self.seed = optimizer, scheduler, seed
        self.judged: list[tuple[Tensor, Views]] = []  # logits of the validation views so far, and whose

    def forward(self, inputs: Tensor) -> Float[Tensor, "N K"]:
        """Return the logits of pictures (N, T, 3, h, w) or of features (N, S, D)."""
        return self.head(self.backbone(inputs) if inputs.ndim == 5 else inputs)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        optimizer = self.optimizer(self.head.parameters())
        return [optimizer], [self.scheduler(optimizer)]

    def on_fit_start(self) -> None:
        if hasattr(self.head, "fit") and self.trainer.ckpt_path is None:
            features = self.trainer.datamodule.train_features()  # type: ignore[attr-defined]
            self.head.fit(features.to(self.device))  # type: ignore[operator]

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(generator_for(self.seed, self.current_epoch, self.global_rank).initial_seed())

    def training_step(self, batch: Views, batch_idx: int) -> Float[Tensor, ""]:
        logits = self(batch.inputs)
        loss = F.cross_entropy(logits, batch.labels)
        scores = {"train/loss": loss, "train/view_top1": _top1(logits, batch.labels)}
        self.log_dict(scores, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(logits))
        return loss

    def on_validation_epoch_start(self) -> None:
        self.judged = []  # those of an epoch that was broken off

    def validation_step(self, batch: Views, batch_idx: int) -> None:
        logits = self(batch.inputs)
        scores = {"val/loss": F.cross_entropy(logits, batch.labels), "val/view_top1": _top1(logits, batch.labels)}
        self.log_dict(scores, prog_bar=True, batch_size=len(logits))
        self.judged.append((logits, batch._replace(inputs=batch.inputs[:0])))

    def on_validation_epoch_end(self) -> None:
        logits = torch.cat([logits for logits, _ in self.judged])
        labels = torch.cat([views.labels for _, views in self.judged])
        video = torch.cat([views.video for _, views in self.judged])
        log_probabilities, labels = aggregate_videos(logits, labels, video, self.aggregation)
        self.log("val/top1", _top1(log_probabilities, labels), prog_bar=True)

    def predict_step(self, batch: Views, batch_idx: int = 0) -> tuple[Float[Tensor, "V K"], Views]:
        """Return the logits of one video's views, and whose they are, on the CPU."""
        return self(batch.inputs).float().cpu(), batch._replace(inputs=batch.inputs[:0].cpu())


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


def _top1(scores: Float[Tensor, "N K"], labels: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    return multiclass_accuracy(scores, labels, num_classes=scores.shape[1], average="micro")

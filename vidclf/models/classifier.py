"""The classifier: a backbone, a scaling, a head, and an aggregation of views to videos."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidclf.contracts import Head, Views, optional
from vidclf.errors import VidclfError
from vidclf.models.backbones.wrap import FrozenBackbone, TunedBackbone
from vidclf.models.scaling import Scaling
from vidclf.system.ranks import gather


class Classifier(nn.Module):
    """Maps images or stored features of views to logits.

    Args:
        backbone: images (N, T, 3, h, w) -> features (N, S, D), see `wrap`.
        scaling: of the features before the head.
        head: features (N, S, D) -> logits (N, K).
        aggregation: logits (V, K) of one video -> log-probabilities (K,).
    """

    def __init__(
        self,
        backbone: FrozenBackbone | TunedBackbone,
        scaling: Scaling,
        head: nn.Module,
        aggregation: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.backbone, self.scaling, self.head, self.aggregation = backbone, scaling, head, aggregation

    def forward(self, inputs: Tensor) -> Float[Tensor, "N K"]:
        """Return the logits of images (N, T, 3, h, w) or of features (N, S, D)."""
        features = self.scaling(self.features(inputs))
        if self.training:
            check_steps(self.head, features.shape[1])
        return self.head(features)

    def features(self, inputs: Tensor) -> Float[Tensor, "N S D"]:
        """Return the features of images, or stored features as they are, in the head's number format."""
        features = self.backbone(inputs) if inputs.ndim == 5 else inputs
        return features.to(example_of(self.head, self.scaling).dtype)

    def predict_logits(self, inputs: Tensor) -> Float[Tensor, "N K"]:
        """Return the logits in float32, whatever the precision of training, so that evaluation and prediction agree."""
        with torch.autocast(inputs.device.type, enabled=False):
            return self(inputs).float()

    def check_finite(self, values: Tensor, title: str, batches: Iterable[Views] = ()) -> None:
        """Raise VidclfError if values are not finite, and name the part that causes it.

        `title` names the epoch, part or video; `batches`, the inputs, are read only if a value is not finite.
        """
        if values.isfinite().all():
            return
        remedy = "Try a lower optimizer.lr, trainer.gradient_clip_val=1.0, or trainer.precision=32-true."
        named = [("head", self.head), ("scaling", self.scaling), ("backbone", self.backbone)]
        broken = [name for name, module in named if not all(p.isfinite().all() for p in module.state_dict().values())]
        if "backbone" not in broken and not self._are_finite(batches):
            where = f"the features of the backbone {type(self.backbone.backbone).__name__} are not finite"
            remedy = "Try backbone.precision=float32 and trainer.precision=32-true; look into the backbone's forward."
        elif broken:
            where = (
                f"weights of the {' and the '.join(broken)} are not finite: training has diverged, or some features "
                "are not finite"
            )
        else:
            where = f"all weights are finite: look into the forward of the head {type(self.head).__name__}"
            remedy = "Try backbone.precision=float32 and trainer.precision=32-true; look for a division or a logarithm."
        raise VidclfError(f"{title}: the network gives numbers that are not finite ({where}). {remedy}")

    @torch.no_grad()
    def _are_finite(self, batches: Iterable[Views]) -> bool:
        device = example_of(self).device
        return all(bool(self.features(batch.inputs.to(device)).isfinite().all()) for batch in batches)


def check_steps(head: object, num_steps: int) -> None:
    """Raise VidclfError if a head over time would be trained on views of too few steps."""
    if num_steps < (wanted := optional(head, Head, "min_steps")):
        name = head.__name__ if isinstance(head, type) else type(head).__name__
        raise VidclfError(
            f"head: {name} learns from the order of steps, and each view has {num_steps} of them; it "
            f"needs {wanted}. Use sampling=uniform (16 frames in one view) with an image backbone, or head=linear."
        )


def example_of(*modules: nn.Module) -> Tensor:
    """Return a tensor with the modules' number format and device; without tensors, a float32 tensor on the CPU."""
    tensors = chain.from_iterable(chain(module.parameters(), module.buffers()) for module in modules)
    return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))


def inputs_to(batch: Views, device: torch.device) -> Views:
    """Move the inputs and labels of a batch; `video` and `view` stay on the CPU, so that no one waits for a GPU."""
    inputs, labels = (column.to(device, non_blocking=True) for column in batch[:2])
    return batch._replace(inputs=inputs, labels=labels)


def gather_logits(outputs: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return logits, labels, video and view of all processes' batches on the CPU, without padding."""
    local = [torch.cat(list(column)).cpu() for column in zip(*outputs, strict=True)]  # one copy, not one a batch
    ranks = [columns for columns in gather(local) if columns]
    columns = [torch.cat(column) for column in zip(*ranks, strict=True)]
    kept = columns[2] >= 0
    return [column[kept] for column in columns]


def aggregate_videos(
    logits: Float[Tensor, "N K"],
    labels: Int[Tensor, " N"],
    video: Int[Tensor, " N"],
    aggregation: Callable[[Tensor], Tensor],
) -> tuple[Float[Tensor, "M K"], Int[Tensor, " M"]]:
    """Return the log-probabilities and the label of each of the M videos, sorted by video number."""
    order = video.argsort(stable=True)
    counts = torch.unique_consecutive(video[order], return_counts=True)[1].tolist()
    aggregated = [aggregation(video_logits) for video_logits in logits[order].split(counts)]
    return torch.stack(aggregated), torch.stack([video_labels[0] for video_labels in labels[order].split(counts)])


def most_probable(log_probabilities: Float[Tensor, " K"], names: list[str], top: int = 5) -> list[tuple[str, float]]:
    """Return the `top` classes and their probabilities, the highest first; of equal ones, the lowest index."""
    values, labels = log_probabilities.sort(descending=True, stable=True)  # topk orders equal values as it likes
    return [
        (names[label], value) for label, value in zip(labels[:top].tolist(), values[:top].exp().tolist(), strict=True)
    ]


def top1_of(scores: Float[Tensor, "N K"], labels: Int[Tensor, " N"]) -> Float[Tensor, ""]:
    """Return the accuracy: the share of rows with the highest score at their label; of equal ones, the first counts."""
    return (scores.argmax(1) == labels).float().mean()

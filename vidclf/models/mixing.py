"""MixUp and CutMix of the views of a training batch."""

import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from vidclf.contracts import Views
from vidclf.errors import VidclfError


class Mixing:
    """Blends every view and its label with its neighbour in the batch.

    Args:
        mixup: MixUp's alpha (arXiv:1710.09412); 0 for none.
        cutmix: CutMix's alpha (arXiv:1905.04899), on images only; 0 for none. With both, each batch draws one.
    """

    def __init__(self, mixup: float | int = 0.0, cutmix: float | int = 0.0) -> None:
        if min(mixup, cutmix) < 0 or mixup == cutmix == 0:
            raise VidclfError(f"mixing.mixup={mixup} mixing.cutmix={cutmix}: give one of them above 0, or mixing=none.")
        self.mixup, self.cutmix = mixup, cutmix

    def __call__(self, batch: Views, num_classes: int) -> Views:
        """Return a batch with probabilities (N, K) as labels; a view that is alone in its batch is not mixed."""
        if len(batch.labels) == 1:
            return batch._replace(labels=F.one_hot(batch.labels, num_classes).float())
        are_images = batch.inputs.ndim == 5
        if self.cutmix and not are_images:
            raise VidclfError(
                "mixing.cutmix: needs images, and features are read. Use mixing.mixup, or features=frames."
            )
        methods = [v2.MixUp(alpha=self.mixup, num_classes=num_classes)] if self.mixup else []
        methods += [v2.CutMix(alpha=self.cutmix, num_classes=num_classes)] if self.cutmix else []
        # torchvision mixes images and videos: features (N, S, D) pass as images of one channel.
        inputs = tv_tensors.Video(batch.inputs) if are_images else tv_tensors.Image(batch.inputs.unsqueeze(1))
        mixed, labels = v2.RandomChoice(methods)(inputs, batch.labels)
        return batch._replace(inputs=mixed.as_subclass(Tensor).reshape(batch.inputs.shape), labels=labels)

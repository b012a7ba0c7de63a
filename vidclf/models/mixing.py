"""Mixing the examples of a training batch: MixUp and CutMix, on images and on features."""

import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from vidclf.contracts import Views
from vidclf.errors import VidclfError


class Mixing:
    """Blends every example with its neighbour in the batch, and their labels with them.

    Args:
        mixup: MixUp's alpha (arXiv:1710.09412); 0 for none.
        cutmix: CutMix's alpha (arXiv:1905.04899), on images only; 0 for none. With both, each batch draws one.

    Raises:
        VidclfError: both are 0, or one is below.
    """

    def __init__(self, mixup: float | int = 0.0, cutmix: float | int = 0.0) -> None:
        if min(mixup, cutmix) < 0 or mixup == cutmix == 0:
            raise VidclfError(f"mixing.mixup={mixup} mixing.cutmix={cutmix}: give one of them above 0, or mixing=none.")
        self.mixup, self.cutmix = mixup, cutmix

    def __call__(self, batch: Views, num_classes: int) -> Views:
        """Return a batch whose labels are probabilities (N, K); an epoch's last view, alone in its batch, stays.

        Raises:
            VidclfError: CutMix is asked of features, which have no rectangles.
        """
        if len(batch.labels) == 1:
            return batch._replace(labels=F.one_hot(batch.labels, num_classes).float())
        are_images = batch.inputs.ndim == 5
        if self.cutmix and not are_images:
            raise VidclfError("mixing.cutmix pastes parts of images, and features are read. Use mixing.mixup.")
        methods = [v2.MixUp(alpha=self.mixup, num_classes=num_classes)] if self.mixup else []
        methods += [v2.CutMix(alpha=self.cutmix, num_classes=num_classes)] if self.cutmix else []
        # torchvision mixes images and videos: features (N, S, D) pass as images of one channel.
        inputs = tv_tensors.Video(batch.inputs) if are_images else tv_tensors.Image(batch.inputs.unsqueeze(1))
        mixed, labels = v2.RandomChoice(methods)(inputs, batch.labels)
        return batch._replace(inputs=mixed.as_subclass(Tensor).reshape(batch.inputs.shape), labels=labels)

"""What is fitted to training features and not trained by gradients: scalings, and heads with a `fit` of their own."""

from pathlib import Path

import lightning as L
import torch

from vidclf.datamodule import VideoDataModule
from vidclf.errors import VidclfError
from vidclf.models.backbones.wrapped import FrozenBackbone
from vidclf.models.learner import Learner
from vidclf.system.machine import free_memory
from vidclf.system.terminal import say

COPIES = 3  # of the features: as they are scaled, their mean, and what is computed from it


def fit_scaling(classifier: Learner, datamodule: VideoDataModule, device: torch.device) -> None:
    """Fit the scaling before the head, or before each of a grid's, to the training features."""
    scalings = [one for one in classifier.scalings if one.method != "none"]
    if scalings:
        features = datamodule.train_features(classifier.backbone, device)
        for scaling in scalings:
            scaling.fit(features)


def fit_head(
    trainer: L.Trainer, classifier: Learner, datamodule: VideoDataModule, device: torch.device, checkpoint: Path
) -> list[dict[str, object]]:
    """Fit the head to the training features, and leave the run's checkpoint; return what the head says of its choice.

    Raises:
        VidclfError: the backbone is trained, or memory has no room for the features.
    """
    name = type(classifier.head).__name__
    if not isinstance(classifier.backbone, FrozenBackbone):
        raise VidclfError(
            f"head: {name} is fitted to features, and those of a trained backbone change. Set backbone.trainable=none."
        )
    if classifier.mixing:
        say(f"mixing is left out: {name} is fitted to the features as they are.")
    classifier.to(device)
    parts = []
    for part in ("train", "val"):
        features, labels = datamodule.labelled(part, classifier.backbone, device)
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
        num_bytes = COPIES * 4 * features.numel()
        if num_bytes > free:
            raise VidclfError(
                f"head: {name} is fitted to all features of {part} at once, which takes {num_bytes / 1e9:.1f} GB of "
                f"memory, and {free / 1e9:.1f} GB are free. Use fewer views (sampling), narrower features "
                "(backbone.layer), or head=linear."
            )
        parts.append((classifier.scaling(classifier.features(features.to(device))), labels.to(device)))
    rows = classifier.head.fit(*parts, classifier.loss)  # type: ignore[operator]
    trainer.validate(classifier, datamodule=datamodule, verbose=False)
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        trainer.save_checkpoint(checkpoint)
    return rows

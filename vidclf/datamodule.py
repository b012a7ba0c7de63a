"""The data of a training run for Lightning: a corpus and a source of batches."""

from collections.abc import Iterable

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidclf.contracts import Source, VideoViews, Views
from vidclf.data.corpus import Corpus
from vidclf.errors import VidclfError


class VideoDataModule(L.LightningDataModule):
    """Batches of Views of train and val.

    Args:
        corpus: the videos, their parts and views.
        source: turns lists of VideoViews into batches of stored features or of images.
        batch_size: views in a training batch, over all processes.

    Distributed processes divide the videos among them, see `system.ranks`.
    """

    def __init__(self, corpus: Corpus, source: Source, batch_size: int = 128) -> None:
        super().__init__()
        if batch_size < 1:
            raise VidclfError(f"batch_size={batch_size}: must be 1 or more.")
        self.corpus, self.source, self.batch_size = corpus, source, batch_size

    def prepare(self, num_epochs: int | None) -> None:
        """Compute all features that are not stored yet, for all epochs (None, -1: no limit) at once."""
        draws = self.source.num_draws
        draws = min(draws, num_epochs) if num_epochs and num_epochs > 0 else draws
        views = [video for draw in range(draws) for video in self.training_views(draw)]
        self.source.prepare([*views, *self.corpus.views("val")])
        self.corpus.share_failed()
        self.corpus.require_for_training()

    def train_labels(self) -> Int[Tensor, " N"]:
        """Return the labels of the first epoch's training views."""
        return torch.cat([torch.tensor(video.label).expand(len(video.views)) for video in self.training_views(0)])

    def training_views(self, epoch: int) -> list[VideoViews]:
        """Return the training views of an epoch."""
        return self.corpus.views("train", self.source.draw_of(epoch))

    def train_dataloader(self) -> Iterable[Views]:
        """Yield this epoch's training views, shuffled."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        return self.source.training_batches(self.training_views(epoch), self.batch_size, epoch)

    def val_dataloader(self) -> Iterable[Views]:
        """Yield the validation views, in order."""
        return self.source.scoring_batches(self.corpus.views("val"), self.batch_size, keep_as="val")

    def labelled(self, part: str) -> tuple[Float[Tensor, "N S D"], Int[Tensor, " N"]]:
        """Return the features and labels of all views of a part; for train, those of the first epoch."""
        views = self.training_views(0) if part == "train" else self.corpus.views(part)
        features = self.source.features(views)
        views = [video for video in views if video.video in self.corpus.facts]  # without damaged videos
        counts = torch.tensor([len(video.views) for video in views])
        num_crops = len(features) // int(counts.sum())
        return features, torch.tensor([video.label for video in views]).repeat_interleave(num_crops * counts)

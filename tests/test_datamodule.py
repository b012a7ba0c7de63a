"""The data module gives Lightning the batches of its source, and the features that scaling is fitted on."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from doubles import make_corpus, make_frames, make_stored

from vidclf.data.sampling import Rate, Segments
from vidclf.datamodule import VideoDataModule
from vidclf.errors import VidclfError


@pytest.fixture
def root(ucf101_tree: Callable[..., Path]) -> Path:
    return ucf101_tree()


def made(root: Path, features: str, sampling: Any) -> VideoDataModule:
    corpus = make_corpus(root, sampling=sampling)
    source = make_stored(corpus, root) if features == "store" else make_frames(corpus)
    module = VideoDataModule(corpus, source, batch_size=4)
    source.prepare([*module.training_views(0), *module.training_views(1), *corpus.views("val")])
    return module


def views_at(module: VideoDataModule, epoch: int) -> list[tuple[int, int, int]]:
    """The (video, view, size of batch) of every training view of an epoch, in order."""
    module.trainer = SimpleNamespace(current_epoch=epoch)
    batches = list(module.train_dataloader())
    return [
        (int(video), int(view), len(batch.labels))
        for batch in batches
        for video, view in zip(batch.video, batch.view, strict=True)
    ]


@pytest.mark.parametrize("features", ["store", "frames"])
def test_each_epoch_has_a_different_order(features: str, root: Path):
    module = made(root, features, Rate(10))
    epochs = [views_at(module, epoch) for epoch in (0, 1, 0)]
    assert epochs[0] == epochs[2] != epochs[1]
    assert len(epochs[0]) == 4 * 6
    assert {size for *_, size in epochs[0]} == {4}
    assert len(list(module.val_dataloader())) == (6 if features == "store" else 4)


@pytest.mark.parametrize("sampling", [Rate(10), Segments(4)])
def test_heads_are_scaled_by_the_same_features_either_way(sampling: Any, root: Path):
    stored, decoded = (made(root, features, sampling).labelled("train")[0] for features in ("store", "frames"))
    assert len(stored) == (24 if isinstance(sampling, Rate) else 4)
    assert torch.equal(stored, decoded)


def test_an_empty_batch_is_refused(root: Path):
    corpus = make_corpus(root)
    with pytest.raises(VidclfError, match="batch_size=0: must be 1 or more"):
        VideoDataModule(corpus, make_frames(corpus), batch_size=0)

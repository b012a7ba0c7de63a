"""The loops over batches read no number from a tensor, which would make a GPU wait."""

import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from doubles import Images, make_learner, make_trainer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader
from videos import encode_video

import vidclf
from vidclf.contracts import VideoViews, Views
from vidclf.data.transforms import BackboneTransform
from vidclf.features.extract import Extractor
from vidclf.models.backbones.wrap import FrozenBackbone

PACKAGE = Path(vidclf.__file__).parent
OF_POSITIONS = {"on_train_batch_start"}  # it looks at what is never moved to a device


class Looks(TorchDispatchMode):
    """Counts the functions of vidclf that look at a tensor's numbers, or at how many of them there are."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.num_seen = 0  # of all functions, of this thread alone

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num_seen += 1
        if any(name in str(function) for name in ("_local_scalar_dense", "nonzero", "unique", "is_nonzero")):
            stack = [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(PACKAGE)]
            self.found[stack[-1].name if stack else ""] += 1
        return function(*args, **(kwargs or {}))

    def grown(self, fewer: "Looks") -> set[str]:
        """Return the functions that look more often where there are more batches."""
        return {name for name, count in self.found.items() if count > fewer.found[name]} - OF_POSITIONS


def test_a_step_of_training_or_validation_looks_at_no_number():
    def fit(num_batches: int) -> Looks:
        names = torch.arange(4) % 2, torch.arange(4), torch.zeros(4, dtype=torch.int64)
        batches = DataLoader([Views(torch.rand(4, 1, 6), *names) for _ in range(num_batches)], batch_size=None)
        learner, trainer = make_learner(FrozenBackbone(Images())), make_trainer(max_epochs=1)
        learner.scaling.fit(torch.rand(8, 1, 6))
        with Looks() as looks:
            trainer.fit(learner, batches, batches)
        return looks

    fewer, more = fit(4), fit(8)
    assert more.found["on_train_batch_start"] - fewer.found["on_train_batch_start"] == 4  # it sees what looks
    assert not more.grown(fewer) - {""}  # "": Lightning's own and the optimiser's, of numbers that stay on the CPU


def test_an_extraction_looks_at_no_number_of_a_image_or_a_feature(tmp_path: Path):
    path = encode_video(tmp_path / "a.avi", 128)
    network = FrozenBackbone(Images())

    def extract(num_frames: int) -> Looks:
        frames = torch.arange(num_frames)[:, None]
        extractor = Extractor([path], BackboneTransform(network.picture_format), network, torch.device("cpu"), 1)
        with Looks() as looks:
            assert len(list(extractor.compute([VideoViews(0, 0, torch.arange(num_frames), frames)]))) == 1
        return looks

    fewer, more = extract(64), extract(128)
    assert more.num_seen > fewer.num_seen > 0  # it sees the batches
    assert not more.grown(fewer)

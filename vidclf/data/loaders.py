"""What yields batches of Views: stored features gathered at once, or frames decoded ahead."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from vidclf.data.prefetch import run_ahead
from vidclf.data.video import VideoError, Views
from vidclf.errors import VidclfError

POOL_FRAMES = 1024  # frames which wait decoded to be shuffled, where training reads frames


@dataclass(frozen=True)
class Drawn:
    """The views of one video that are used: which (V,), and their frames (V, T)."""

    video: int
    label: int
    views: Int[Tensor, " V"]
    frames: Int[Tensor, "V T"]


def generator_for(*numbers: int) -> Generator:
    """Return a generator that depends on all of `numbers` (seed, epoch, video, ...) and nothing else."""
    # Their count too: a SeedSequence of (1,) is that of (1, 0).
    state = np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))


class FeatureBatches:
    """Batches of stored features: one indexing operation each, no collation.

    Args:
        features: of every view, those of one video behind one another.
        drawn: the videos, in the same order.
        batch_size: views a batch; None: one video a batch.
        order: of the views, where they are shuffled.
    """

    def __init__(
        self,
        features: Float[Tensor, "N S D"],
        drawn: Sequence[Drawn],
        batch_size: int | None = None,
        order: Int[Tensor, " N"] | None = None,
    ) -> None:
        self.views = _name_views(features, drawn, num_crops=len(features) // max(1, _count(drawn)))
        order = torch.arange(len(features)) if order is None else order
        if batch_size is None:
            self.batches = order.split(torch.bincount(self.views.video)[[one.video for one in drawn]].tolist())
        else:
            self.batches = order.split(batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Views]:
        for rows in self.batches:
            yield Views(*(part[rows] for part in self.views))


class FrameBatches:
    """Batches of pictures, each video decoded once, ahead, in threads.

    Args:
        drawn: the videos in the order in which they are decoded.
        load: decodes and transforms a video's views: (V * crops, T, 3, h, w), in the threads.
        on_error: called with what is wrong with a video, which is then left out; it may raise.
        num_threads: videos decoded at once.
        batch_size: views a batch, shuffled through a pool by `generator`; None: one video a batch, in order.
        augment: what is loaded -> pictures, in the thread that iterates: torch's random state is one for all.
        num_crops: pictures made of a frame.
    """

    def __init__(
        self,
        drawn: Sequence[Drawn],
        load: Callable[[Drawn], Tensor],
        on_error: Callable[[int, VideoError], None],
        num_threads: int,
        batch_size: int | None = None,
        generator: Generator | None = None,
        augment: Callable[[Drawn, Tensor], Tensor] | None = None,
        num_crops: int = 1,
    ) -> None:
        self.drawn, self.load, self.on_error, self.num_threads = drawn, load, on_error, num_threads
        self.batch_size, self.generator, self.augment = batch_size, generator, augment
        self.num_crops = num_crops

    def __len__(self) -> int:
        return (
            len(self.drawn) if self.batch_size is None else -(-_count(self.drawn) * self.num_crops // self.batch_size)
        )

    def __iter__(self) -> Iterator[Views]:
        videos = self._decoded()
        return videos if self.batch_size is None else self._shuffled(videos, self.batch_size)

    def _decoded(self) -> Iterator[Views]:
        num_failed = 0
        for one, result in run_ahead(self._try, self.drawn, self.num_threads, depth=1):
            if isinstance(result, VideoError):
                self.on_error(one.video, result)
                num_failed += 1
                if num_failed == len(self.drawn):
                    raise VidclfError(f"None of {num_failed} videos can be read. The last: {result}")
            else:
                result = self.augment(one, result) if self.augment else result
                yield _name_views(result, [one], num_crops=len(result) // len(one.views))

    def _try(self, one: Drawn) -> Iterator[Tensor | VideoError]:
        try:
            yield self.load(one)
        except VideoError as error:
            yield error

    def _shuffled(self, videos: Iterator[Views], batch_size: int) -> Iterator[Views]:
        """Draw views from a pool that the next videos fill up again."""
        pool: list[Views] = []
        batch: list[Views] = []
        size = max(batch_size, POOL_FRAMES // self.drawn[0].frames.shape[1])
        for video in videos:
            # Cloned, so that a view which waits does not keep its whole video in memory.
            pool += [Views(*(part[row : row + 1].clone() for part in video)) for row in range(len(video.labels))]
            while len(pool) >= size:
                batch.append(self._take(pool))
                if len(batch) == batch_size:
                    yield _join(batch)
                    batch = []
        while pool:
            batch.append(self._take(pool))
            if len(batch) == batch_size or not pool:
                yield _join(batch)
                batch = []

    def _take(self, pool: list[Views]) -> Views:
        index = int(torch.randint(len(pool), (), generator=self.generator))
        pool[index], pool[-1] = pool[-1], pool[index]
        return pool.pop()


def _count(drawn: Sequence[Drawn]) -> int:
    return sum(len(one.views) for one in drawn)


def _join(batch: list[Views]) -> Views:
    return Views(*(torch.cat(parts) for parts in zip(*batch, strict=True)))


def _name_views(inputs: Tensor, drawn: Sequence[Drawn], num_crops: int) -> Views:
    """Say of each input whose it is; the crops of view v are the views v * num_crops and following."""
    counts = torch.tensor([len(one.views) * num_crops for one in drawn], dtype=torch.int64)
    labels = torch.tensor([one.label for one in drawn], dtype=torch.int64).repeat_interleave(counts)
    video = torch.tensor([one.video for one in drawn], dtype=torch.int64).repeat_interleave(counts)
    views = torch.cat([one.views for one in drawn]) if drawn else torch.empty(0, dtype=torch.int64)
    view = (views[:, None] * num_crops + torch.arange(num_crops)).flatten()
    return Views(inputs, labels, video, view)

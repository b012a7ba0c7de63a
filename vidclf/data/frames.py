"""What yields batches of Views: stored features gathered at once, or frames decoded ahead."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from vidclf.contracts import VideoError, VideoViews, Views
from vidclf.data.prefetch import run_ahead
from vidclf.errors import VidclfError

POOL_FRAMES = 1024  # frames which wait decoded to be shuffled, where training reads frames


class FeatureBatches:
    """Batches of stored features: one indexing operation each, no collation.

    Args:
        features: of every view of this process, those of one video behind one another.
        drawn: the videos, in the same order.
        batch_size: views a batch; None: one video a batch.
        order: of the views, where they are shuffled; of those of all processes, where there are several.
        own: where each view of `order` stands in `features`; -1 for another process's.
        num_batches: as many at least are yielded, the last without a view: processes take their steps together.
    """

    def __init__(
        self,
        features: Float[Tensor, "N S D"],
        drawn: Sequence[VideoViews],
        batch_size: int | None = None,
        order: Int[Tensor, " M"] | None = None,
        own: Int[Tensor, " M"] | None = None,
        num_batches: int = 0,
    ) -> None:
        self.views = _name_views(features, drawn, num_crops=len(features) // max(1, _count(drawn)))
        order = torch.arange(len(features)) if order is None else order
        if batch_size is None:
            batches = order.split(torch.bincount(self.views.video)[[one.video for one in drawn]].tolist())
        else:
            batches = order.split(batch_size)
        if own is not None:
            batches = tuple(rows[rows >= 0] for rows in own[order].split([len(rows) for rows in batches]))
        self.batches = [*batches, *[order[:0]] * (num_batches - len(batches))]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Views]:
        for rows in self.batches:
            yield Views(*(part[rows] for part in self.views)) if len(rows) else _nobodys(self.views)


class FrameBatches:
    """Batches of pictures, each video decoded once, ahead, in threads.

    Args:
        drawn: the videos in the order in which they are decoded, those of all processes.
        load: decodes and transforms a video's views: (V * crops, T, 3, h, w), in the threads.
        on_error: called with what is wrong with a video, which is then left out; it may raise.
        num_threads: videos decoded at once.
        batch_size: views a batch, shuffled through a pool by `generator`; None: one video a batch, in order.
        augment: what is loaded -> pictures, in the thread that iterates: torch's random state is one for all.
        num_crops: pictures made of a frame.
        own: positions in `drawn` of this process's videos; None: all.
        num_batches: as many at least are yielded, the last without a view: processes take their steps together.
    """

    def __init__(
        self,
        drawn: Sequence[VideoViews],
        load: Callable[[VideoViews], Tensor],
        on_error: Callable[[int, VideoError], None],
        num_threads: int,
        batch_size: int | None = None,
        generator: Generator | None = None,
        augment: Callable[[VideoViews, Tensor], Tensor] | None = None,
        num_crops: int = 1,
        own: range | None = None,
        num_batches: int = 0,
    ) -> None:
        self.drawn, self.load, self.on_error, self.num_threads = drawn, load, on_error, num_threads
        self.batch_size, self.generator, self.augment = batch_size, generator, augment
        self.num_crops = num_crops
        self.own = range(len(drawn)) if own is None else own
        self.num_batches = num_batches

    def __len__(self) -> int:
        if self.batch_size is None:
            return max(len(self.own), self.num_batches)
        return -(-_count(self.drawn) * self.num_crops // self.batch_size)

    def __iter__(self) -> Iterator[Views]:
        videos = self._decoded()
        batches = videos if self.batch_size is None else self._shuffled(videos, self.batch_size)
        num_yielded, batch = 0, None
        for batch in batches:
            yield batch
            num_yielded += 1
        if batch is not None:
            yield from [_nobodys(batch)] * (self.num_batches - num_yielded)

    def _decoded(self) -> Iterator[Views]:
        own = [self.drawn[position] for position in self.own]
        num_failed = 0
        for one, result in run_ahead(self._try, own, self.num_threads, depth=1):
            if isinstance(result, VideoError):
                self.on_error(one.video, result)
                num_failed += 1
                if num_failed == len(own):
                    raise VidclfError(f"None of {num_failed} videos can be read. The last: {result}")
            else:
                result = self.augment(one, result) if self.augment else result
                yield _name_views(result, [one], num_crops=len(result) // len(one.views))

    def _try(self, one: VideoViews) -> Iterator[Tensor | VideoError]:
        try:
            yield self.load(one)
        except VideoError as error:
            yield error

    def _shuffled(self, videos: Iterator[Views], batch_size: int) -> Iterator[Views]:
        """Yield the planned batches, as far as their views are this process's, as soon as those are decoded."""
        firsts = self._first_views()
        first_of = {self.drawn[position].video: firsts[position] for position in self.own}
        own = {firsts[position] + row for position in self.own for row in self._rows(position)}
        ready: dict[int, Views] = {}
        reached = 0  # the number behind the last view that was decoded; one before that is not ready has failed
        last: Views | None = None

        def decode_next() -> bool:
            nonlocal last, reached
            video = next(videos, None)
            if video is None:
                return False
            first = first_of[int(video.video[0])]
            # Cloned, so that a view which waits does not keep its whole video in memory.
            rows = (Views(*(part[row : row + 1].clone() for part in video)) for row in range(len(video.labels)))
            ready.update(enumerate(rows, start=first))
            last, reached = ready[first], first + len(video.labels)
            return True

        for numbers in self._plan(batch_size):
            mine = [number for number in numbers if number in own]
            while (last is None or max(mine, default=-1) >= reached) and decode_next():
                pass
            views = [ready.pop(number) for number in mine if number in ready]
            if views:
                yield _join(views)
            elif last is not None and self.num_batches:
                yield _nobodys(last)

    def _plan(self, batch_size: int) -> Iterator[list[int]]:
        """Yield the numbers of each batch's views, drawn from a pool that the next videos fill up again."""
        pool: list[int] = []
        batch: list[int] = []
        size = max(batch_size, POOL_FRAMES // self.drawn[0].frames.shape[1])
        for position, first in enumerate(self._first_views()):
            pool += [first + row for row in self._rows(position)]
            while len(pool) >= size:
                batch.append(self._take(pool))
                if len(batch) == batch_size:
                    yield batch
                    batch = []
        while pool:
            batch.append(self._take(pool))
            if len(batch) == batch_size or not pool:
                yield batch
                batch = []

    def _rows(self, position: int) -> range:
        return range(len(self.drawn[position].views) * self.num_crops)

    def _first_views(self) -> list[int]:
        """Return the number of each video's first view, all views counted through."""
        counts = [len(self._rows(position)) for position in range(len(self.drawn))]
        return [0, *itertools.accumulate(counts)][:-1]

    def _take(self, pool: list[int]) -> int:
        index = int(torch.randint(len(pool), (), generator=self.generator))
        pool[index], pool[-1] = pool[-1], pool[index]
        return pool.pop()


def own_rows(drawn: Sequence[VideoViews], own: range, num_crops: int) -> Int[Tensor, " M"]:
    """Return where each view of `drawn` stands among those of the `own` positions, behind one another; -1: not."""
    counts = torch.tensor([len(one.views) * num_crops for one in drawn], dtype=torch.int64)
    mine = torch.zeros(len(drawn), dtype=torch.bool)
    mine[list(own)] = True
    of_view = mine.repeat_interleave(counts)
    return torch.where(of_view, of_view.cumsum(0) - 1, -1)


def _nobodys(views: Views) -> Views:
    """Return a batch of one view that counts for nothing: it is video -1's."""
    first = Views(*(part[:1] for part in views))
    return first._replace(video=torch.full_like(first.video, -1))


def _count(drawn: Sequence[VideoViews]) -> int:
    return sum(len(one.views) for one in drawn)


def _join(batch: list[Views]) -> Views:
    return Views(*(torch.cat(parts) for parts in zip(*batch, strict=True)))


def _name_views(inputs: Tensor, drawn: Sequence[VideoViews], num_crops: int) -> Views:
    """Say of each input whose it is; the crops of view v are the views v * num_crops and following."""
    counts = torch.tensor([len(one.views) * num_crops for one in drawn], dtype=torch.int64)
    labels = torch.tensor([one.label for one in drawn], dtype=torch.int64).repeat_interleave(counts)
    video = torch.tensor([one.video for one in drawn], dtype=torch.int64).repeat_interleave(counts)
    views = torch.cat([one.views for one in drawn]) if drawn else torch.empty(0, dtype=torch.int64)
    view = (views[:, None] * num_crops + torch.arange(num_crops)).flatten()
    return Views(inputs, labels, video, view)

"""Batches of Views from video files, through torch's DataLoader: decoded, transformed and augmented in its workers.

Workers are given windows: some videos, whose views they decode, and how these are cut into pieces of batches. A batch
is one piece, or a few of neighbouring windows joined. Whatever is drawn by chance follows from (seed, purpose,
epoch, video), so that any number of workers gives the same bits.
"""

import multiprocessing
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from vidclf.contracts import Transform, VideoViews, Views, label_views, optional, padding_batch
from vidclf.data.decoding import decode_frames, errors_name_video
from vidclf.errors import VideoError
from vidclf.system.machine import keep_memory
from vidclf.system.ranks import gather, of_rank, rank_and_size
from vidclf.system.seeds import generator_for

FRAMES_PER_WINDOW = 1024  # at least, where videos have several views: among as many, views are shuffled
# Frames to be decoded: two workers take 10 s to start, and then save 2.7 s of each 25,000 (H.264, two cores).
WORTH_WORKERS = 100_000
CPU = torch.device("cpu")
WINDOWS_AHEAD = 2  # that each worker prepares


@dataclass(frozen=True)
class Window:
    """What a worker does at once.

    Attributes:
        views: the videos, and their views.
        pieces: rows among all those views, crops behind one another: a piece of a batch each.
        batches: the number of the batch that each piece belongs to.
        epoch: of the training, whose views are augmented; None: they are not.
    """

    views: Sequence[VideoViews]
    pieces: Sequence[Int[Tensor, " _"]]
    batches: Sequence[int]
    epoch: int | None = None


@dataclass
class FrameReader:
    """A source of batches: the frames of videos, which are known to be whole.

    Args:
        paths: of the videos, by `VideoViews.video`.
        transform: frames -> images.
        on_error: called with what is wrong with a video that is scored; it may raise. Training always raises.
        augmentation: frames -> images by chance, in place of `transform` in training.
        seed: of the augmentation.
        num_workers: processes that decode; 0: this one does.
        device: that batches go to; for a GPU they are pinned, so that nobody waits for the copy.
    """

    paths: Sequence[Path]
    transform: Transform
    on_error: Callable[[int, VideoError], None]
    augmentation: Callable[[Tensor], Tensor] | None = None
    seed: int = 0
    num_workers: int = 0
    device: torch.device = CPU
    num_draws: ClassVar[int] = 1  # to be prepared

    def __post_init__(self) -> None:
        self._idle: list[DataLoader] = []  # their workers live as long as the reader

    def draw_of(self, epoch: int) -> int:
        """Return which draw of the views an epoch uses: one of its own."""
        return epoch

    def prepare(self, views: Sequence[VideoViews], shard: tuple[int, int] = (1, 1)) -> int:
        """Do nothing: frames are decoded when they are read."""
        return 0

    def training_batches(self, views: Sequence[VideoViews], batch_size: int, epoch: int) -> "FrameBatches":
        """Return shuffled batches, `batch_size` views in all processes, of which this one has those of its videos."""
        num_crops = 1 if self.augmentation else self.num_crops
        chance = generator_for(self.seed, "windows", epoch)
        windows, num_batches = plan_training(views, batch_size, num_crops, chance, epoch)
        return FrameBatches(self, windows, num_batches, _raise)

    def scoring_batches(
        self, views: Sequence[VideoViews], batch_size: int | None = None, keep_as: str | None = None
    ) -> "FrameBatches":
        """Return all views of this process's videos in order, one video a batch, whatever `batch_size` is.

        With `keep_as`, all processes get the same number of batches.
        """
        own = of_rank(views)
        windows = [
            Window([video], [torch.arange(len(video.views) * self.num_crops)], [number])
            for number, video in enumerate(own)
        ]
        num_batches = len(of_rank(views, rank=0)) if keep_as else len(windows)
        return FrameBatches(self, windows, num_batches, self.on_error)

    def features(self, views: Sequence[VideoViews], backbone: nn.Module) -> Float[Tensor, "N S D"]:
        """Return the features of all views, of all processes, on the CPU; damaged videos are left out."""
        backbone.to(self.device).eval()
        batches = self.scoring_batches(views)
        own = {int(batch.video[0]): backbone(batch.inputs.to(self.device)).cpu() for batch in batches}
        by_video = {video: features for of_one in gather(own) for video, features in of_one.items()}
        return torch.cat([by_video[video.video] for video in views if video.video in by_video])

    @property
    def num_crops(self) -> int:
        """Images made of a frame."""
        return optional(self.transform, Transform, "num_crops")

    @contextmanager
    def loader(self, windows: Sequence[Window]) -> Iterator[DataLoader]:
        """Give the loader of a pass: one that no other pass uses meanwhile, with its workers, or a new one."""
        loader = self._idle.pop() if self._idle else self._start_loader()
        loader.sampler.windows = windows  # type: ignore[attr-defined]
        try:
            yield loader
        finally:
            self._idle.append(loader)

    def _start_loader(self) -> DataLoader:
        in_hand = torch.full((max(1, self.num_workers), 2), -1).share_memory_()
        return DataLoader(
            Decoder(self.paths, self.transform, self.augmentation, self.seed, in_hand),
            sampler=Windows(),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
            persistent_workers=self.num_workers > 0,
            prefetch_factor=WINDOWS_AHEAD if self.num_workers else None,
            multiprocessing_context=_context() if self.num_workers else None,
            worker_init_fn=_start_worker,
            generator=Generator(),  # else it draws from the one that dropout uses
        )


def num_workers_for(num_frames: int, num_cores: int) -> int:
    """Return how many processes pay for decoding `num_frames` in all: none where starting them costs more."""
    return num_cores if num_frames >= WORTH_WORKERS and num_cores > 1 else 0


def plan_training(
    views: Sequence[VideoViews], batch_size: int, num_crops: int, generator: Generator, epoch: int
) -> tuple[list[Window], int]:
    """Return an epoch's windows as far as they are this process's, and the number of batches.

    Videos are shuffled and cut into windows, and views are shuffled within each. A batch is the next `batch_size` of
    all views, whoever decodes them.
    """
    rank, size = rank_and_size()
    shuffled = [views[index] for index in torch.randperm(len(views), generator=generator).tolist()]
    windows, first, start = [], 0, 0
    for end in _window_ends(shuffled, batch_size, num_crops):
        counts = torch.tensor([len(one.views) * num_crops for one in shuffled[start:end]])
        is_own = torch.arange(start, end) % size == rank
        of_view = is_own.repeat_interleave(counts)
        order = torch.randperm(len(of_view), generator=generator)
        batches = (first + torch.arange(len(order))) // batch_size
        rows = (of_view.cumsum(0) - 1)[order]
        own = of_view[order]
        numbers, lengths = torch.unique_consecutive(batches[own], return_counts=True)
        own_views = [one for one, is_its in zip(shuffled[start:end], is_own.tolist(), strict=True) if is_its]
        windows.append(Window(own_views, rows[own].split(lengths.tolist()), numbers.tolist(), epoch))
        first, start = first + len(order), end
    return [window for window in windows if window.views], -(-first // batch_size)


def _window_ends(views: Sequence[VideoViews], batch_size: int, num_crops: int) -> Iterator[int]:
    """Yield where each window ends: one is a batch where videos have one view each, else enough to shuffle among."""
    wanted = batch_size
    if any(len(one.views) * num_crops > 1 for one in views):
        wanted = max(batch_size, FRAMES_PER_WINDOW // views[0].frames.shape[1])
    count = 0
    for end, one in enumerate(views, start=1):
        count += len(one.views) * num_crops
        if count >= wanted or end == len(views):
            yield end
            count = 0


class Windows(Sampler[Window]):
    """Gives the windows of whichever pass comes next to the workers, which know of no epoch themselves."""

    def __init__(self) -> None:
        self.windows: Sequence[Window] = ()

    def __len__(self) -> int:
        return len(self.windows)

    def __iter__(self) -> Iterator[Window]:
        return iter(self.windows)


@dataclass
class Decoder(Dataset):
    """Decodes windows; `in_hand` (workers, 2) says which process has which video in hand."""

    paths: Sequence[Path]
    transform: Transform
    augmentation: Callable[[Tensor], Tensor] | None
    seed: int
    in_hand: Int[Tensor, "workers 2"]

    def __getitem__(self, window: Window) -> list[Views] | tuple[int, VideoError]:
        """Return the pieces of a window, or which video fails and why."""
        images = []
        for one in window.views:
            if worker := get_worker_info():
                self.in_hand[worker.id] = torch.tensor([multiprocessing.current_process().pid, one.video])
            try:
                with errors_name_video(self.paths[one.video]):
                    images.append(self._images(one, window.epoch))
            except VideoError as error:
                return one.video, error
        num_crops = len(images[0]) // len(window.views[0].views)
        views = label_views(torch.cat(images) if len(images) > 1 else images[0], window.views, num_crops)
        if len(window.pieces) == 1 and len(window.views) == 1:
            return [views]
        return [Views(*(part[rows] for part in views)) for rows in window.pieces]

    def _images(self, one: VideoViews, epoch: int | None) -> Float[Tensor, "views T 3 h w"]:
        frames = decode_frames(self.paths[one.video], one.frames, whole=True)
        if self.augmentation is None or epoch is None:
            return self.transform(frames)
        seed = generator_for(self.seed, "augmentation", epoch, one.video).initial_seed()
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's own random state
            torch.manual_seed(seed)
            random.seed(seed)  # whatever an augmentation of one's own draws from
            np.random.seed(seed % 2**32)
            return self.augmentation(frames)


@dataclass
class FrameBatches:
    """Yields the batches of a pass over windows; one of which this process has no view is nobody's."""

    reader: FrameReader
    windows: Sequence[Window]
    num_batches: int
    on_error: Callable[[int, VideoError], None]

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Views]:
        sizes: dict[int, int] = {}
        for window in self.windows:
            for number, rows in zip(window.batches, window.pieces, strict=True):
                sizes[number] = sizes.get(number, 0) + len(rows)
        waiting: list[Views] = []
        num_yielded = 0
        for number, piece in self._pieces():
            yield from [padding_batch(piece)] * (number - num_yielded)
            num_yielded = max(num_yielded, number)
            waiting.append(piece)
            if sum(len(views.labels) for views in waiting) == sizes[number]:
                yield _join(waiting)
                waiting, num_yielded = [], num_yielded + 1
        if num_yielded:
            yield from [padding_batch(piece)] * (self.num_batches - num_yielded)

    def _pieces(self) -> Iterator[tuple[int, Views]]:
        for window, result in zip(self.windows, self._results(), strict=True):
            if isinstance(result, tuple):
                self.on_error(*result)
            else:
                yield from zip(window.batches, result, strict=True)

    def _results(self) -> Iterator[list[Views] | tuple[int, VideoError]]:
        """Yield what workers made of the windows; they are free for another pass before the last is handed out."""
        with self.reader.loader(self.windows) as loader:
            try:
                results = iter(loader)
                for _ in self.windows[1:]:
                    yield next(results)
                last = [next(results) for _ in self.windows[:1]]
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise self._death(error, loader.dataset.in_hand) from error  # type: ignore[attr-defined]
        yield from last

    def _death(self, error: RuntimeError, in_hand: Int[Tensor, "workers 2"]) -> VideoError:
        dead = set(map(int, re.findall(r"\d+", str(error))))
        videos = [video for pid, video in in_hand.tolist() if pid in dead] or in_hand[:, 1].tolist()
        names = ", ".join(str(self.reader.paths[video]) for video in videos if video >= 0)
        return VideoError(
            f"A worker that reads videos has died (killed? out of memory?) with {names or 'no video'} in hand. Look at "
            f"that file, give num_workers=0 or fewer workers. ({str(error).splitlines()[0][:200]})"
        )


def _raise(_: int, error: VideoError) -> None:
    raise error


def _join(batch: list[Views]) -> Views:
    return batch[0] if len(batch) == 1 else Views(*(torch.cat(parts) for parts in zip(*batch, strict=True)))


def _context() -> multiprocessing.context.BaseContext:
    """Return how workers are started: from a server without threads that has imported once, or each anew."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _as_it_is(result: object) -> object:
    return result


def _start_worker(_: int) -> None:
    keep_memory()

"""Batches of Views from video files: decoded, transformed and augmented in the workers of torch's DataLoader.

A worker's unit of work is a window: some videos, and how their views are divided into pieces of batches. A batch is a
piece, or several pieces of adjacent windows joined. All randomness follows from (seed, purpose, epoch, video), so that
any number of workers gives the same bits.
"""

import multiprocessing
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, Dataset, get_worker_info

from vidclf.contracts import Transform, VideoViews, Views, label_views, optional, padding_batch
from vidclf.data.decoding import decode_frames, errors_name_video
from vidclf.errors import VideoError
from vidclf.system.machine import keep_memory
from vidclf.system.ranks import gather, of_rank, rank_and_size
from vidclf.system.seeds import generator_for

FRAMES_PER_WINDOW = 1024  # at least, if videos have several views; views are shuffled within a window
# Frames to decode: two workers take 10 s to start, then save 2.7 s per 25,000 frames (H.264, two cores).
MIN_FRAMES_FOR_WORKERS = 100_000
CPU = torch.device("cpu")
WINDOWS_AHEAD = 2  # windows that each worker prepares


@dataclass(frozen=True)
class Window:
    """A worker's unit of work.

    Attributes:
        views: the views of some videos.
        pieces: for each piece of a batch, its rows among all these views, with the crops of a view next to each other.
        batches: the number of the batch that each piece belongs to.
        epoch: of training, with augmentation; None: without.
    """

    views: Sequence[VideoViews]
    pieces: Sequence[Int[Tensor, " _"]]
    batches: Sequence[int]
    epoch: int | None = None


@dataclass
class FrameReader:
    """A source of batches of images, decoded from undamaged videos.

    Args:
        paths: of the videos, by `VideoViews.video`.
        transform: frames -> images.
        on_error: called with (video, error) if a video fails in scoring; it may raise. Training always raises.
        augmentation: frames -> random images, instead of `transform` in training.
        seed: of the augmentation.
        num_workers: number of processes that decode; 0: decode in this process.
        backbone: images -> features, for `features`.
        device: of the backbone; batches for a GPU are pinned, so that copies overlap.
    """

    paths: Sequence[Path]
    transform: Transform
    on_error: Callable[[int, VideoError], None]
    augmentation: Callable[[Tensor], Tensor] | None = None
    seed: int = 0
    num_workers: int = 0
    backbone: nn.Module = field(default_factory=nn.Identity)
    device: torch.device = CPU
    num_draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self._idle: list[DataLoader] = []  # workers live as long as the reader

    def draw_of(self, epoch: int) -> int:
        """Return the epoch: each has a separate draw."""
        return epoch

    def prepare(self, views: Sequence[VideoViews], shard: tuple[int, int] = (1, 1)) -> int:
        """Do nothing: frames are decoded when they are read."""
        return 0

    def training_batches(self, views: Sequence[VideoViews], batch_size: int, epoch: int) -> "FrameBatches":
        """Return shuffled batches: `batch_size` views over all processes, each with the views of its videos."""
        num_crops = 1 if self.augmentation else self.num_crops
        generator = generator_for(self.seed, "windows", epoch)
        windows, num_batches = plan_training(views, batch_size, num_crops, generator, epoch)
        return FrameBatches(self, windows, num_batches, _raise)

    def scoring_batches(
        self, views: Sequence[VideoViews], batch_size: int | None = None, keep_as: str | None = None
    ) -> "FrameBatches":
        """Return all views of this process's videos in order, a video per batch; `batch_size` is ignored.

        With `keep_as`, all processes get the same number of batches.
        """
        windows = [
            Window([video], [torch.arange(len(video.views) * self.num_crops)], [number])
            for number, video in enumerate(of_rank(views))
        ]
        num_batches = len(of_rank(views, rank=0)) if keep_as else len(windows)
        return FrameBatches(self, windows, num_batches, self.on_error)

    def features(self, views: Sequence[VideoViews]) -> Float[Tensor, "N S D"]:
        """Return the features of all views, of all processes, on the CPU, without damaged videos."""
        backbone = self.backbone.to(self.device).eval()
        batches = self.scoring_batches(views)
        local_features = {int(batch.video[0]): backbone(batch.inputs.to(self.device)).cpu() for batch in batches}
        features_of = {video: features for part in gather(local_features) for video, features in part.items()}
        return torch.cat([features_of[video.video] for video in views if video.video in features_of])

    @property
    def num_crops(self) -> int:
        """Number of images made of a frame."""
        return optional(self.transform, Transform, "num_crops")

    @contextmanager
    def loader(self, windows: Sequence[Window]) -> Iterator[DataLoader]:
        """Lend a loader with its workers to a pass: an idle one, or a new one."""
        loader = self._idle.pop() if self._idle else self._start_loader()
        loader.sampler[:] = windows  # type: ignore[index]
        try:
            yield loader
        finally:
            self._idle.append(loader)

    def _start_loader(self) -> DataLoader:
        current_videos = torch.full((max(1, self.num_workers), 2), -1).share_memory_()
        return DataLoader(
            Decoder(self.paths, self.transform, self.augmentation, self.seed, current_videos),
            sampler=[],  # `loader` sets the windows of each pass
            batch_size=None,
            collate_fn=_identity,
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
            persistent_workers=self.num_workers > 0,
            prefetch_factor=WINDOWS_AHEAD if self.num_workers else None,
            multiprocessing_context=_context() if self.num_workers else None,
            worker_init_fn=_start_worker,
            generator=Generator(),  # the default is the global generator, which dropout uses
        )


def num_workers_for(num_frames: int, num_cores: int) -> int:
    """Return the number of worker processes for decoding `num_frames`: 0 if starting them costs more than it saves."""
    return num_cores if num_frames >= MIN_FRAMES_FOR_WORKERS and num_cores > 1 else 0


def plan_training(
    views: Sequence[VideoViews], batch_size: int, num_crops: int, generator: Generator, epoch: int
) -> tuple[list[Window], int]:
    """Return this process's windows of an epoch, and the number of batches.

    Videos are shuffled and divided into windows, and views are shuffled within each window. A batch is the next
    `batch_size` views, whichever processes decode them.
    """
    rank, size = rank_and_size()
    shuffled = [views[index] for index in torch.randperm(len(views), generator=generator).tolist()]
    windows, first, start = [], 0, 0
    for end in _window_ends(shuffled, batch_size, num_crops):
        counts = torch.tensor([len(video.views) * num_crops for video in shuffled[start:end]])
        local_videos = torch.arange(start, end) % size == rank  # whether this process decodes the video
        local_views = local_videos.repeat_interleave(counts)
        order = torch.randperm(len(local_views), generator=generator)
        batches = (first + torch.arange(len(order))) // batch_size
        rows = (local_views.cumsum(0) - 1)[order]
        is_local = local_views[order]
        numbers, lengths = torch.unique_consecutive(batches[is_local], return_counts=True)
        videos = list(compress(shuffled[start:end], local_videos.tolist()))
        windows.append(Window(videos, rows[is_local].split(lengths.tolist()), numbers.tolist(), epoch))
        first, start = first + len(order), end
    return [window for window in windows if window.views], -(-first // batch_size)


def _window_ends(views: Sequence[VideoViews], batch_size: int, num_crops: int) -> Iterator[int]:
    """Yield the end of each window: a batch if every video has a single view, else enough views to shuffle well."""
    min_views = batch_size
    if any(len(video.views) * num_crops > 1 for video in views):
        min_views = max(batch_size, FRAMES_PER_WINDOW // views[0].frames.shape[1])
    count = 0
    for end, video in enumerate(views, start=1):
        count += len(video.views) * num_crops
        if count >= min_views or end == len(views):
            yield end
            count = 0


@dataclass
class Decoder(Dataset):
    """Decodes windows; `current_videos` holds each worker's process id and the video that it decodes."""

    paths: Sequence[Path]
    transform: Transform
    augmentation: Callable[[Tensor], Tensor] | None
    seed: int
    current_videos: Int[Tensor, "workers 2"]

    def __getitem__(self, window: Window) -> list[Views] | tuple[int, VideoError]:
        """Return the pieces of a window, or (video, error) if a video fails."""
        images = []
        for video in window.views:
            if worker := get_worker_info():
                self.current_videos[worker.id] = torch.tensor([os.getpid(), video.video])
            try:
                with errors_name_video(self.paths[video.video]):
                    images.append(self._images(video, window.epoch))
            except VideoError as error:
                return video.video, error
        num_crops = len(images[0]) // len(window.views[0].views)
        views = label_views(torch.cat(images) if len(images) > 1 else images[0], window.views, num_crops)
        if len(window.pieces) == 1 and len(window.views) == 1:
            return [views]
        return [Views(*(column[rows] for column in views)) for rows in window.pieces]

    def _images(self, video: VideoViews, epoch: int | None) -> Float[Tensor, "views T 3 h w"]:
        frames = decode_frames(self.paths[video.video], video.frames, whole=True)
        if self.augmentation is None or epoch is None:
            return self.transform(frames)
        seed = generator_for(self.seed, "augmentation", epoch, video.video).initial_seed()
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global random state
            torch.manual_seed(seed)
            random.seed(seed)  # custom augmentations may draw from these
            np.random.seed(seed % 2**32)
            return self.augmentation(frames)


@dataclass
class FrameBatches:
    """Yields the batches of a pass over windows; a batch without a view of this process is padding."""

    reader: FrameReader
    windows: Sequence[Window]
    num_batches: int
    on_error: Callable[[int, VideoError], None]

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Views]:
        sizes: Counter[int] = Counter()
        for window in self.windows:
            for number, rows in zip(window.batches, window.pieces, strict=True):
                sizes[number] += len(rows)
        waiting: list[Views] = []
        num_yielded = 0
        for number, piece in self._pieces():
            yield from [padding_batch(piece)] * (number - num_yielded)
            num_yielded = max(num_yielded, number)
            waiting.append(piece)
            if sum(len(views.labels) for views in waiting) == sizes[number]:
                yield waiting[0] if len(waiting) == 1 else Views(*map(torch.cat, zip(*waiting, strict=True)))
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
        """Yield the workers' results; the loader is free for another pass before the last result is yielded."""
        with self.reader.loader(self.windows) as loader:
            try:
                results = iter(loader)
                for _ in self.windows[1:]:
                    yield next(results)
                last = [next(results) for _ in self.windows[:1]]
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise self._death(error, loader.dataset.current_videos) from error  # type: ignore[attr-defined]
        yield from last

    def _death(self, error: RuntimeError, current_videos: Int[Tensor, "workers 2"]) -> VideoError:
        dead = set(map(int, re.findall(r"\d+", str(error))))
        videos = [video for pid, video in current_videos.tolist() if pid in dead] or current_videos[:, 1].tolist()
        names = ", ".join(str(self.reader.paths[video]) for video in videos if video >= 0)
        return VideoError(
            f"A worker process died (killed? out of memory?) while it read {names or 'no video'}. Check that file, or "
            f"lower num_workers. ({str(error).splitlines()[0][:200]})"
        )


def _raise(_: int, error: VideoError) -> None:
    raise error


def _context() -> multiprocessing.context.BaseContext:
    """Return how to start workers: forked from a server that has imported everything once, or spawned."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # A job of joblib hands its start method, "loky", to the server, which knows it only once joblib is imported.
    context.set_forkserver_preload([__name__, "joblib.externals.loky.backend.context"])
    return context


def _identity(result: object) -> object:
    return result


def _start_worker(_: int) -> None:
    keep_memory()

"""Batches of Views from the feature store: all features in one tensor, one indexing operation a batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidclf.contracts import VideoViews, Views, count_views, label_views, padding_batch
from vidclf.data.catalogue import VideoFacts
from vidclf.errors import VideoError
from vidclf.features.extract import Extractor, compute_missing, fill_store, units_of, views_of
from vidclf.features.store import REMEDY, FeatureError, FeatureStore
from vidclf.system.disk import empty_on_disk
from vidclf.system.machine import free_memory
from vidclf.system.ranks import local_world_size, of_rank, rank_and_size
from vidclf.system.seeds import generator_for
from vidclf.system.terminal import say

MAX_KEPT = 8  # pairs of part and draw that stay in memory


@dataclass
class StoredFeatures:
    """A source of batches of stored features; missing ones are computed once.

    Args:
        store: of the backbone's recipe.
        extractor: computes missing features.
        facts: of the videos' files, by `VideoViews.video`.
        on_error: called with a video and its error; it may raise.
        num_draws: of random training views; epoch e uses draw e modulo this, so that the store stays bounded.
        seed: for the order of training views.
    """

    store: FeatureStore
    extractor: Extractor
    facts: Mapping[int, VideoFacts]
    on_error: Callable[[int, VideoError], None]
    num_draws: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        self.facts = dict(self.facts)  # a corpus forgets those of excluded videos
        self._kept: dict[tuple[str, int, int], Views] = {}  # by part, draw and number of videos

    def draw_of(self, epoch: int) -> int:
        """Return which draw of the views an epoch uses."""
        return epoch % self.num_draws

    def prepare(self, views: Sequence[VideoViews], shard: tuple[int, int] = (1, 1)) -> int:
        """Compute missing features; return the number of units (frames, or clips) that this process computed."""
        return fill_store(self.store, self.extractor, views, self.facts, self.on_error, shard)

    def training_batches(self, views: Sequence[VideoViews], batch_size: int, epoch: int) -> "FeatureBatches":
        """Return this process's share of shuffled batches; see `Source`."""
        rank, size = rank_and_size()
        local_views = self._kept_views("train", self.draw_of(epoch), views)
        rows = _local_rows(views, rank, size, self.extractor.num_crops)
        order = torch.randperm(len(rows), generator=generator_for(self.seed, "order", epoch))
        batches = [batch[batch >= 0] for batch in rows[order].split(batch_size)]
        return FeatureBatches(local_views, batches)

    def scoring_batches(
        self, views: Sequence[VideoViews], batch_size: int | None = None, keep_as: str | None = None
    ) -> "FeatureBatches":
        """Return all views of this process's videos in order; see `Source`."""
        local_views = self._kept_views(keep_as, 0, views) if keep_as else self._labelled(views)
        order = torch.arange(len(local_views.labels))
        if batch_size is None:
            return FeatureBatches(local_views, order.split([self._count([video]) for video in of_rank(views)]))
        batches = list(order.split(batch_size)) if len(order) else []
        if keep_as:
            counts = [self._count(of_rank(views, rank)) for rank in range(rank_and_size()[1])]
            batches += [order[:0]] * (-(-max(counts) // batch_size) - len(batches))
        return FeatureBatches(local_views, batches)

    def features(self, views: Sequence[VideoViews]) -> Float[Tensor, "N S D"]:
        """Return the stored features of all views, those of one video next to each other.

        The tensor is on the GPU if that has room; in a mapped file if it would take more than half of the free memory.

        Raises:
            VidclfError: a unit is not stored, or neither memory nor disk has room.
        """
        if not views:
            return torch.empty(0, 1, self.extractor.backbone.feature_dim)
        first = self._read(views[0])
        shape = (self._count(views), *first.shape[1:])
        num_bytes = first[0].nbytes * shape[0]
        if num_bytes > free_memory() / 2 / local_world_size():
            features = empty_on_disk(self.store.folder, shape, first.dtype, REMEDY)
        else:
            features = first.new_empty(shape)
        end = 0
        for video in views:
            rows = self._read(video)
            features[end : end + len(rows)] = rows
            end += len(rows)
        device = self.extractor.device
        fits = device.type == "cuda" and num_bytes < torch.cuda.mem_get_info(device)[0] / 2
        return features.to(device) if fits else features

    def _read(self, video: VideoViews) -> Float[Tensor, "views S D"]:
        units = units_of(video, self.extractor.backbone.picture_format.clip_length).frames
        read = partial(self.store.read, self.facts[video.video].content, units, self.extractor.paths[video.video])
        try:
            features = read()
        except FeatureError as error:  # since `prepare`
            say(f"{error} They are computed anew.")
            compute_missing(self.store, self.extractor, [video], self.facts, self.on_error)
            features = read()
        return views_of(features, len(video.frames))

    def _labelled(self, views: Sequence[VideoViews]) -> Views:
        """Return the views of this process's videos."""
        local_videos = of_rank(views)
        return label_views(self.features(local_videos), local_videos, self.extractor.num_crops)

    def _kept_views(self, part: str, draw: int, views: Sequence[VideoViews]) -> Views:
        """Return the views of this process's videos of a part; read them once."""
        key = part, draw, len(views)
        if key not in self._kept:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = self._labelled(views)
        return self._kept[key]

    def _count(self, views: Sequence[VideoViews]) -> int:
        return count_views(views) * self.extractor.num_crops


@dataclass
class FeatureBatches:
    """Yields batches of `views`, each by its rows; a batch without rows becomes padding."""

    views: Views
    batches: Sequence[Int[Tensor, " _"]]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Views]:
        for rows in self.batches:
            if not len(rows):
                yield padding_batch(self.views)
                continue
            inputs, *columns = self.views
            yield Views(inputs[rows.to(inputs.device, non_blocking=True)], *(column[rows] for column in columns))


def _local_rows(views: Sequence[VideoViews], rank: int, size: int, num_crops: int) -> Int[Tensor, " M"]:
    """Return the row of each view of `views` among the views of this process's videos, or -1 for other processes."""
    counts = torch.tensor([len(video.views) * num_crops for video in views], dtype=torch.int64)
    is_local = (torch.arange(len(views)) % size == rank).repeat_interleave(counts)
    return torch.where(is_local, is_local.cumsum(0) - 1, -1)

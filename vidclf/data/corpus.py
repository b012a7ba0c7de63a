"""The videos of a data set, examined, split and sampled: which frames of which videos a part uses."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from vidclf.contracts import Dataset, OfficialParts, Sampling, SplitRule, Video, VideoViews, optional
from vidclf.data.catalogue import Catalogue, VideoFacts
from vidclf.data.listing import repeated
from vidclf.errors import VidclfError, VideoError
from vidclf.system.ranks import gather, rank_and_size
from vidclf.system.seeds import generator_for
from vidclf.system.text import first_five

MAX_CACHED = 16  # lists of views
SLACK_S = 0.1  # a segment may end this much after the last frame, because a container's duration includes its sound


class Corpus:
    """A data set's videos, with their parts and, after `look`, their facts and views.

    Args:
        dataset: lists the videos.
        split: (videos, number of views of each) -> Split, see `SplitRule`.
        sampling: (num_frames, fps, generator) -> frame indices (V, T).
        catalogue: facts about files.
        seed: of the training draws.
        num_threads: number of files examined at once.
        shard: (k, n): examine only every n-th video, from the k-th on (k from 1); all remaining videos have no views.

    Attributes:
        look_up: a function from paths to the facts of files, which the catalogue keeps.
        videos: all of them, with unique names.
        facts: of undamaged videos, by position in `videos`.
        failed: errors of damaged videos, by position in `videos`.
        split: which part each view is in; of a rule for single views, only after `look`.

    Raises:
        VidclfError: the data set has problems, two videos have the same name, or the split does not fit the videos.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: SplitRule,
        sampling: Sampling,
        catalogue: Catalogue,
        seed: int = 0,
        num_threads: int = 2,
        shard: tuple[int, int] = (1, 1),
    ) -> None:
        self.dataset, self.rule, self.sampling, self.seed, self.shard = dataset, split, sampling, seed, shard
        self.look_up = partial(catalogue.look_up, num_threads=num_threads)
        self.class_names = list(dataset.class_names)
        self.is_random = bool(optional(sampling, Sampling, "random"))
        self.videos = name_videos(self.list_videos(), optional(dataset, Dataset, "root"))
        _check_split_fits(split, sampling)
        self.facts: dict[int, VideoFacts] = {}
        self.failed: dict[int, VideoError] = {}
        self._cached_views: dict[object, list[VideoViews]] = {}
        if not optional(split, SplitRule, "per_view"):
            self.split = self.divide([1] * len(self.videos))

    def look(self) -> "Corpus":
        """Examine every video by decoding it, unless the catalogue knows it; return the corpus.

        Raises:
            VideoError: a video is damaged, and the data set's `on_error` is raise.
        """
        self._examine(range(self.shard[0] - 1, len(self.videos), self.shard[1]))
        # A damaged video has a view, so that its part counts it.
        num_views = [len(self._sample(video)) if video in self.facts else 1 for video in range(len(self.videos))]
        per_view = optional(self.rule, SplitRule, "per_view")
        self.split = self.divide(num_views) if per_view else replace(self.split, num_views=num_views)
        return self

    def list_videos(self) -> Sequence[Video]:
        """Return the data set's videos; see `Dataset`."""
        look_up = [self.look_up] if optional(self.dataset, Dataset, "needs_look") else []
        return self.dataset.videos(*look_up)

    def divide(self, num_views: Sequence[int]) -> Any:
        """Return the `Split` of the videos; see `SplitRule`."""
        return self.rule(self.videos, num_views, *_official_parts(self.rule, self.dataset, self.videos))

    def views(self, part: str, epoch: int | None = None) -> list[VideoViews]:
        """Return the views of a part: all of them, or with an epoch those that the sampling draws for training."""
        draw = epoch if self.is_random else None
        key = part, draw, len(self.failed)
        if key not in self._cached_views:
            if len(self._cached_views) >= MAX_CACHED:
                self._cached_views.clear()
            self._cached_views[key] = [
                self._views_of(video, views, draw) for video, views in self.split.views_of(part) if video in self.facts
            ]
        return self._cached_views[key]

    def all_views(self) -> list[VideoViews]:
        """Return all views of all undamaged videos, whatever their part."""
        return [self._views_of(video, range(self.split.num_views[video]), None) for video in sorted(self.facts)]

    def exclude(self, video: int, error: VideoError) -> None:
        """Exclude a damaged video from now on, or raise, as the data set's `on_error` says."""
        if optional(self.dataset, Dataset, "on_error") == "raise":
            raise error
        self.facts.pop(video, None)
        self.failed[video] = error

    def share_failed(self) -> None:
        """Exclude the videos that any process found damaged, because all processes must use the same videos."""
        for failed in gather(self.failed):
            for video, error in failed.items():
                self.exclude(video, error)

    def require(self, *parts: str, one_each: bool = False) -> None:
        """Raise VidclfError if a part has no readable video, or with `one_each` too few for the processes."""
        size = rank_and_size()[1]
        for part in parts:
            videos = [video for video, _ in self.split.views_of(part)]
            num_readable = sum(video in self.facts for video in videos)
            if not videos:
                raise VidclfError(f"The {part} part has no videos. Check dataset.root, dataset.classes, split.number.")
            if not num_readable:
                first = self.failed[min(self.failed.keys() & {*videos})]
                raise VidclfError(f"No video of the {part} part can be read, {len(videos)} failed. The first: {first}")
            if one_each and num_readable < size:
                raise VidclfError(
                    f"The {part} part has {num_readable} videos for {size} processes; each needs at least one. "
                    "Set trainer.devices to fewer."
                )

    def require_classes(self) -> None:
        """Raise VidclfError if there is only one class."""
        if len(self.class_names) < 2:
            names = ", ".join(self.class_names)
            raise VidclfError(f"The data set has one class, {names}: nothing to tell apart. Add a second one.")

    def require_for_training(self) -> None:
        """Raise VidclfError if there is only one class, or a process would have no video."""
        self.require_classes()
        self.require("train", "val", one_each=True)

    def _examine(self, positions: Sequence[int]) -> None:
        results = self.look_up([self.videos[video].path for video in positions])
        for video, result in zip(positions, results, strict=True):
            if isinstance(result, VideoError):
                self.exclude(video, result)
            elif error := _segment_error(self.videos[video], result):
                self.exclude(video, error)
            else:
                self.facts[video] = result

    def _sample(self, video: int, generator: Generator | None = None) -> Int[Tensor, "V T"]:
        """Return the frames that the sampling takes from a video or its segment, counted in the whole video."""
        info = self.facts[video].info
        first, num_frames = window_of(self.videos[video], self.facts[video])
        return info.frames_at(first + self.sampling(num_frames, info.fps, generator))

    def _views_of(self, video: int, numbers: Sequence[int], draw: int | None) -> VideoViews:
        if draw is not None:
            frames = self._sample(video, generator_for(self.seed, "sampling", draw, video))
            views: Int[Tensor, " V"] = torch.arange(len(frames))
        else:
            views = torch.tensor(numbers, dtype=torch.int64)
            frames = self._sample(video)[views]
        return VideoViews(video, self.videos[video].label, views, frames)


def window_of(video: Video, facts: VideoFacts) -> tuple[int, int]:
    """Return the first frame of a video's segment on the even time line, and its number of frames, at least one."""
    num_frames, fps = facts.info.num_frames, facts.info.fps
    first = 0 if video.start_s is None else min(round(video.start_s * fps), num_frames - 1)
    stop = num_frames if video.end_s is None else min(round(video.end_s * fps), num_frames)
    return first, max(1, stop - first)


def _segment_error(video: Video, facts: VideoFacts) -> VideoError | None:
    """Return the error of a segment that is not inside its video."""
    duration_s = facts.info.num_frames / facts.info.fps
    if (video.start_s or 0) < duration_s and (video.end_s or 0) <= duration_s + SLACK_S:
        return None
    return VideoError(
        f"{video.name}: its segment ends beyond the video, which is {duration_s:.2f} s long. Correct start_s and "
        "end_s, or pass dataset.on_error=skip."
    )


def name_videos(videos: Sequence[Video], root: str | Path | None) -> list[Video]:
    """Return the videos; where the data set gave no name, it is the path below `root`."""
    if root is not None:
        videos = [_name_below(video, Path(root).expanduser()) for video in videos]
    if names := repeated(video.name for video in videos):
        paths = [str(video.path) for video in videos if video.name == names[0]]
        raise VidclfError(
            f"{len(names)} name(s) belong to several videos: {first_five(names)} (the first: {first_five(paths)}). "
            "Give unique names with Video(name=...), or the data set a `root`."
        )
    return list(videos)


def _name_below(video: Video, root: Path) -> Video:
    path = video.path.as_posix()
    if not video.name.startswith(path) or not video.path.is_relative_to(root):
        return video
    return replace(video, name=video.path.relative_to(root).as_posix() + video.name.removeprefix(path))


def _check_split_fits(split: SplitRule, sampling: Sampling) -> None:
    """Raise if a split puts single views into parts and the sampling draws views at random."""
    if optional(split, SplitRule, "per_view") and optional(sampling, Sampling, "random"):
        raise VidclfError(
            f"split.validation=frame_level puts single views into parts, but {type(sampling).__name__} draws its "
            "training views at random. Use sampling=rate or sampling=uniform."
        )


def _official_parts(split: SplitRule, dataset: Dataset, videos: Sequence[Video]) -> list[OfficialParts]:
    """Return the additional arguments of an official split: [OfficialParts]; [] for all other splits."""
    if not optional(split, SplitRule, "official"):
        return []
    name, numbers = type(dataset).__name__, optional(dataset, Dataset, "split_numbers")
    official_parts = optional(dataset, Dataset, "official_parts")
    if not numbers or official_parts is None:
        raise VidclfError(
            f"split=official: {name} has no official split. Choose split=grouped (draws whole groups for val and "
            "test), split=kfold (cross-validation), or split=given (a manifest's column split, folders train and test)."
        )
    number = optional(split, SplitRule, "number")
    if number not in numbers:
        raise VidclfError(f"split.number={number}: {name} has only split {', '.join(map(str, numbers))}.")
    return [official_parts(videos, number, optional(split, SplitRule, "lists"))]

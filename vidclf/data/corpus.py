"""The videos of a data set, looked at, split and sampled: which frames of which video a part of the data shows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from vidclf.contracts import Dataset, OfficialParts, Sampling, SplitRule, Video, VideoViews, optional
from vidclf.data.catalogue import Catalogue, VideoFacts
from vidclf.errors import VidclfError, VideoError
from vidclf.system.ranks import gather, rank_and_size
from vidclf.system.seeds import generator_for
from vidclf.system.text import first_five

KEPT = 16  # lists of views that are not drawn anew when they are asked for again
LATE_S = 0.1  # that a segment may end after its video's last frame: a container's length counts its sound


class Corpus:
    """What is known of a data set before a frame is used.

    Args:
        dataset: lists the videos.
        split: (videos, number of views of each) -> Split, see `SplitRule`.
        sampling: (num_frames, fps, generator) -> frame indices (V, T).
        catalogue: what one look at a file says.
        seed: of the training draws.
        num_threads: files looked at at once.
        shard: (k, n): only the k-th of n parts of the videos is looked at and has views, k from 1 on.

    Attributes:
        videos: all of them, each with a name of its own.
        facts: by position in `videos`, of those that are sound.
        failed: by position in `videos`, what is wrong with those that are left out.
        split: which part each view is in.

    Raises:
        VidclfError: two videos have one name, or the split refuses the videos.
        VideoError: a video is damaged, and the data set's `on_error` is raise.
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
        self.dataset, self.sampling, self.seed = dataset, sampling, seed
        self.class_names, self.is_random = list(dataset.class_names), bool(optional(sampling, Sampling, "random"))
        self.videos = name_videos(dataset.videos(), optional(dataset, Dataset, "root"))
        _check_split_fits(split, sampling)
        official = _official_parts(split, dataset, self.videos)
        self.facts: dict[int, VideoFacts] = {}
        self.failed: dict[int, VideoError] = {}
        self._look(catalogue, range(shard[0] - 1, len(self.videos), shard[1]), num_threads)
        self.split = split(self.videos, [self._num_views(video) for video in range(len(self.videos))], *official)
        self._kept: dict[object, list[VideoViews]] = {}

    def views(self, part: str, epoch: int | None = None) -> list[VideoViews]:
        """Return the views of a part that are used: all of them, or in a training epoch what chance gives."""
        draw = epoch if self.is_random else None
        key = part, draw, len(self.failed)
        if key not in self._kept:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            known = [(video, own) for video, own in self.split.views_of(part) if video in self.facts]
            self._kept[key] = [self._views_of(video, own, draw) for video, own in known]
        return self._kept[key]

    def all_views(self) -> list[VideoViews]:
        """Return all views of all sound videos, whichever side they stand on."""
        return [self._views_of(video, range(self.split.num_views[video]), None) for video in sorted(self.facts)]

    def part_size(self, part: str) -> int:
        """Return the number of videos with a view in a part, damaged ones included."""
        return len(self.split.views_of(part))

    def exclude(self, video: int, error: VideoError) -> None:
        """Leave a damaged video out of all that follows, or raise, as the data set's `on_error` says."""
        if optional(self.dataset, Dataset, "on_error") == "raise":
            raise error
        self.facts.pop(video, None)
        self.failed[video] = error

    def share_failed(self) -> None:
        """Leave out here, too, what another process found damaged: all must share the same videos."""
        for failed in gather(self.failed):
            for video, error in failed.items():
                self.exclude(video, error)

    def require(self, *parts: str, one_each: bool = False) -> None:
        """Raise VidclfError where a part has no video that can be read, or `one_each` for every process."""
        size = rank_and_size()[1]
        for part in parts:
            videos = [video for video, _ in self.split.views_of(part)]
            sound = [video for video in videos if video in self.facts]
            if not videos:
                raise VidclfError(f"The {part} part has no videos; check dataset.root, dataset.classes, split.number.")
            if not sound:
                first = self.failed[min(self.failed.keys() & {*videos})]
                raise VidclfError(f"No video of the {part} part can be read, {len(videos)} failed. The first: {first}")
            if one_each and len(sound) < size:
                raise VidclfError(
                    f"The {part} part has {len(sound)} videos for {size} processes, and each needs one of its own. "
                    "Set trainer.devices to fewer."
                )

    def require_for_training(self) -> None:
        """Raise VidclfError where there is nothing to tell apart, or a process would have no video of its own."""
        if len(self.class_names) < 2:
            raise VidclfError(f"The data set has one class, {self.class_names[0]}: nothing to tell apart.")
        self.require("train", "val", one_each=True)

    def _look(self, catalogue: Catalogue, looked_at: Sequence[int], num_threads: int) -> None:
        facts = catalogue.look_up([self.videos[video].path for video in looked_at], num_threads)
        for video, fact in zip(looked_at, facts, strict=True):
            if isinstance(fact, VideoError):
                self.exclude(video, fact)
            elif wrong := _why_not_inside(self.videos[video], fact):
                self.exclude(video, wrong)
            else:
                self.facts[video] = fact

    def _num_views(self, video: int) -> int:
        if video not in self.facts:
            return 1  # so that it counts in a part's size
        return len(self._sample(video))

    def _sample(self, video: int, generator: Generator | None = None) -> Int[Tensor, "V T"]:
        """Return which frames of the whole video the sampling takes of it, or of its segment."""
        info = self.facts[video].info
        first, num_frames = window_of(self.videos[video], self.facts[video])
        return info.frames_at(first + self.sampling(num_frames, info.fps, generator))

    def _views_of(self, video: int, own: Sequence[int], draw: int | None) -> VideoViews:
        if draw is not None:
            frames = self._sample(video, generator_for(self.seed, "sampling", draw, video))
            chosen: Int[Tensor, " V"] = torch.arange(len(frames))
        else:
            chosen = torch.tensor(own, dtype=torch.int64)
            frames = self._sample(video)[chosen]
        return VideoViews(video, self.videos[video].label, chosen, frames)


def window_of(video: Video, facts: VideoFacts) -> tuple[int, int]:
    """Return where a video's segment begins on its even time line, in frames, and how many it has, at least one."""
    num_frames, fps = facts.info.num_frames, facts.info.fps
    first = 0 if video.start_s is None else min(round(video.start_s * fps), num_frames - 1)
    stop = num_frames if video.end_s is None else min(round(video.end_s * fps), num_frames)
    return first, max(1, stop - first)


def _why_not_inside(video: Video, facts: VideoFacts) -> VideoError | None:
    duration_s = facts.info.num_frames / facts.info.fps
    if (video.start_s or 0) < duration_s and (video.end_s or 0) <= duration_s + LATE_S:
        return None
    return VideoError(
        f"{video.name}: its segment ends beyond the video, which is {duration_s:.2f} s long. Mend start_s and end_s, "
        "or pass dataset.on_error=skip to leave it out (it is listed and counted)."
    )


def name_videos(videos: Sequence[Video], root: str | Path | None) -> list[Video]:
    """Return the videos, those without a name of their own called by their path below `root`.

    Raises:
        VidclfError: two videos have one name.
    """
    if root is not None:
        videos = [_below(video, Path(root).expanduser()) for video in videos]
    of_name: dict[str, list[Video]] = {}
    for video in videos:
        of_name.setdefault(video.name, []).append(video)
    doubled = [name for name, found in of_name.items() if len(found) > 1]
    if doubled:
        paths = first_five([str(video.path) for video in of_name[doubled[0]]])
        raise VidclfError(
            f"{len(doubled)} name(s) stand for several videos: {first_five(doubled)} (the first: {paths}). Each needs "
            "a name of its own: the data set gives it as Video(name=...), or names the videos' folder as its `root`."
        )
    return list(videos)


def _below(video: Video, root: Path) -> Video:
    path = video.path.as_posix()
    if not video.name.startswith(path) or not video.path.is_relative_to(root):
        return video
    return replace(video, name=video.path.relative_to(root).as_posix() + video.name.removeprefix(path))


def _check_split_fits(split: SplitRule, sampling: Sampling) -> None:
    """Raise where a split puts views that are drawn by chance into parts."""
    if optional(split, SplitRule, "per_view") and optional(sampling, Sampling, "random"):
        raise VidclfError(
            f"split.validation=frame_level puts single views into a part, but {type(sampling).__name__} draws its "
            "training views by chance. Use sampling=rate or sampling=uniform."
        )


def _official_parts(split: SplitRule, dataset: Dataset, videos: Sequence[Video]) -> list[OfficialParts]:
    """Return the arguments that an official split is called with besides the videos; none for other splits.

    Raises:
        VidclfError: the data set has no such split, or does not say which part its videos have in it.
    """
    if not optional(split, SplitRule, "official"):
        return []
    name, numbers = type(dataset).__name__, optional(dataset, Dataset, "split_numbers")
    if not numbers:
        raise VidclfError(
            f"split=official: {name} has no official split. Choose split=grouped (whole groups are drawn for val and "
            "test), split=kfold (cross-validation), or split=given (a manifest's column split)."
        )
    number = optional(split, SplitRule, "number")
    if number not in numbers:
        raise VidclfError(f"split.number={number}: {name} has split {', '.join(map(str, numbers))} only.")
    official_parts = optional(dataset, Dataset, "official_parts")
    if official_parts is None:
        raise VidclfError(
            f"split=official: {name} has split_numbers, and no method official_parts that says which part each video "
            "has in them; see Dataset in vidclf/contracts.py."
        )
    return [official_parts(videos, number, optional(split, SplitRule, "lists"))]

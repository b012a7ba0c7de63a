"""Which part every view is in, and the checks that a split has to pass."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vidclf.contracts import PARTS, Video
from vidclf.errors import VidclfError
from vidclf.system.terminal import say
from vidclf.system.text import first_five, plural


@dataclass(frozen=True)
class Split:
    """The part of every view: the part of its video, except the `val_views` of train videos.

    All sequences are in the order of the videos.

    Attributes:
        names: `<class>/<file>` of each video.
        parts: "train", "val" or "test" for each video.
        num_views: of each video.
        val_views: train video -> its views that are in val; empty unless validation is by frame.
        num_missing: number of videos that an official test list names and that are missing.
    """

    names: Sequence[str]
    parts: Sequence[str]
    num_views: Sequence[int]
    val_views: Mapping[int, frozenset[int]] = field(default_factory=dict)
    num_missing: int = 0

    def views_of(self, part: str) -> list[tuple[int, list[int]]]:
        """Return (video, its views) of `part`, in order, without videos that have no view in it."""
        if part not in PARTS:
            raise VidclfError(f"{part} is not a part of a split; allowed are {', '.join(PARTS)}.")
        all_views = [(video, self._views(video, part)) for video in range(len(self.names))]
        return [(video, views) for video, views in all_views if views]

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of all names and parts.

        The order of the videos does not change it; their numbers of views do so only if validation is by frame.
        """
        rows = [
            f"{name}\t{part}\t{sorted(self.val_views.get(video, ()))}\n"
            for video, (name, part) in enumerate(zip(self.names, self.parts, strict=True))
        ]
        return hashlib.sha256("".join(sorted(rows)).encode("utf-8", "surrogateescape")).hexdigest()

    def rows(self) -> list[tuple[str, str]]:
        """Return (name, part) of every video, `train+val` if its views are in both."""
        used = ["+".join(part for part in PARTS if self._views(video, part)) for video in range(len(self.names))]
        return [(name, parts or part) for name, parts, part in zip(self.names, used, self.parts, strict=True)]

    def _views(self, video: int, part: str) -> list[int]:
        val = self.val_views.get(video, frozenset())
        if part == self.parts[video]:
            return [view for view in range(self.num_views[video]) if view not in val]
        return sorted(val) if part == "val" else []


def checked_split(
    videos: Sequence[Video],
    parts: Sequence[str],
    num_views: Sequence[int],
    val_views: Mapping[int, frozenset[int]] | None = None,
    num_missing: int = 0,
    required: Sequence[str] = ("train", "val"),
) -> Split:
    """Return the split; raise VidclfError if a class has no view in one of the `required` parts."""
    split = Split([video.name for video in videos], parts, list(num_views), val_views or {}, num_missing)
    for part in required:
        labels = {videos[video].label for video, _ in split.views_of(part)}
        absent = [name for label, name in class_names(videos).items() if label not in labels]
        if absent:
            raise VidclfError(
                f"{len(absent)} class(es) have no {part} video: {first_five(absent)}. Add videos, change "
                "split.seed or the fractions of the split, or choose other dataset.classes."
            )
    return split


def check_groups_are_whole(videos: Sequence[Video], parts: Sequence[str]) -> None:
    """Raise if videos of one unit, (class, group) or shared group, are in two parts."""
    for group, name, (first, second, *_) in crossing_groups(videos, parts):
        raise VidclfError(
            f"Group {group} of {name} is in both {first} and {second}. Its clips are not independent (same source "
            "video, person or place), so the score would be too high. Correct the lists."
        )


def crossing_groups(videos: Sequence[Video], parts: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """Return (group, its class or "all classes", its parts) of each group that is in two parts or more."""
    units: dict[tuple[int, str], dict[str, Video]] = {}
    for video, part in zip(videos, parts, strict=True):
        if part in PARTS:  # official lists may leave videos unused
            units.setdefault(video.unit, {}).setdefault(part, video)
    return [
        (group, "all classes" if label < 0 else _class_name(next(iter(parts_of.values()))), list(parts_of))
        for (label, group), parts_of in units.items()
        if len(parts_of) > 1
    ]


def say_fractions(videos: Sequence[Video], parts: Sequence[str]) -> None:
    """Report how many videos and groups each part has, and its share of the classes."""
    totals = Counter(video.label for video in videos)
    texts = []
    for part in PARTS:
        chosen = [video for video, part_of_video in zip(videos, parts, strict=True) if part_of_video == part]
        counts = Counter(video.label for video in chosen)
        shares = [counts[label] / total for label, total in totals.items()]
        size = f"{plural(len(chosen), 'video')} of {plural(len({video.unit for video in chosen}), 'group')}"
        texts.append(
            f"{part} {len(chosen) / len(videos):.0%} ({size}, {min(shares):.0%} to {max(shares):.0%} of a class)"
        )
    say(f"Split: {', '.join(texts)}.")


def groups_per_class(videos: Sequence[Video], parts: Sequence[str], part: str) -> float:
    """Return how many groups of a part a class has, the mean over the classes."""
    in_part = [video for video, part_of_video in zip(videos, parts, strict=True) if part_of_video == part]
    num_classes = len({video.label for video in videos})
    return len({(video.label, video.group) for video in in_part}) / num_classes


def class_names(videos: Sequence[Video]) -> dict[int, str]:
    """Return the name of each label, for messages."""
    return {video.label: _class_name(video) for video in videos}


def _class_name(video: Video) -> str:
    return video.class_name or video.name.partition("/")[0]

"""Find what is wrong with a data set: damaged files, leaks between the parts of its split, and shortcuts."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.audit.agreement import agreement_sentences
from vidclf.audit.containers import Container, describe
from vidclf.audit.lookalikes import Pair, Unit, choose_frames, find_pairs, join_units
from vidclf.audit.shortcuts import LabelledVideos, Shortcut, measure_containers, measure_one_frame
from vidclf.contracts import Dataset, Source, Video, VideoViews, optional
from vidclf.data.corpus import Corpus, window_of
from vidclf.data.decoding import errors_name_video
from vidclf.data.listing import DatasetError
from vidclf.data.prefetch import run_ahead
from vidclf.data.splits import Split
from vidclf.errors import VidclfError, VideoError
from vidclf.models.backbones.wrap import picture_format_of
from vidclf.system.terminal import track
from vidclf.system.text import first_five

SLICE = 200  # videos whose features are read at once
MAX_IMBALANCE = 3  # times as many videos in the largest class as in the smallest


class CheckedCorpus(Corpus):
    """A corpus that collects what would end a training in `problems`, so that everything else can be examined.

    Videos that cannot be divided into parts are in none.
    """

    def list_videos(self) -> Sequence[Video]:
        self.problems: list[str] = []
        try:
            videos = super().list_videos()
        except DatasetError as error:
            self.problems += error.problems
            videos = error.videos
        if not videos:
            raise VidclfError(" ".join(["The data set has no videos.", *self.problems]))
        if len(self.class_names) == 1:
            self.problems.append(f"There is one class, {self.class_names[0]}: nothing to tell apart. Add a second one.")
        return videos

    def divide(self, num_views: Sequence[int]) -> Split:
        self.is_divided = True
        try:
            return super().divide(num_views)
        except VidclfError as error:
            self.is_divided = False
            self.problems.append(f"The videos cannot be split: {error}")
            return Split([video.name for video in self.videos], ["unused"] * len(self.videos), num_views)


@dataclass(frozen=True)
class Findings:
    """The findings of `vidclf check`.

    Attributes:
        corpus: of the data.
        containers: by position in the list of videos; damaged videos have none.
        copies: positions of videos with identical files, two or more each.
        pairs: look-alikes in different groups that are not copies; overlapping segments have closeness 1. Background
            is not compared.
        joined: groups that copies and pairs connect, two or more each; they are probably one group. Videos of different
            classes connect groups only if that is wanted, because a chain of them soon holds half the data.
        shortcuts: through the `container`, and through the features of `one_frame` (not for clip backbones); empty if
            nothing can be fitted, or test has few groups.
        agreement: a sentence on two coders of the same videos; empty for one coder.
    """

    corpus: CheckedCorpus
    containers: Mapping[int, Container]
    copies: Sequence[Sequence[int]]
    pairs: Sequence[Pair]
    joined: Sequence[Sequence[Unit]]
    shortcuts: Mapping[str, Shortcut]
    agreement: Sequence[str]

    @property
    def crossing_copies(self) -> list[Sequence[int]]:
        """Return the copies that are in several parts of the split."""
        parts = self.corpus.split.parts
        return [videos for videos in self.copies if len({parts[video] for video in videos}) > 1]

    @property
    def crossing_pairs(self) -> list[Pair]:
        """Return the look-alikes that are in two parts of the split."""
        parts = self.corpus.split.parts
        return [pair for pair in self.pairs if parts[pair.first] != parts[pair.second]]

    @property
    def num_leaks(self) -> int:
        """Return the number of copies and pairs that cross parts, and of videos with frames in both train and val."""
        return len(self.crossing_copies) + len(self.crossing_pairs) + len(self.corpus.split.val_views)

    @property
    def problems(self) -> list[str]:
        """Sentences, the most serious problem first."""
        return [*self.corpus.problems, *_leaks(self), *_imbalances(self), *_shortcuts(self)]


def find_problems(
    corpus: CheckedCorpus,
    source: Source,
    backbone: nn.Module,
    at_least: float,
    num_threads: int,
    join_classes: bool = False,
) -> Findings:
    """Compare the videos of a corpus by their features, read their containers, and measure shortcuts.

    Look-alikes have a closeness of `at_least`. Damaged videos are skipped. With `join_classes`, look-alikes of
    different classes join their groups, too.
    """
    views = corpus.all_views()
    source.prepare(views)
    readable = [video for video in views if video.video in corpus.facts]
    videos, features = _features_of(source, backbone, readable, corpus.videos)
    containers = _read_containers(corpus, num_threads)
    rows = [row for row, video in enumerate(videos) if video in containers]
    if len(rows) < len(videos):
        videos, features = [videos[row] for row in rows], features[:, rows]
    units = [video.unit for video in corpus.videos]
    copies, overlapping = _same_frames(corpus, containers)
    original = {video: same[0] for same in copies for video in same}
    background = optional(corpus.dataset, Dataset, "background")
    no_label = corpus.class_names.index(background) if background in corpus.class_names else None
    lookalikes = _lookalikes({video: corpus.videos[video] for video in videos}, features, at_least, no_label)
    pairs = [Pair(*pair, 1.0) for pair in sorted(overlapping) if units[pair[0]] != units[pair[1]]]
    pairs += [
        pair
        for pair in lookalikes
        if pair[:2] not in overlapping and original.get(pair.first, -1) != original.get(pair.second, -2)
    ]
    connected = [*original.items(), *(pair[:2] for pair in pairs)]
    if not join_classes:
        connected = [pair for pair in connected if len({corpus.videos[video].label for video in pair}) == 1]
    joined = join_units(units, connected)
    takes_clips = picture_format_of(backbone).clip_length > 1
    shortcuts = _measure_shortcuts(corpus, containers, videos, features, takes_clips)
    return Findings(corpus, containers, copies, pairs, joined, shortcuts, agreement_sentences(corpus))


def _lookalikes(
    videos: Mapping[int, Video], features: Float[Tensor, "crops M F D"], at_least: float, background: int | None
) -> list[Pair]:
    """Return the pairs of alike videos, by position; those of the background, which looks the same, are left out."""
    rows = [row for row, video in enumerate(videos.values()) if video.label != background]
    compared = [position for position, video in videos.items() if video.label != background]
    units, labels = ([getattr(videos[position], key) for position in compared] for key in ("unit", "label"))
    similar = find_pairs(features[:, rows], units, labels, at_least)
    return [Pair(compared[pair.first], compared[pair.second], pair.closeness) for pair in similar]


def _features_of(
    source: Source, backbone: nn.Module, views: Sequence[VideoViews], listed: Sequence[Video]
) -> tuple[list[int], Float[Tensor, "crops M F D"]]:
    """Return the videos that can be read, and a few features of each; `listed` are all videos."""
    num_views = {video.video: len(video.views) for video in views}
    videos, table = list[int](), torch.empty(1, 0, 1, 1)
    with torch.no_grad():
        for batch in chain.from_iterable(source.scoring_batches(some) for some in _slices(views)):
            video = int(batch.video[0])
            if video < 0:  # padding
                continue
            features = backbone(batch.inputs) if batch.inputs.ndim == 5 else batch.inputs  # images, or features
            if not features.isfinite().all():
                raise VidclfError(
                    f"{listed[video].name}: its features are not all finite numbers. Look at the file and at the "
                    "weights, or choose another backbone=..."
                )
            chosen = choose_frames(features.cpu(), num_views[video], len(views))
            if not videos:
                table = chosen.new_empty(len(chosen), len(views), *chosen.shape[1:])
            table[:, len(videos)] = chosen
            videos.append(video)
    return videos, table[:, : len(videos)]


def _slices(views: Sequence[VideoViews]) -> Iterator[Sequence[VideoViews]]:
    """Yield the views in slices, of which all features fit into memory."""
    for start in range(0, len(views), SLICE):
        yield views[start : start + SLICE]


def _read_containers(corpus: Corpus, num_threads: int) -> dict[int, Container]:
    """Return the container of each readable video; a file that holds several is opened once."""
    videos_of: dict[Path, list[int]] = defaultdict(list)
    for video in sorted(corpus.facts):
        videos_of[corpus.videos[video].path].append(video)

    def read(path: Path) -> Iterator[Container | VideoError]:
        info = corpus.facts[videos_of[path][0]].info
        try:
            with errors_name_video(path):
                yield describe(path, info.num_frames / info.fps)
        except VideoError as error:  # the file was removed meanwhile
            yield error

    containers: dict[int, Container] = {}
    results = run_ahead(read, list(videos_of), num_threads)
    for path, result in track(results, len(videos_of), "Reading the containers of", "files"):
        for video in videos_of[path]:
            if isinstance(result, VideoError):
                corpus.exclude(video, result)
            else:
                containers[video] = result
    return dict(sorted(containers.items()))


def _same_frames(corpus: Corpus, readable: Mapping[int, Container]) -> tuple[list[list[int]], set[tuple[int, int]]]:
    """Return videos with the same frames of the same content, and pairs of videos with overlapping segments of it."""
    by_content: dict[str, dict[tuple[int, int], list[int]]] = defaultdict(lambda: defaultdict(list))
    for video in sorted(readable):
        facts = corpus.facts[video]
        by_content[facts.content][window_of(corpus.videos[video], facts)].append(video)
    copies = [videos for windows in by_content.values() for videos in windows.values() if len(videos) > 1]
    overlapping = set()
    for windows in by_content.values():
        in_order = sorted(windows.items())
        for place, ((start, length), firsts) in enumerate(in_order, start=1):
            for (later, _), seconds in islice(in_order, place, None):
                if later >= start + length:
                    break
                overlapping.add((min(firsts[0], seconds[0]), max(firsts[0], seconds[0])))
    return copies, overlapping


def _measure_shortcuts(
    corpus: Corpus,
    containers: Mapping[int, Container],
    positions: Sequence[int],
    features: Float[Tensor, "crops M F D"],
    takes_clips: bool,
) -> dict[str, Shortcut]:
    videos = [corpus.videos[position] for position in positions]
    parts = [corpus.split.parts[position] for position in positions]
    labelled = LabelledVideos([video.label for video in videos], parts, [video.unit for video in videos])
    if not labelled.can_be_measured:
        return {}
    facts: list[dict[str, float | str]] = []
    for position in positions:
        info, container = corpus.facts[position].info, containers[position]
        facts.append(
            {
                "rate": info.fps,
                "length": duration_s(corpus, position),
                "width": info.width,
                "height": info.height,
                "sound": float(container.has_sound),
                "bit rate": container.bit_rate,
                "codec": container.codec,
                "format": container.format,
            }
        )
    shortcuts = {"container": measure_containers(facts, labelled)}
    if not takes_clips:
        shortcuts["one_frame"] = measure_one_frame(features[0, :, features.shape[2] // 2].numpy(), labelled)
    return shortcuts


def duration_s(corpus: Corpus, video: int) -> float:
    """Return the duration of a readable video, or of its segment."""
    facts = corpus.facts[video]
    return window_of(corpus.videos[video], facts)[1] / facts.info.fps


def _leaks(findings: Findings) -> Iterator[str]:
    """Yield sentences on files: damaged ones, and those that are in several parts or classes."""
    corpus = findings.corpus
    names = [video.name for video in corpus.videos]
    if corpus.failed:
        failed = [names[video] for video in sorted(corpus.failed)]
        yield f"{len(failed)} of {len(names)} videos cannot be read: {first_five(failed)}."
    if corpus.split.val_views:
        yield (
            "split.validation=frame_level: frames of one video are in both train and val, so validation measures how "
            "well train videos are recognised again. Choose a model with split.validation=group."
        )
    if copies := [" = ".join(names[video] for video in videos) for videos in findings.crossing_copies]:
        yield f"{len(copies)} file(s) are in several parts of the split under different names: {first_five(copies)}."
    if pairs := [f"{names[pair.first]} ~ {names[pair.second]}" for pair in findings.crossing_pairs]:
        is_of_windows = optional(corpus.dataset, Dataset, "timelines") is not None
        how = "dataset.group, or the column group" if is_of_windows else "out=... writes a table that does"
        yield (
            f"{len(pairs)} pair(s) of videos in different parts of the split look alike: {first_five(pairs)}. See the "
            f"page; if they show one scene, give them one group ({how})."
        )
    ambiguous = [videos for videos in findings.copies if len({corpus.videos[video].label for video in videos}) > 1]
    if ambiguous:
        copies = [" = ".join(names[video] for video in videos) for videos in ambiguous]
        yield f"{len(copies)} file(s) have several labels: {first_five(copies)}."
    if num_harmless := len(findings.copies) - len(findings.crossing_copies):
        yield f"{num_harmless} file(s) are present more than once within one part of the split."


def _imbalances(findings: Findings) -> Iterator[str]:
    """Yield a sentence if the classes have unequal sizes."""
    corpus = findings.corpus
    counts = Counter(video.label for video in corpus.videos).most_common()
    (largest, most), (smallest, fewest) = counts[0], counts[-1]
    if most > MAX_IMBALANCE * fewest:
        yield (
            f"The classes are unequal: {corpus.class_names[largest]} has {most} videos, "
            f"{corpus.class_names[smallest]} {fewest}. Read mean class accuracy beside top-1; loss=... may weight "
            "classes."
        )


def _shortcuts(findings: Findings) -> Iterator[str]:
    """Yield a sentence if the containers give the class away."""
    shortcut = findings.shortcuts.get("container")
    if shortcut and shortcut.is_significant:
        used = ", ".join(f"{fact} {share:.0%}" for fact, share in shortcut.used[:3])
        yield (
            f"Files give away their class without their frames: a small decision tree classifies {shortcut.top1:.0%} "
            f"of the test videos correctly (95 % interval {shortcut.low:.0%} to {shortcut.high:.0%}; the most frequent "
            f"class is {shortcut.majority:.0%}), using {used}. A network may learn the camera, not the class: encode "
            "all classes alike, or report this beside the score."
        )

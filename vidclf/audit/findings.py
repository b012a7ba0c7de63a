"""What is in a data set, what is wrong with it, and what could cheat."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.audit.containers import Container, describe
from vidclf.audit.lookalikes import Pair, Unit, choose_frames, find_pairs, join_units
from vidclf.audit.shortcuts import Shortcut, Videos, measure_containers, measure_one_frame
from vidclf.contracts import Source, Video, VideoViews
from vidclf.data.corpus import Corpus, window_of
from vidclf.data.decoding import errors_name_video
from vidclf.data.prefetch import run_ahead
from vidclf.errors import VidclfError, VideoError
from vidclf.models.backbones.wrap import picture_format_of
from vidclf.system.terminal import track
from vidclf.system.text import first_five

IMBALANCED = 3  # times as many videos in the largest class as in the smallest


@dataclass(frozen=True)
class Findings:
    """A data set, looked through.

    Attributes:
        corpus: the videos, what decoding them has shown, and the split.
        containers: by position in the list of videos, of those that are sound.
        copies: positions of videos whose files are the same to the last byte, two or more each.
        pairs: videos of different groups that look alike, and are no copies; segments that overlap are of closeness 1.
        joined: groups that copies and pairs tie together, two or more each: one group, as it seems.
        container: what a file says without its images; None where nothing is fitted, or test has few groups.
        one_frame: what the features of a single frame say; None likewise.
    """

    corpus: Corpus
    containers: Mapping[int, Container]
    copies: Sequence[Sequence[int]]
    pairs: Sequence[Pair]
    joined: Sequence[Sequence[Unit]]
    container: Shortcut | None
    one_frame: Shortcut | None

    @property
    def torn_copies(self) -> list[Sequence[int]]:
        """The copies that stand on two sides of the split."""
        return [same for same in self.copies if len({self.corpus.split.parts[video] for video in same}) > 1]

    @property
    def torn_pairs(self) -> list[Pair]:
        """The look-alikes that stand on two sides of the split."""
        sides = self.corpus.split.parts
        return [pair for pair in self.pairs if sides[pair.video] != sides[pair.other]]

    @property
    def shortcuts(self) -> dict[str, Shortcut | None]:
        """What was measured without images, or by one of them, by name."""
        return {"container": self.container, "one_frame": self.one_frame}

    @property
    def num_leaks(self) -> int:
        """Copies and pairs on two sides, and videos whose single frames stand on two."""
        return len(self.torn_copies) + len(self.torn_pairs) + len(self.corpus.split.val_views)

    @property
    def problems(self) -> list[str]:
        """Sentences, the gravest first."""
        return list(_problems(self))

    def duration_s(self, video: int) -> float:
        """Return how long a sound video, or its segment, is."""
        return _duration_s(self.corpus, video)


def find_problems(corpus: Corpus, source: Source, backbone: nn.Module, at_least: float, num_threads: int) -> Findings:
    """Compare the videos of a corpus, which has decoded all files before, and look at their containers.

    Args:
        corpus: of which damaged videos are left out.
        source: of features by `backbone`, or of its images.
        backbone: computes them.
        at_least: how close look-alikes are.
        num_threads: files read at once.
    """
    views = corpus.all_views()
    source.prepare(views)
    videos, features = _features_of(
        source, backbone, [one for one in views if one.video in corpus.facts], corpus.videos
    )
    containers = _read_containers(corpus, num_threads)
    known = [row for row, video in enumerate(videos) if video in containers]
    videos, features = [videos[row] for row in known], features[:, known]
    units = [video.unit for video in corpus.videos]
    copies, overlapping = _same_frames(corpus, containers)
    copied = {pair for same in copies for pair in combinations(sorted(same), 2)}
    labels = [corpus.videos[video].label for video in videos]
    of_clips = picture_format_of(backbone).clip_length > 1
    found = find_pairs(features, [units[video] for video in videos], labels, at_least)
    pairs = [Pair(videos[pair.video], videos[pair.other], pair.closeness) for pair in found]
    pairs = [Pair(*pair, 1.0) for pair in overlapping if units[pair[0]] != units[pair[1]]] + [
        pair for pair in pairs if pair[:2] not in copied | {*overlapping}
    ]
    joined = join_units(units, [*copied, *(pair[:2] for pair in pairs)])
    return Findings(
        corpus, containers, copies, pairs, joined, *_shortcuts(corpus, containers, videos, features, of_clips)
    )


def _features_of(
    source: Source, backbone: nn.Module, views: Sequence[VideoViews], videos_of: Sequence[Video]
) -> tuple[list[int], Float[Tensor, "crops M F D"]]:
    """Return the videos that can be read, and a few features of each."""
    num_views = {one.video: len(one.views) for one in views}
    videos, rows = list[int](), list[Tensor]()
    with torch.no_grad():
        for batch in source.scoring_batches(views):
            video = int(batch.video[0])
            inputs = backbone(batch.inputs) if batch.inputs.ndim == 5 else batch.inputs  # images, or features
            if not inputs.isfinite().all():
                raise VidclfError(
                    f"{videos_of[video].name}: its features are not all finite numbers. Look at the file and at the "
                    "weights, or choose another backbone=..."
                )
            videos.append(video)
            rows.append(choose_frames(inputs.cpu(), num_views[video]))
    return videos, torch.stack(rows, dim=1) if rows else torch.empty(1, 0, 1, 1)


def _read_containers(corpus: Corpus, num_threads: int) -> dict[int, Container]:
    sound = sorted(corpus.facts)

    def look(video: int) -> Iterator[Container | VideoError]:
        path, info = corpus.videos[video].path, corpus.facts[video].info
        try:
            with errors_name_video(path):
                yield describe(path, info.num_frames / info.fps)
        except VideoError as error:  # it has gone meanwhile
            yield error

    containers: dict[int, Container] = {}
    for video, found in track(run_ahead(look, sound, num_threads), len(sound), "Reading the containers of", "videos"):
        if isinstance(found, VideoError):
            corpus.exclude(video, found)
        else:
            containers[video] = found
    return containers


def _same_frames(corpus: Corpus, sound: Mapping[int, Container]) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Return videos that are the same frames of the same content, and pairs whose segments of it overlap."""
    by_content: dict[str, dict[tuple[int, int], list[int]]] = defaultdict(lambda: defaultdict(list))
    for video in sorted(sound):
        facts = corpus.facts[video]
        by_content[facts.content][window_of(corpus.videos[video], facts)].append(video)
    copies = [same for windows in by_content.values() for same in windows.values() if len(same) > 1]
    overlapping = [
        (min(one[0], other[0]), max(one[0], other[0]))
        for windows in by_content.values()
        for (a, one), (b, other) in combinations(windows.items(), 2)
        if a[0] < b[0] + b[1] and b[0] < a[0] + a[1]
    ]
    return copies, overlapping


def _shortcuts(
    corpus: Corpus,
    containers: Mapping[int, Container],
    videos: Sequence[int],
    features: Float[Tensor, "crops M F D"],
    of_clips: bool,
) -> tuple[Shortcut | None, Shortcut | None]:
    known = [corpus.videos[video] for video in videos]
    sides = [corpus.split.parts[video] for video in videos]
    told = Videos([video.label for video in known], sides, [video.unit for video in known])
    if not told.can_be_measured:
        return None, None
    facts: list[dict[str, float | str]] = []
    for video in videos:
        info, container = corpus.facts[video].info, containers[video]
        facts.append(
            {
                "rate": info.fps,
                "length": _duration_s(corpus, video),
                "width": info.width,
                "height": info.height,
                "sound": float(container.has_sound),
                "bit rate": container.bit_rate,
                "codec": container.codec,
                "format": container.format,
            }
        )
    middle = features[0, :, features.shape[2] // 2].numpy()
    return measure_containers(facts, told), None if of_clips else measure_one_frame(middle, told)


def _duration_s(corpus: Corpus, video: int) -> float:
    facts = corpus.facts[video]
    return window_of(corpus.videos[video], facts)[1] / facts.info.fps


def _problems(checked: Findings) -> Iterator[str]:
    corpus = checked.corpus
    names = [video.name for video in corpus.videos]
    if corpus.failed:
        failed = [names[video] for video in sorted(corpus.failed)]
        yield f"{len(failed)} of {len(names)} videos cannot be read: {first_five(failed)}."
    if corpus.split.val_views:
        yield (
            "split.validation=frame_level: frames of one video stand on both sides of train and val, so validation "
            "measures how well train videos are recognised again. Choose a model with split.validation=group."
        )
    if checked.torn_copies:
        pairs = [" = ".join(names[video] for video in same) for same in checked.torn_copies]
        yield f"{len(pairs)} file(s) stand on two sides of the split under several names: {first_five(pairs)}."
    if checked.torn_pairs:
        pairs = [f"{names[pair.video]} ~ {names[pair.other]}" for pair in checked.torn_pairs]
        yield (
            f"{len(pairs)} pair(s) of videos on two sides of the split look alike: {first_five(pairs)}. Look at the "
            "page; if they show one scene, give them one group (out=... writes a table that does)."
        )
    labelled = [same for same in checked.copies if len({corpus.videos[video].label for video in same}) > 1]
    if labelled:
        pairs = [" = ".join(names[video] for video in same) for same in labelled]
        yield f"{len(pairs)} file(s) have several labels: {first_five(pairs)}."
    if left := len(checked.copies) - len(checked.torn_copies):
        yield f"{left} file(s) are there more than once, on one side of the split."
    counts = Counter(video.label for video in corpus.videos)
    (most, largest), (least, smallest) = counts.most_common()[0], counts.most_common()[-1]
    if largest > IMBALANCED * smallest:
        yield (
            f"The classes are unequal: {corpus.class_names[most]} has {largest} videos, {corpus.class_names[least]} "
            f"{smallest}. Look at mean class accuracy, not at top-1 alone; loss=... may weigh classes."
        )
    if checked.container and checked.container.is_one:
        told = ", ".join(f"{name} {share:.0%}" for name, share in checked.container.used[:3])
        yield (
            f"Files tell their class without their images: a small tree names {checked.container.top1:.0%} of the "
            f"test videos from {told} of its questions (95 % interval {checked.container.low:.0%} to "
            f"{checked.container.high:.0%}; the commonest class is {checked.container.majority:.0%}). A network may "
            "learn the camera, not the class: encode all classes alike, or say so beside the score."
        )

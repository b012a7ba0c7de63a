"""What is in a data set, what is wrong with it, and what could cheat: counted, and shown on one page."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vidclf.contracts import PARTS, VideoError, first_five
from vidclf.data.container import Container, describe
from vidclf.data.corpus import Corpus
from vidclf.data.decoding import naming_the_video
from vidclf.data.prefetch import run_ahead
from vidclf.evaluation.shortcuts import Shortcut, measure_shortcut
from vidclf.system.disk import write_atomically
from vidclf.system.terminal import printable, track

IMBALANCED = 3  # times as many videos in the largest class as in the smallest
FEWEST_GROUPS = 10  # of test: an interval over fewer says too little
MANY_SIZES = 8  # kinds of one property that are shown, the commonest


@dataclass(frozen=True)
class Checked:
    """A data set, looked through.

    Attributes:
        corpus: the videos, what decoding them has shown, and the split.
        containers: by position in the list of videos, of those that are sound.
        copies: positions of videos whose files are the same to the last byte, two or more each.
        shortcut: what a file says without its pictures; None where nothing is fitted, or test has few groups.
    """

    corpus: Corpus
    containers: Mapping[int, Container]
    copies: Sequence[Sequence[int]]
    shortcut: Shortcut | None

    @property
    def leaks(self) -> list[Sequence[int]]:
        """The copies that stand on two sides of the split."""
        return [same for same in self.copies if len({self.corpus.sides.sides[video] for video in same}) > 1]

    @property
    def problems(self) -> list[str]:
        """Sentences, the gravest first."""
        return list(_problems(self))

    def duration_s(self, video: int) -> float:
        """Return how long a sound video is."""
        info = self.corpus.facts[video].info
        return info.num_frames / info.fps


def check(corpus: Corpus, num_threads: int) -> Checked:
    """Look at the containers of a corpus, which has decoded all files before, and at what it has found."""
    sound = sorted(corpus.facts)
    duration_s = {video: facts.info.num_frames / facts.info.fps for video, facts in corpus.facts.items()}

    def look(video: int) -> Iterator[Container | VideoError]:
        path = corpus.videos[video].path
        try:
            with naming_the_video(path):
                yield describe(path, duration_s[video])
        except VideoError as error:  # it has gone meanwhile
            yield error

    containers: dict[int, Container] = {}
    for video, found in track(run_ahead(look, sound, num_threads), len(sound), "Reading the containers of", "videos"):
        if isinstance(found, VideoError):
            corpus.leave_out(video, found)
        else:
            containers[video] = found
    by_content: dict[tuple[str, object], list[int]] = defaultdict(list)
    for video in containers:
        segment = corpus.videos[video].start_s, corpus.videos[video].end_s
        by_content[corpus.facts[video].content, segment].append(video)
    copies = [same for same in by_content.values() if len(same) > 1]
    return Checked(corpus, containers, copies, _shortcut(corpus, containers))


def _shortcut(corpus: Corpus, containers: Mapping[int, Container]) -> Shortcut | None:
    videos = [corpus.videos[video] for video in containers]
    sides = [corpus.sides.sides[video] for video in containers]
    tested = {video.unit for video, side in zip(videos, sides, strict=True) if side == "test"}
    if len(tested) < FEWEST_GROUPS or not {"train", "val"} & {*sides}:
        return None
    facts: list[dict[str, float | str]] = []
    for video, container in containers.items():
        info = corpus.facts[video].info
        facts.append(
            {
                "rate": info.fps,
                "length": info.num_frames / info.fps,
                "width": info.width,
                "height": info.height,
                "sound": float(container.has_sound),
                "bit rate": container.bit_rate,
                "codec": container.codec,
                "format": container.format,
            }
        )
    return measure_shortcut(facts, [video.label for video in videos], sides, [video.unit for video in videos])


def _problems(checked: Checked) -> Iterator[str]:
    corpus = checked.corpus
    names = [video.name for video in corpus.videos]
    if corpus.failed:
        yield f"{len(corpus.failed)} of {len(names)} videos cannot be read: {first_five(_of(names, corpus.failed))}."
    if checked.leaks:
        pairs = [" = ".join(_of(names, same)) for same in checked.leaks]
        yield f"{len(pairs)} file(s) stand on two sides of the split under several names: {first_five(pairs)}."
    labelled = [same for same in checked.copies if len({corpus.videos[video].label for video in same}) > 1]
    if labelled:
        pairs = [" = ".join(_of(names, same)) for same in labelled]
        yield f"{len(pairs)} file(s) have several labels: {first_five(pairs)}."
    if left := len(checked.copies) - len(checked.leaks):
        yield f"{left} file(s) are there more than once, on one side of the split."
    counts = Counter(video.label for video in corpus.videos)
    (most, largest), (least, smallest) = counts.most_common()[0], counts.most_common()[-1]
    if largest > IMBALANCED * smallest:
        yield (
            f"The classes are unequal: {corpus.class_names[most]} has {largest} videos, {corpus.class_names[least]} "
            f"{smallest}. Look at mean class accuracy, not at top-1 alone; loss=... may weigh classes."
        )
    if checked.shortcut and checked.shortcut.is_one:
        told = ", ".join(f"{name} {share:.0%}" for name, share in checked.shortcut.used[:3])
        yield (
            f"Files tell their class without their pictures: a small tree names {checked.shortcut.top1:.0%} of the "
            f"test videos from {told} of its questions (95 % interval {checked.shortcut.low:.0%} to "
            f"{checked.shortcut.high:.0%}; the commonest class is {checked.shortcut.majority:.0%}). A network may "
            "learn the camera, not the class: encode all classes alike, or say so beside the score."
        )


def _of(names: Sequence[str], videos: Any) -> list[str]:
    return [names[video] for video in sorted(videos)]


def rows_of_classes(checked: Checked) -> list[dict[str, object]]:
    """Return for each class its numbers of videos and groups, on each side, and the lengths of its videos in s."""
    corpus, rows = checked.corpus, []
    for label, name in enumerate(corpus.class_names):
        own = [video for video, known in enumerate(corpus.videos) if known.label == label]
        lengths = [checked.duration_s(video) for video in own if video in corpus.facts] or [0.0]
        sides = Counter(corpus.sides.sides[video] for video in own)
        groups = {corpus.videos[video].unit for video in own}
        row: dict[str, object] = {"class": name, "videos": len(own), "groups": len(groups)}
        row |= {part: sides[part] for part in PARTS}
        row |= {"shortest": f"{min(lengths):.1f} s", "median": f"{median(lengths):.1f} s"}
        rows.append({**row, "longest": f"{max(lengths):.1f} s"})
    return rows


def rows_of_kinds(checked: Checked) -> list[dict[str, object]]:
    """Return how many videos of each class have which size, rate, codec, format and sound, the commonest first."""
    corpus = checked.corpus
    kinds: dict[str, Counter[str]] = {}
    of_class: Counter[tuple[str, str, int]] = Counter()
    for video, container in checked.containers.items():
        info, label = corpus.facts[video].info, corpus.videos[video].label
        seen = {
            "size": f"{info.width}x{info.height}",
            "frames a second": f"{info.fps:.5g}" + (", uneven" if info.shown_from else ""),
            "codec": container.codec,
            "format": container.format,
            "sound": "yes" if container.has_sound else "no",
        }
        for name, value in seen.items():
            kinds.setdefault(name, Counter())[value] += 1
            of_class[name, value, label] += 1
    return [
        {"": name, "value": value, "videos": count}
        | {known: of_class[name, value, label] for label, known in enumerate(corpus.class_names)}
        for name, counts in kinds.items()
        for value, count in counts.most_common(MANY_SIZES)
    ]


def write_page(path: Path, checked: Checked) -> None:
    """Write what was found into one HTML file that loads nothing and runs nothing, whatever names it holds."""
    corpus = checked.corpus
    names = [video.name for video in corpus.videos]
    copies = [
        [{"video": name, "side": corpus.sides.sides[video]} for video, name in zip(same, _of(names, same), strict=True)]
        for same in sorted(checked.copies, key=lambda same: same not in checked.leaks)
    ]
    environment = Environment(
        loader=PackageLoader("vidclf", "evaluation/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,  # not what is markup already
    )
    page = environment.get_template("check.html").render(
        title=f"{type(corpus.dataset).__name__} {getattr(corpus.dataset, 'root', '')}",
        num_videos=len(names),
        num_groups=len({video.unit for video in corpus.videos}),
        problems=checked.problems,
        classes=rows_of_classes(checked),
        kinds=rows_of_kinds(checked),
        shortcut=checked.shortcut,
        failed=[{"video": names[video], "reason": str(error)} for video, error in sorted(corpus.failed.items())],
        copies=copies,
    )
    write_atomically(path, page.encode())

"""Write a twin of UCF101 with its names, true frame counts and format, and images that cost little to make.

    python -m experiments.benchmark.twin size=10% root=data/twin-10

Clips are 320x240 XVID in AVI, about 2.7 kB a frame (UCF101: 7 GB over 2.48 million frames, 2.8). A clip's name decides
whether it has 25 or 29.97 fps, and two B-frames or a key frame every 12 frames. All clips of a kind begin with the same
images, a window that moves over a photograph: they are cut from one stream. Nothing can be learned from them.
"""

import csv
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import count, islice
from math import cos, sin
from pathlib import Path
from statistics import mean
from zlib import crc32

import av
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from PIL import Image
from sklearn.datasets import load_sample_images

from vidclf.errors import VidclfError
from vidclf.system.disk import require_space
from vidclf.system.terminal import track

SIZES = {"1%": 0.01, "10%": 0.1, "100%": 1.0}
NUM_CLIPS, NUM_CLASSES, NUM_GROUPS = 13320, 101, 25
GROUPS_A_CLASS = 7  # of a smaller twin: two test in split 1 and five train, so five folds can be made of them
GROUP_ORDER = (8, 1, 12, 16, 20, 24, 4)

# Fitted to frame_counts.csv by scipy.stats.lognorm.fit(counts, floc=0): mean 186.8 where the true one is 186.4,
# quartiles 118, 165 and 231 where they are 113, 167 and 244. The clips a group are counted in its names.
LOG_MEAN, LOG_STD = 5.1042, 0.4990
SHORTEST, LONGEST = 29, 1776
CLIPS_A_GROUP, THEIR_GROUPS = (4, 5, 6, 7), (1039, 438, 362, 686)

WIDTH, HEIGHT = 320, 240
BITS_A_FRAME = 8 * 2700
RATES = (Fraction(25), Fraction(30000, 1001))
KINDS = {"B-frame": {"max_b_frames": 2, "gop_size": 600}, "key-framed": {"max_b_frames": 0, "gop_size": 12}}


@dataclass(frozen=True)
class Clip:
    """A clip of the twin; `name` is `<class>/<file>`."""

    name: str
    num_frames: int

    @property
    def label(self) -> str:
        """The class."""
        return self.name.partition("/")[0]

    @property
    def group(self) -> str:
        """`<class>/v_<class>_gNN`."""
        return self.name.rpartition("_")[0]

    @property
    def kind(self) -> str:
        """One of KINDS, drawn by the name."""
        return list(KINDS)[crc32(self.name.encode()) % 2]

    @property
    def rate(self) -> Fraction:
        """Frames a second, drawn by the name."""
        return RATES[crc32(self.name.encode()) // 2 % 2]


@dataclass(frozen=True)
class Source:
    """The stream that clips of one kind are cut from; `packets` in decoding order."""

    container: InputContainer
    packets: list[Packet]


def write_twin(root: Path, share: float) -> Path:
    """Write the missing clips of the twin below `root`, each whole or not at all, and return `root`.

    Raises:
        VidclfError: `root` holds other clips than this twin's, or the disk is too small.
    """
    clips = choose(all_clips(), share)
    wanted = {root / clip.name: clip for clip in clips}
    others = {*root.glob("*/*.avi")} - {*wanted}
    if others:
        raise VidclfError(
            f"{root}: holds {len(others)} clips of another twin, such as {min(others)}; give another root=."
        )
    missing = {path: clip for path, clip in wanted.items() if not path.exists()}
    num_bytes = sum(clip.num_frames for clip in missing.values()) * BITS_A_FRAME // 8
    require_space(root, num_bytes, "Free space, or choose a smaller size=.")
    sources = {key: encode(*key) for key in sorted({(clip.kind, clip.rate) for clip in missing.values()})}
    for path, clip in track(missing.items(), len(missing), "Writing", "clips"):
        path.parent.mkdir(parents=True, exist_ok=True)
        cut(sources[clip.kind, clip.rate], clip, path)
    return root


@cache
def all_clips() -> list[Clip]:
    """Return UCF101's clips from ../shared/ucf101 (or $VIDCLF_SHARED), else about as many drawn ones."""
    counts = Path(os.environ.get("VIDCLF_SHARED", "../shared")) / "ucf101" / "frame_counts.csv"
    if not counts.is_file():
        print(f"{counts} is not there: names and frame counts are drawn, as distributed as UCF101's.", file=sys.stderr)
        return drawn_clips()
    with counts.open(newline="") as file:
        return [Clip(row["video"], int(row["num_frames"])) for row in csv.DictReader(file)]


def drawn_clips() -> list[Clip]:
    """Return clips of 101 classes of 25 groups of four to seven, their lengths drawn, the same every time."""
    random = np.random.default_rng(0)
    weights = np.array(THEIR_GROUPS) / sum(THEIR_GROUPS)
    num_clips = random.choice(CLIPS_A_GROUP, (NUM_CLASSES, NUM_GROUPS), p=weights)
    names = [
        f"Class{label + 1:03d}/v_Class{label + 1:03d}_g{group + 1:02d}_c{clip + 1:02d}.avi"
        for (label, group), count in np.ndenumerate(num_clips)
        for clip in range(count)
    ]
    counts = random.lognormal(LOG_MEAN, LOG_STD, len(names)).round().clip(SHORTEST, LONGEST).astype(int)
    return [Clip(name, count) for name, count in zip(names, counts.tolist(), strict=True)]


def choose(clips: list[Clip], share: float) -> list[Clip]:
    """Return about `share` of the clips: whole groups, the same number (or one more) of each chosen class.

    The classes are spread evenly over all classes sorted by their mean length, so that the clips are as long as all.
    """
    if share == 1:
        return clips
    groups: dict[str, dict[str, list[Clip]]] = {}
    lengths: dict[str, list[int]] = {}
    for clip in clips:
        groups.setdefault(clip.label, {}).setdefault(clip.group, []).append(clip)
        lengths.setdefault(clip.label, []).append(clip.num_frames)
    by_length = sorted(lengths, key=lambda label: mean(lengths[label]))
    num_classes = round(share * NUM_CLASSES * NUM_GROUPS / GROUPS_A_CLASS)
    classes = [by_length[int((index + 0.5) / num_classes * len(by_length))] for index in range(num_classes)]
    chosen: list[Clip] = []
    for number in GROUP_ORDER:
        for name in classes:
            if len(chosen) < share * len(clips):
                chosen += sorted(groups[name].items())[number - 1][1]
    return sorted(chosen, key=lambda clip: clip.name)


def encode(kind: str, rate: Fraction) -> Source:
    """Return a stream as long as the longest clip, the same bytes every time."""
    file = io.BytesIO()
    with av.open(file, "w", format="avi", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=rate)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context.thread_count, context.codec_tag = 1, "XVID"
        context.bit_rate = round(BITS_A_FRAME * rate)
        context.flags |= Flags.bitexact
        for name, value in KINDS[kind].items():
            setattr(context, name, value)
        for number, image in enumerate(islice(images(), LONGEST)):
            frame = VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    source = av.open(file, "r")
    return Source(source, [packet for packet in source.demux(video=0) if packet.size])


def images() -> Iterator[np.ndarray]:
    """Yield images (H, W, 3) uint8 without end: a window that wanders and zooms over scikit-learn's photograph."""
    photograph = Image.fromarray(load_sample_images().images[0])
    for number in count():
        width = 300 + 60 * sin(0.028 * number)
        height = width * HEIGHT / WIDTH
        left = (photograph.width - width) * (0.5 + 0.5 * sin(0.0124 * number))
        top = (photograph.height - height) * (0.5 + 0.5 * cos(0.0092 * number))
        box = (left, top, left + width, top + height)
        yield np.asarray(photograph.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box))


def cut(source: Source, clip: Clip, path: Path) -> None:
    """Write the first packets of `source` as a clip; the first N packets in decoding order decode to N frames.

    The file contains its name, so that no two files have the same bytes.
    """
    unfinished = path.with_name(f".{path.name}.part")
    with av.open(str(unfinished), "w", format="avi", container_options={"fflags": "+bitexact"}) as container:
        container.metadata["title"] = clip.name
        stream = container.add_stream_from_template(source.container.streams.video[0])
        for number, packet in enumerate(source.packets[: clip.num_frames]):
            packet.stream, packet.time_base = stream, 1 / clip.rate
            packet.dts, packet.pts, packet.duration = number, None, 1
            container.mux_one(packet)
    unfinished.replace(path)


def main() -> None:
    options = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    unknown = options.keys() - {"size", "root"}
    if unknown or options.get("size", "1%") not in SIZES:
        sys.exit(f"{' '.join(sys.argv[1:])}: give size={'|'.join(SIZES)} and root=FOLDER.")
    size = options.get("size", "1%")
    print(write_twin(Path(options.get("root", f"data/twin-{size.rstrip('%')}")), SIZES[size]))


if __name__ == "__main__":
    try:
        main()
    except VidclfError as error:
        sys.exit(str(error))

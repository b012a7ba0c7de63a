"""The clips of the demo: which digit moves how, in which class and group, and the files they become.

The members of a pair of classes show the same images in the opposite order. So that no single image betrays
the order, motion is periodic and begins anywhere in its period, and a clip has 25k + 1 frames, so that frames
0, 25, 50, ... are the same ones backwards.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from av.codec.context import Flags
from av.video.frame import PictureType
from jaxtyping import Float64, UInt8
from torch import Tensor

from vidclf.data.datasets.demo.drawing import cut_background, draw, handwriting

NUM_GROUPS = 25
TEST_GROUPS = range(1, 8)  # of split 1
CLIPS_PER_GROUP = 7  # as most of UCF101's groups have

DURATIONS_S = (2, 3)
FPS = 25
SIDE = 80  # pixels
QUANTISER = 3  # of 1 (best) .. 31
CYCLES_PER_FRAME = (1 / 60, 1 / 30)  # at most 60 degrees between the 16 frames of a `uniform` view of 3 s
OFF_CENTRE = 0.15  # at most, half the image being 1

SHOWN_DIGITS = {"ShowEight": 8, "ShowZero": 0}
# One for all groups: with several, a held-out group shows what was trained more often in the other class of its pair.
PAIR_DIGIT = 4  # unlike its own half turn
TEST_SAMPLES = slice(60)  # of a digit's about 180: handwriting that test groups alone show
OTHER_SAMPLES = slice(60, None)

Cycles = Float64[Tensor, " T"]  # how often the motion has come round, at each frame
Poses = Float64[Tensor, "T 4"]  # as `draw` takes them
Motion = Callable[[Cycles, float], Poses]


def slide(cycles: Cycles, place: float) -> Poses:
    """Return poses that move left and enter again on the right, at the height `place`."""
    return _poses(x=-2 * cycles, y=place, size=0.5, angle=0.0)


def spin(cycles: Cycles, place: float) -> Poses:
    """Return poses that turn clockwise, `place` off the middle."""
    return _poses(x=place, y=0.0, size=0.7, angle=2 * math.pi * cycles)


def zoom(cycles: Cycles, place: float) -> Poses:
    """Return poses that come nearer and begin again: small at the upper left, three times as large at the lower right.

    Growing on the spot was tried first: a recurrent head learned the backgrounds of its training groups by heart
    sooner than it learned to grow from shrinking (0.52 on the pair's test clips).
    """
    way = cycles % 1
    return _poses(x=1.2 * way - 0.6 + place, y=1.2 * way - 0.6, size=0.3 * 3**way, angle=0.0)


def sway(cycles: Cycles, place: float) -> Poses:
    """Return poses that go up and down, the same in both directions of time, `place` off the middle."""
    return _poses(x=place, y=0.4 * torch.sin(2 * math.pi * cycles), size=0.5, angle=0.0)


def _poses(**values: Tensor | float) -> Poses:
    tensors = [torch.as_tensor(value, dtype=torch.float64) for value in values.values()]
    return torch.stack(torch.broadcast_tensors(*tensors), dim=1)


PAIRS = (  # the motion, the class that shows it forwards, the class that shows it backwards
    (slide, "SlideLeft", "SlideRight"),
    (spin, "SpinClockwise", "SpinCounterclockwise"),
    (zoom, "ZoomIn", "ZoomOut"),
)


@dataclass(frozen=True)
class Scene:
    """One background and one handwriting in motion: what the clips of a (class, group) share.

    The class `forward` shows the frames as they are drawn, `backward` from the last to the first; in the
    test groups one scene serves both classes of a pair.
    """

    group: int
    digit: int
    motion: Motion
    forward: str | None = None
    backward: str | None = None

    def clips(self) -> Iterator[tuple[str, UInt8[Tensor, "T 3 side side"]]]:
        """Draw (name, frames) of every clip; the name is `<class>/v_<class>_g<group>_c<clip>.avi`."""
        random = np.random.default_rng(list(self.names()[0].encode()))  # one of its own
        samples = handwriting(self.digit)[TEST_SAMPLES if self.group in TEST_GROUPS else OTHER_SAMPLES]
        ink = samples[random.integers(len(samples))]
        background = cut_background(SIDE, random)
        for clip in range(1, CLIPS_PER_GROUP + 1):
            poses = self.motion(*_draw_motion(random))
            # Eight images at a time stay in the processor's cache, which halves the time.
            frames = torch.cat([draw(background, ink, few) for few in poses.split(8)])
            if self.forward:
                yield self._name(self.forward, clip), frames
            if self.backward:
                yield self._name(self.backward, clip), frames.flip(0)

    def names(self) -> list[str]:
        """Return the names of the clips, without drawing them."""
        classes = [name for name in (self.forward, self.backward) if name]
        return [self._name(name, clip) for name in classes for clip in range(1, CLIPS_PER_GROUP + 1)]

    def _name(self, class_name: str, clip: int) -> str:
        return f"{class_name}/v_{class_name}_g{self.group:02d}_c{clip:02d}.avi"


def scenes() -> list[Scene]:
    """Return every scene of the demo."""
    found = []
    for group in range(1, NUM_GROUPS + 1):
        found += [Scene(group, digit, sway, name) for name, digit in SHOWN_DIGITS.items()]
        for motion, forward, backward in PAIRS:
            if group in TEST_GROUPS:
                found.append(Scene(group, PAIR_DIGIT, motion, forward, backward))
            else:
                found.append(Scene(group, PAIR_DIGIT, motion, forward=forward))
                found.append(Scene(group, PAIR_DIGIT, motion, backward=backward))
    return found


def encode(path: Path, frames: UInt8[Tensor, "T 3 H W"]) -> None:
    """Write frames as UCF101's clips are, as XVID with B-frames in an AVI file; the same bytes every time."""
    with av.open(path, "w", format="avi", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        codec = stream.codec_context
        codec.height, codec.width = frames.shape[2:]
        codec.codec_tag, codec.max_b_frames, codec.gop_size = "XVID", 2, FPS
        codec.qmin = codec.qmax = QUANTISER
        codec.flags |= Flags.bitexact
        codec.thread_count = 1
        for number, pixels in enumerate(frames.permute(0, 2, 3, 1).contiguous().numpy()):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            # A key frame does not depend on its neighbours: decoded, it is the same bits backwards too.
            frame.pict_type = PictureType.I if number % FPS == 0 else PictureType.NONE
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _draw_motion(random: np.random.Generator) -> tuple[Cycles, float]:
    num_frames = int(random.choice(DURATIONS_S)) * FPS + 1
    speed, phase = random.uniform(*CYCLES_PER_FRAME), random.uniform()
    cycles = phase + speed * torch.arange(num_frames, dtype=torch.float64)
    return cycles, random.uniform(-OFF_CENTRE, OFF_CENTRE)

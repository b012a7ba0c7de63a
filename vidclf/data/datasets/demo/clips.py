"""The clips of the demo: which digit moves how, in which class and group, drawn and written to files.

The two classes of a pair show the same images in opposite order. Motion is periodic and begins anywhere in its period,
so that no single image reveals the order, and a clip has 25k + 1 frames, so that frames 0, 25, 50, ... are the same
ones backwards. Digits and photographs come from scikit-learn.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.codec.context import Flags
from av.video.frame import PictureType
from jaxtyping import Float64, UInt8
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

CREDIT = (
    "Photographs behind the digits: china.jpg by danielbuechele "
    "(flickr.com/photos/danielbuechele/6061409035) and flower.jpg by vultilion "
    "(flickr.com/photos/vultilion/6056698931), as scikit-learn ships them, cropped, darkened, colours exchanged; "
    "licence CC BY 2.0 (creativecommons.org/licenses/by/2.0)."
)

NUM_GROUPS = 25
TEST_GROUPS = range(1, 8)  # of split 1
CLIPS_PER_GROUP = 7  # as in most groups of UCF101

DURATIONS_S = (2, 3)
FPS = 25
SIDE = 80  # pixels
QUANTISER = 3  # of 1 (best) .. 31
CYCLES_PER_FRAME = (1 / 60, 1 / 30)  # at most 60 degrees between the 16 frames of a `uniform` view of 3 s
OFF_CENTRE = 0.15  # at most, half the image being 1

SHOWN_DIGITS = {"ShowEight": 8, "ShowZero": 0}
# The same digit in all groups: with several, a held-out group shows a digit that was trained more often in the other
# class of its pair.
PAIR_DIGIT = 4  # looks different when turned by 180 degrees
TEST_SAMPLES = slice(60)  # of about 180 per digit: handwriting that only test groups show
OTHER_SAMPLES = slice(60, None)

CROP_SIDES = (96, 240)  # pixels of a photograph, 427 x 640
BRIGHTNESS = 0.6  # of the background, so that white ink is visible everywhere
INK_SIDE = 40  # pixels: load_digits' 8 and a margin of 1 on every side, enlarged

Cycles = Float64[Tensor, " T"]  # number of periods completed at each frame
Poses = Float64[Tensor, "T 4"]  # as `draw` takes them
Motion = Callable[[Cycles, float], Poses]


def slide(cycles: Cycles, place: float) -> Poses:
    """Return poses that move left and enter again on the right, at the height `place`."""
    return _poses(x=-2 * cycles, y=place, size=0.5, angle=0.0)


def spin(cycles: Cycles, place: float) -> Poses:
    """Return poses that turn clockwise, `place` away from the middle."""
    return _poses(x=place, y=0.0, size=0.7, angle=2 * math.pi * cycles)


def zoom(cycles: Cycles, place: float) -> Poses:
    """Return poses that grow from small at the upper left to three times as large at the lower right, then restart.

    Growing in place was tried first: a recurrent head memorised the backgrounds of its training groups before it
    learned to tell growing from shrinking (0.52 on the pair's test clips).
    """
    phase = cycles % 1
    return _poses(x=1.2 * phase - 0.6 + place, y=1.2 * phase - 0.6, size=0.3 * 3**phase, angle=0.0)


def sway(cycles: Cycles, place: float) -> Poses:
    """Return poses that go up and down, the same in both directions of time, `place` away from the middle."""
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
    """The background, handwriting and motion that the clips of a (class, group) share.

    The class `forward` shows the frames as they are drawn, `backward` in reverse; in the test groups one scene serves
    both classes of a pair.
    """

    group: int
    digit: int
    motion: Motion
    forward: str | None = None
    backward: str | None = None

    def clips(self) -> Iterator[tuple[str, UInt8[Tensor, "T 3 side side"]]]:
        """Draw (name, frames) of every clip; the name is `<class>/v_<class>_g<group>_c<clip>.avi`."""
        random = np.random.default_rng(list(self.names()[0].encode()))  # seeded by the first name
        samples = handwriting(self.digit)[TEST_SAMPLES if self.group in TEST_GROUPS else OTHER_SAMPLES]
        ink = samples[random.integers(len(samples))]
        background = cut_background(SIDE, random)
        for clip in range(1, CLIPS_PER_GROUP + 1):
            poses = self.motion(*_draw_motion(random))
            # Eight images fit in the processor's cache, which halves the time.
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
    all_scenes = []
    for group in range(1, NUM_GROUPS + 1):
        all_scenes += [Scene(group, digit, sway, name) for name, digit in SHOWN_DIGITS.items()]
        for motion, forward, backward in PAIRS:
            classes = [(forward, backward)] if group in TEST_GROUPS else [(forward, None), (None, backward)]
            all_scenes += [Scene(group, PAIR_DIGIT, motion, *names) for names in classes]
    return all_scenes


def encode(path: Path, frames: UInt8[Tensor, "T 3 H W"]) -> None:
    """Write frames in UCF101's format, XVID with B-frames in AVI; the bytes are the same every time."""
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
            # Key frames do not depend on their neighbours: a reversed clip decodes to the same bits there.
            frame.pict_type = PictureType.I if number % FPS == 0 else PictureType.NONE
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _draw_motion(random: np.random.Generator) -> tuple[Cycles, float]:
    num_frames = int(random.choice(DURATIONS_S)) * FPS + 1
    speed, phase = random.uniform(*CYCLES_PER_FRAME), random.uniform()
    cycles = phase + speed * torch.arange(num_frames, dtype=torch.float64)
    return cycles, random.uniform(-OFF_CENTRE, OFF_CENTRE)


@cache
def photographs() -> list[Image.Image]:
    """Return scikit-learn's two photographs, darkened."""
    return [Image.fromarray((BRIGHTNESS * image).astype(np.uint8)) for image in load_sample_images().images]


@cache
def handwriting(digit: int) -> Float64[Tensor, "samples 40 40"]:
    """Return every sample of `digit` in the order of load_digits, as ink in 0..1."""
    digits = load_digits()
    samples = torch.from_numpy(digits.images[digits.target == digit] / digits.images.max())
    ink = F.interpolate(F.pad(samples[:, None], (1, 1, 1, 1)), size=(INK_SIDE, INK_SIDE), mode="bicubic")
    return ink[:, 0].clamp(0, 1)


def cut_background(side: int, random: np.random.Generator) -> UInt8[Tensor, "3 side side"]:
    """Return a random square of a random photograph, possibly mirrored, with permuted colour channels.

    With the original colours, crops of different groups are so similar that a leak does not show.
    """
    photograph = photographs()[random.integers(len(photographs()))]
    crop = int(random.integers(*CROP_SIDES, endpoint=True))
    left = int(random.integers(photograph.width - crop + 1))
    top = int(random.integers(photograph.height - crop + 1))
    square = photograph.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + crop, top + crop))
    pixels = np.array(square)[:, :: random.choice([-1, 1])]
    return torch.from_numpy(pixels[..., random.permutation(3)]).permute(2, 0, 1)


def draw(
    background: UInt8[Tensor, "*#T 3 side side"],
    ink: Float64[Tensor, "*#T 40 40"],
    poses: Float64[Tensor, "T 4"],
) -> UInt8[Tensor, "T 3 side side"]:
    """Return an image per pose, with white ink over the background.

    Args:
        background: for all images, or for each.
        ink: opacity in 0..1, for all images or for each.
        poses: centre x and y (-1..1 from left to right and top to bottom), size (1 fills the image) and clockwise angle
            (radians). Ink that leaves the image on one side enters on the opposite side.
    """
    side = background.shape[-1]
    axis = (2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1  # the pixels' centres
    x, y, size, angle = poses.T[:, :, None, None]
    dx, dy = (torch.remainder(offset + 1, 2) - 1 for offset in (axis - x, axis[:, None] - y))
    cos, sin = angle.cos() / size, angle.sin() / size
    grid = torch.stack([cos * dx + sin * dy, cos * dy - sin * dx], dim=-1)  # (T, side, side, 2)
    sources = ink.expand(len(poses), INK_SIDE, INK_SIDE)[:, None]
    opacity = F.grid_sample(sources, grid, align_corners=False)  # (T, 1, side, side)
    cover = (128 * opacity).round().to(torch.int16)  # of 128, so that products stay below 2^15
    return ((background * (128 - cover) + 255 * cover) // 128).to(torch.uint8)

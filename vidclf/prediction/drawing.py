"""Writes a video with the newest label and a bar of its probability drawn into each frame."""

import threading
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image, ImageDraw, ImageFont

from vidclf.data.decoding import to_tensor
from vidclf.errors import VidclfError
from vidclf.system.disk import writing_to
from vidclf.system.text import sanitize

FORMATS = {".mp4": "mp4", ".mkv": "matroska"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}  # an MP4 that plays although its end is missing
TICKS = 1000  # a second, of the times of frames
KEY_FRAMES_S = 2  # from one to the next: what a killed process loses
BACKGROUND, TEXT, BAR = (0, 0, 0, 160), (255, 255, 255, 255), (90, 200, 120, 255)


class Recorder:
    """Writes frames and labels to a new video file, in a `with` block. It is whole whenever the block ends.

    Args:
        path: .mp4 or .mkv; the file must not exist.

    Raises:
        VidclfError: the file exists, has another ending, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.suffix.lower() not in FORMATS:
            raise VidclfError(f"save={path}: must end in {' or '.join(FORMATS)}.")
        if path.exists():
            raise VidclfError(f"save={path}: the file exists. Choose another name or delete it.")
        if not path.parent.is_dir():
            raise VidclfError(f"save={path}: there is no folder {path.parent}. Make it, or choose another.")
        self._text, self._probability = "", 0.0
        self._lock = threading.Lock()  # frames come from the reader's thread
        self._container: av.container.OutputContainer | None = None
        self._is_closed = False
        self._reformatter = VideoReformatter()
        self._last = -1  # time of the last frame, in ticks

    def __enter__(self) -> "Recorder":
        with writing_to(self.path, "Choose another file with save=..."):
            self._file = self.path.open("xb")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock, self._file, writing_to(self.path, "Free space."):
            self._is_closed = True
            if self._container is not None:
                self._container.mux(self._stream.encode(None))
                self._container.close()
        if self._container is None:
            self.path.unlink()  # there was no picture

    def show(self, label: str | None, probability: float | None) -> None:
        """Draw this label into the frames that follow; None: no label."""
        self._text, self._probability = sanitize(label or ""), probability or 0.0

    def write(self, time_s: float, frame: VideoFrame) -> None:
        """Write a frame; times in seconds, increasing. All frames get the size of the first."""
        image = Image.fromarray(to_tensor(frame, self._reformatter).permute(1, 2, 0).numpy())
        with self._lock, writing_to(self.path, "Free space."):
            if self._is_closed:
                return
            if self._container is None:
                self._begin(image)
            if image.size != self._size:
                image = image.resize(self._size)
            self._last = max(self._last + 1, round(time_s * TICKS))
            drawn = VideoFrame.from_ndarray(np.asarray(draw_label(image, self._text, self._probability)), "rgb24")
            drawn.pts, drawn.time_base = self._last, Fraction(1, TICKS)
            assert self._container is not None
            self._container.mux(self._stream.encode(drawn))

    def _begin(self, image: Image.Image) -> None:
        self._size = image.width // 2 * 2, image.height // 2 * 2  # of chroma planes
        suffix = self.path.suffix.lower()
        options = FRAGMENTS if suffix == ".mp4" else {}
        self._container = av.open(self._file, "w", format=FORMATS[suffix], container_options=options)
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        settings = {"preset": "ultrafast", "tune": "zerolatency"} if codec == "libx264" else {"q": "4"}
        stream = self._container.add_stream(codec, rate=TICKS, options=settings)
        assert isinstance(stream, VideoStream)
        self._stream = stream
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        self._stream.codec_context.gop_size = KEY_FRAMES_S * 25


def draw_label(image: Image.Image, text: str, probability: float) -> Image.Image:
    """Return an RGB image with a label and a bar, as long as its probability, at its lower edge."""
    height = max(12, image.height // 12)
    band = Image.new("RGBA", (image.width, height), BACKGROUND)
    pen = ImageDraw.Draw(band)
    if length := round(probability * image.width):
        pen.rectangle((0, height - max(2, height // 6), length - 1, height), BAR)
    if text:
        font = ImageFont.load_default(max(8, height * 0.6))
        label = f"{text} {probability:.2f}"
        pen.text((height // 4, height // 10), label, TEXT, font)
    image = image.convert("RGB")
    image.paste(band, (0, image.height - height), band)
    return image

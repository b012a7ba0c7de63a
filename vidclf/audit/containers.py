"""What a file says around its images: a network that sees none of it may still learn it from them."""

from dataclasses import dataclass
from pathlib import Path

from vidclf.data.decoding import open_video


@dataclass(frozen=True)
class Container:
    """Of one file: FFmpeg's names of its format and codec, whether it has sound, and its bits a second, sound included.

    `bit_rate` is that of the whole file.
    """

    format: str
    codec: str
    has_sound: bool
    bit_rate: float


def describe(path: Path, duration_s: float) -> Container:
    """Return what the container of a video of `duration_s` seconds says; no image is decoded.

    Raises:
        VideoError: the file cannot be opened.
    """
    with open_video(path) as (container, stream):
        bit_rate = 8 * path.stat().st_size / duration_s
        return Container(container.format.name, stream.codec_context.name, bool(container.streams.audio), bit_rate)

"""Read a file's container: facts beside its frames that a network can learn a class from."""

from dataclasses import dataclass
from pathlib import Path

from vidclf.data.opening import open_video


@dataclass(frozen=True)
class Container:
    """FFmpeg's names of a file's format and codec, whether it has sound, and its bits per second, sound included."""

    format: str
    codec: str
    has_sound: bool
    bit_rate: float


def describe(path: Path, duration_s: float) -> Container:
    """Return the container of a video of `duration_s` seconds, without decoding a frame.

    Raises:
        VideoError: the file cannot be opened.
    """
    with open_video(path) as (container, stream):
        bit_rate = 8 * path.stat().st_size / duration_s
        return Container(container.format.name, stream.codec_context.name, bool(container.streams.audio), bit_rate)

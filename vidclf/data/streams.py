"""Frames of a live stream: standard input, a camera, a named pipe, a URL."""

import sys
from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from vidclf.data.decoding import to_tensor
from vidclf.data.opening import video_stream
from vidclf.data.timing import fitting_rate, known_rate
from vidclf.errors import VideoError

STREAM_OPEN_TIMEOUT_S = 20


def is_stream(source: str) -> bool:
    """Return whether `source` is standard input (`-`), a camera (`/dev/video0`), a named pipe or a URL."""
    path = Path(source)
    return source == "-" or path.is_char_device() or path.is_fifo() or ("://" in source and not path.exists())


def stream_frames(source: str) -> tuple[float, Iterator[UInt8[Tensor, "3 H W"]]]:
    """Return the fps of a stream and its frames as they arrive, possibly without end.

    A live stream is joined in the middle and loses packets in transit, so packets that do not decode are dropped
    without a message.

    Raises:
        VideoError: the stream cannot be opened, holds no video, or breaks off.
    """
    try:
        container = _open_stream(source)
    except (OSError, av.FFmpegError) as error:
        raise VideoError(
            f"{source}: the stream cannot be opened ({error.strerror or error}). Allowed are - (standard input), a URL "
            "that FFmpeg reads (rtsp://..., http://...) and a camera (/dev/video0)."
        ) from error
    stream = video_stream(source, container)
    fps = fitting_rate(0, None, (stream.guessed_rate, stream.average_rate, stream.base_rate))
    return known_rate(source, fps), _streamed(source, container, stream)


def _streamed(source: str, container: InputContainer, stream: VideoStream) -> Iterator[Tensor]:
    reformatter = VideoReformatter()
    with container:
        try:
            for packet in container.demux(stream):
                for frame in _decode_if_possible(packet):
                    yield to_tensor(frame, reformatter)
        except av.FFmpegError as error:
            raise VideoError(f"{source}: the stream broke off ({error.strerror}). Start it again.") from error


def _decode_if_possible(packet: Packet) -> list[VideoFrame]:
    try:
        return packet.decode()
    except av.InvalidDataError:
        return []


def _open_stream(source: str) -> InputContainer:
    if source == "-":
        return av.open(sys.stdin.buffer, "r", metadata_errors="replace")
    if Path(source).is_char_device():
        return av.open(source, "r", format="v4l2")
    return av.open(source, "r", timeout=(STREAM_OPEN_TIMEOUT_S, None), metadata_errors="replace")

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

from vidclf.data.decoding import SHOWN_WITHOUT_KEY, to_tensor
from vidclf.data.opening import OF_SERVERS, restrict, video_stream
from vidclf.data.timing import fitting_rate, known_rate
from vidclf.errors import VideoError

STREAM_OPEN_TIMEOUT_S = 20
NETWORK = (  # protocols that a URL, and a playlist behind it, may use
    *("crypto", "ftp", "http", "httpproxy", "https", "mmsh", "mmst", "rist", "rtmp", "rtmps", "rtmpt", "rtp"),
    *("sftp", "srt", "srtp", "tcp", "tls", "udp"),
)


def is_stream(source: str) -> bool:
    """Return whether `source` is standard input (`-`), a camera (`/dev/video0`), a named pipe or a URL."""
    path = Path(source)
    return source == "-" or path.is_char_device() or path.is_fifo() or ("://" in source and not path.exists())


def stream_frames(source: str) -> tuple[float, Iterator[tuple[float, UInt8[Tensor, "3 H W"]]]]:
    """Return the fps that a stream states, and its frames as they arrive, possibly without end.

    Each frame comes with its time in seconds since the first. A live stream is joined in the middle and loses packets
    in transit, so packets that do not decode are dropped without a message, as are frames before the first that can be
    built.

    Raises:
        VideoError: the stream cannot be opened, holds no video, or breaks off.
    """
    try:
        container = _open_stream(source)
    except (OSError, av.FFmpegError) as error:
        raise VideoError(
            f"{source}: the stream cannot be opened ({error.strerror or error}). Allowed are - (standard input), a URL "
            "that FFmpeg reads (rtsp://..., http://...) and a camera (/dev/video0); playlists of files are not."
        ) from error
    stream = video_stream(source, container)
    fps = known_rate(source, fitting_rate(0, None, (stream.guessed_rate, stream.average_rate, stream.base_rate)))
    return fps, _streamed(source, container, stream, fps)


def _streamed(
    source: str, container: InputContainer, stream: VideoStream, fps: float
) -> Iterator[tuple[float, Tensor]]:
    reformatter = VideoReformatter()
    origin_s, last_s = None, -1 / fps
    is_leading = stream.codec_context.name in SHOWN_WITHOUT_KEY
    with container:
        try:
            for packet in container.demux(stream):
                for frame in _decode_if_possible(packet):
                    is_leading &= not frame.key_frame
                    if is_leading:
                        continue
                    next_s = last_s + 1 / fps
                    time_s = None if container.format.name == "avi" else frame.time  # see vidclf.data.timing
                    # A clock that restarts goes on where it was.
                    if time_s is not None and (origin_s is None or time_s - origin_s <= last_s):
                        origin_s = time_s - next_s
                    last_s = next_s if time_s is None or origin_s is None else time_s - origin_s
                    yield last_s, to_tensor(frame, reformatter)
        except av.FFmpegError as error:
            raise VideoError(f"{source}: the stream broke off ({error.strerror}). Start it again.") from error


def _decode_if_possible(packet: Packet) -> list[VideoFrame]:
    if not packet.size and packet.pts is not None:
        return []  # Theora's still image
    try:
        return packet.decode()
    except av.InvalidDataError:
        return []


def _open_stream(source: str) -> InputContainer:
    if source == "-":
        return av.open(sys.stdin.buffer, "r", options=restrict(), metadata_errors="replace")
    if Path(source).is_char_device():
        return av.open(source, "r", format="v4l2")
    is_local = Path(source).exists() or source.startswith("file:")
    options = restrict(["file"]) if is_local else restrict(NETWORK, OF_SERVERS)
    timeout = STREAM_OPEN_TIMEOUT_S, None
    return av.open(source, "r", options=options, timeout=timeout, metadata_errors="replace")

"""Frames of a stream as they come: standard input, a named pipe, a camera, a URL, a file at its own speed."""

import os
import select
import stat
import sys
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidclf.data.addresses import Source, camera_of, limits_of
from vidclf.data.decoding import SHOWN_WITHOUT_KEY
from vidclf.data.opening import FileForFFmpeg, restrict, video_stream
from vidclf.data.timing import MAX_GAP_S, fitting_rate, known_rate
from vidclf.data.unopened import why_not_opened
from vidclf.errors import VideoError
from vidclf.system.terminal import say

JUMP_S = 10.0  # by which the clock of a live stream may run ahead of ours from one frame to the next
NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS
POLL_S = 0.1  # how often a reader that waits for a pipe checks whether to stop


class StreamFrame(NamedTuple):
    """A frame, when it is shown (seconds since the first), and when it came (`time.monotonic`)."""

    time_s: float
    frame: VideoFrame
    arrived_s: float


class Stream:
    """An open stream, in the thread that opens it.

    A live stream is joined in the middle and loses packets in transit, so packets that do not decode are dropped
    without a message, as are frames before the first that can be built.

    Attributes:
        fps: frames per second, as the stream states it.
        is_live: whether what is not read in time is lost; not so for files, also of a server that knows their size.

    Raises:
        VideoError: the stream cannot be opened, holds no video, or its protocol is not allowed.
    """

    def __init__(self, source: Source, stop: threading.Event) -> None:
        self.source = source
        with ExitStack() as stack:
            try:
                self.container = stack.enter_context(_open(source, stop, stack))
            except (OSError, ValueError, av.FFmpegError) as error:
                raise VideoError(why_not_opened(source, error)) from None  # PyAV's errors hold the address
            self.stream: VideoStream = video_stream(source.name, self.container)
            rates = (self.stream.guessed_rate, self.stream.average_rate, self.stream.base_rate)
            self.fps = known_rate(source.name, fitting_rate(0, None, rates))
            self._stack = stack.pop_all()
        is_remote = bool(source.protocol) and not _size_of(self.container) > 0
        self.is_live = is_remote or source.is_camera or source.realtime

    def frames(self) -> Generator[StreamFrame, None, None]:
        """Yield frames as they come, possibly without end; close the stream at the end.

        Raises:
            VideoError: a stream without an end breaks off, is silent, or shows no picture.
        """
        name, format_ = self.source.name, self.container.format
        has_end = not self.is_live or self.source.realtime
        clock = _Clock(self.fps, not has_end)
        is_leading = self.stream.codec_context.name in SHOWN_WITHOUT_KEY
        # Raw frames carry no times, or those of a rate that is only a guess.
        is_timed = format_.name != "avi" and (has_end or not format_.flags & NO_TIMESTAMPS)
        seen_s = time.monotonic()
        with self._stack:
            try:
                for packet in self.container.demux():
                    for frame in _decode_if_possible(packet) if packet.stream is self.stream else ():
                        is_leading &= not frame.key_frame
                        if is_leading:
                            continue
                        seen_s = time.monotonic()
                        shown_s = frame.time if is_timed else None if has_end else seen_s
                        yield StreamFrame(clock.time_of(shown_s, seen_s), frame, seen_s)
                        seen_s = time.monotonic()
                    if not has_end and time.monotonic() - seen_s > self.source.timeout_s:
                        raise VideoError(
                            f"{name}: it sends data, but no picture for {self.source.timeout_s:g} s. See whether it "
                            "is a video that plays."
                        )
            except av.ExitError:
                silent_s = f"{self.source.timeout_s:g}"
                raise VideoError(f"{name}: silent for {silent_s} s. See whether it still runs.") from None
            except (OSError, av.FFmpegError) as error:
                raise VideoError(
                    f"{name}: the stream broke off ({error.strerror}). See whether it still runs."
                ) from None
        if not has_end:
            raise VideoError(f"{name}: the stream has ended. See whether it still runs.")


class _Clock:
    """Turns the times of frames into seconds since the first, which always increase. A clock that jumps goes on."""

    def __init__(self, fps: float, is_live: bool) -> None:
        self.step_s, self.is_live = 1 / fps, is_live
        self.origin_s: float | None = None
        self.last_s, self.arrived_s = -1 / fps, 0.0

    def time_of(self, shown_s: float | None, arrived_s: float) -> float:
        following_s = self.last_s + self.step_s
        if shown_s is not None:
            gap_s = 0.0 if self.origin_s is None else shown_s - self.origin_s - self.last_s
            limit_s = JUMP_S + arrived_s - self.arrived_s if self.is_live else MAX_GAP_S
            if self.origin_s is None or not 0 < gap_s < limit_s:
                self.origin_s = shown_s - following_s
            following_s = shown_s - self.origin_s
        self.last_s, self.arrived_s = following_s, arrived_s
        return following_s


def _decode_if_possible(packet: Packet) -> list[VideoFrame]:
    if not packet.size and packet.pts is not None:
        return []  # Theora's still image
    try:
        return packet.decode()
    except av.InvalidDataError:
        return []


def _size_of(container: InputContainer) -> int:
    """Return the bytes of what is read; 0 or less: it has no end."""
    with suppress(av.FFmpegError, OSError):
        return container.size
    return 0


def _open(source: Source, stop: threading.Event, stack: ExitStack) -> InputContainer:
    local: dict[str, Any] = {"options": restrict(), "metadata_errors": "replace"}
    if source.address == "-":
        return av.open(_readable(sys.stdin.buffer, source, stop), "r", **local)
    if source.is_camera:
        address, format_ = camera_of(source)
        options = {"framerate": "30"} if format_ == "avfoundation" else {}  # which has no default that fits
        return av.open(address, "r", format=format_, options=options)
    if not source.protocol and source.path.is_fifo():
        descriptor = os.open(source.path, os.O_RDONLY | os.O_NONBLOCK)
        pipe = stack.enter_context(os.fdopen(descriptor, "rb", buffering=0))
        return av.open(_readable(pipe, source, stop), "r", **local)
    if not source.protocol:
        return av.open(stack.enter_context(FileForFFmpeg(source.path)), "r", **local)
    limits = limits_of(source)
    timeout = source.timeout_s, source.timeout_s
    return av.open(source.address, "r", options=limits, timeout=timeout, metadata_errors="replace")


def _readable(file: Any, source: Source, stop: threading.Event) -> Any:
    """Return a file as FFmpeg reads it: whole if it is a regular one; else each read can be stopped."""
    try:
        is_pipe = not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except OSError:  # no file of the system
        return file
    return _Pipe(file, source, stop) if is_pipe and sys.platform != "win32" else file


class _Pipe:
    """Reads a pipe as its data arrive. A long silence is reported once: another program may still be working."""

    def __init__(self, file: Any, source: Source, stop: threading.Event) -> None:
        self.file, self.source, self.stop = file, source, stop
        self.name = source.name

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes; none at the end, or when the reader is to stop."""
        began_s, is_told = time.monotonic(), False
        while not self.stop.is_set():
            if select.select([self.file], [], [], POLL_S)[0]:
                with suppress(BlockingIOError):
                    return os.read(self.file.fileno(), count)
            if not is_told and time.monotonic() - began_s > self.source.timeout_s:
                say(f"{self.name}: nothing has come for {self.source.timeout_s:g} s; waiting.")
                is_told = True
        return b""

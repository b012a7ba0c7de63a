"""A thread of its own that reads a stream and hands on its frames; a live stream that breaks off is connected again."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from types import TracebackType
from typing import Protocol, runtime_checkable

from av.video.frame import VideoFrame

from vidclf.data.addresses import Source
from vidclf.data.streams import Stream
from vidclf.errors import VideoError
from vidclf.system.terminal import say

SHORTEST_DELAY_S, LONGEST_DELAY_S = 1.0, 30.0  # before a connection is tried again
JOIN_S = 0.3  # how long the end waits for the reader, which may be inside FFmpeg for as long as a server is silent


@runtime_checkable
class Receiver(Protocol):
    """Takes the frames, in the reader's thread."""

    def begin(self, stream: Stream) -> None:
        """Expect frames of this stream: the first, one that was connected again, or one that has changed its size."""
        ...

    def take(self, time_s: float, frame: VideoFrame, arrived_s: float) -> None:
        """Take a frame: when it is shown, in seconds since the first, and when it came, by `time.monotonic`."""
        ...

    def finish(self) -> None:
        """Expect no more frames: the stream has ended, or cannot be read."""
        ...


class Capture:
    """Reads a stream for as long as a `with` block lasts.

    The thread is a daemon: FFmpeg may wait for a silent server when the process ends. It runs no code of torch then,
    from which a daemon must not return at that time.

    Attributes:
        error: why the stream cannot be read (any more), once `receiver.finish` was called.
    """

    def __init__(self, source: Source, receiver: Receiver) -> None:
        self.source, self.receiver = source, receiver
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-stream", daemon=True)
        self._seen_s: float | None = None  # when the last frame came; None: between two connections
        self._began_s: float | None = None  # when the first frame came

    def __enter__(self) -> "Capture":
        self._seen_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(JOIN_S)

    def check_camera(self) -> None:
        """Raise VideoError if a camera is silent: FFmpeg waits for it without a limit."""
        silent_s = time.monotonic() - (self._seen_s or time.monotonic())
        if self.source.is_camera and self._thread.is_alive() and silent_s > self.source.timeout_s:
            raise VideoError(
                f"{self.source.name}: no picture for {self.source.timeout_s:g} s. Plug the camera in again."
            )

    def _run(self) -> None:
        try:
            self._read_for_ever()
        except BaseException as error:  # raised again by the main thread
            self.error = error
        finally:
            self.receiver.finish()

    def _read_for_ever(self) -> None:
        delay_s, lost_s, stream = SHORTEST_DELAY_S, 0.0, None
        while not self._stop.is_set():
            try:
                stream = Stream(self.source, self._stop)
                for _ in self._read(stream):
                    if lost_s:
                        say(f"{self.source.name}: connected again after {time.monotonic() - lost_s:.0f} s.")
                    delay_s, lost_s = SHORTEST_DELAY_S, 0.0
                return
            except VideoError as error:
                if stream is None or not stream.is_live or self._stop.is_set():
                    raise
                say(f"{error} Trying again in {delay_s:g} s.")
                lost_s = lost_s or time.monotonic()
            self._seen_s = None
            self._stop.wait(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
            self._seen_s = time.monotonic()

    def _read(self, stream: Stream) -> Iterator[None]:
        """Hand on the frames of a connection; yield after each."""
        size, offset_s = None, 0.0
        with closing(stream.frames()) as frames:
            for time_s, frame, arrived_s in frames:
                if size is None:  # the first frame of this connection; time goes on between two
                    self._began_s = self._began_s or arrived_s
                    offset_s = arrived_s - self._began_s
                if self.source.realtime and self._began_s is not None:
                    self._stop.wait(max(0.0, self._began_s + offset_s + time_s - time.monotonic()))
                    arrived_s = time.monotonic()
                if self._stop.is_set():
                    return
                if size != (frame.width, frame.height):
                    size = frame.width, frame.height
                    self.receiver.begin(stream)
                self._seen_s = arrived_s
                self.receiver.take(offset_s + time_s, frame, arrived_s)
                yield

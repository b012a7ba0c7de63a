"""Frames of a stream as they come: standard input, a named pipe, a camera, a URL, a file at its own speed."""

import errno
import os
import re
import select
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

import av
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vidclf.data.decoding import SHOWN_WITHOUT_KEY
from vidclf.data.opening import OF_SERVERS, FileForFFmpeg, restrict, video_stream
from vidclf.data.timing import MAX_GAP_S, fitting_rate, known_rate
from vidclf.errors import VideoError
from vidclf.system.terminal import say
from vidclf.system.text import redact

# What FFmpeg may open for a URL of each protocol. Over UDP, RTSP would open ports that the server names.
PROTOCOLS = {
    "http": ("http", "tcp"),
    "https": ("https", "tls", "tcp", "httpproxy"),
    "rtsp": ("tcp",),
    "rtsps": ("tls", "tcp"),
}
ON_REQUEST = {  # by protocols=: further protocols and playlists, each with what it needs
    **{"rtmp": ("rtmp", "tcp"), "rtmps": ("rtmps", "tls", "tcp"), "srt": ("srt",), "tcp": ("tcp",), "udp": ("udp",)},
    **{"rtp": ("rtp", "udp"), "ftp": ("ftp", "tcp"), "mmsh": ("mmsh", "http", "tcp")},
    **{"hls": ("http", "https", "tls", "tcp", "crypto"), "dash": ("http", "https", "tls", "tcp")},
}
JUMP_S = 10.0  # by which the clock of a live stream may run ahead of ours from one frame to the next
PROBED_S = 2  # of a live stream: what FFmpeg reads at most before the first frame
POLL_S = 0.1  # how often a reader that waits for a pipe checks whether to stop
PROBES = {"win32": "dshow", "darwin": "avfoundation"}  # FFmpeg's cameras; elsewhere v4l2


@dataclass(frozen=True)
class Source:
    """A stream that a person has named.

    Attributes:
        address: `-`, `camera:0`, a device, a named pipe, a URL, or a file.
        protocols: asked for besides those of `PROTOCOLS`.
        timeout_s: how long a server or a camera may be silent.
        realtime: whether a file is shown at its own speed.
    """

    address: str
    protocols: tuple[str, ...] = ()
    timeout_s: float | int = 10
    realtime: bool = False

    @property
    def name(self) -> str:
        """The address without secrets."""
        return redact(self.address)

    @property
    def is_camera(self) -> bool:
        return self.address.startswith(("camera:", "/dev/video")) or Path(self.address).is_char_device()

    @property
    def protocol(self) -> str:
        """The protocol of a URL; empty for anything else, and for a URL of a file."""
        is_url = "://" in self.address and not Path(self.address).exists()
        scheme = self.address.partition("://")[0].lower() if is_url else ""
        return "" if scheme == "file" else scheme

    @property
    def path(self) -> Path:
        """The path of a named pipe or a file."""
        is_url = self.address.lower().startswith("file://") and not Path(self.address).exists()
        return Path(url2pathname(urlsplit(self.address).path)) if is_url else Path(self.address)


class StreamFrame(NamedTuple):
    """A frame, when it is shown (seconds since the first), and when it came (`time.monotonic`)."""

    time_s: float
    frame: VideoFrame
    arrived_s: float


def is_stream(source: str) -> bool:
    """Return whether `source` is standard input (`-`), a camera (`camera:0`), a device, a named pipe or a URL."""
    path = Path(source)
    is_url = "://" in source and not path.exists()
    return source == "-" or is_url or path.is_fifo() or Source(source).is_camera


class Stream:
    """An open stream, in the thread that opens it.

    A live stream is joined in the middle and loses packets in transit, so packets that do not decode are dropped
    without a message, as are frames before the first that can be built.

    Attributes:
        fps: frames per second, as the stream states it.
        is_live: whether what is not read in time is lost; false for files, also those of a server that knows their size.

    Raises:
        VideoError: the stream cannot be opened, holds no video, or its protocol is not allowed.
    """

    def __init__(self, source: Source, stop: threading.Event) -> None:
        self.source = source
        try:
            self.container = _open(source, stop)
        except (OSError, ValueError, av.FFmpegError) as error:
            raise VideoError(_why_not_opened(source, error)) from None  # PyAV's errors hold the address
        try:
            self.stream: VideoStream = video_stream(source.name, self.container)
            rates = (self.stream.guessed_rate, self.stream.average_rate, self.stream.base_rate)
            self.fps = known_rate(source.name, fitting_rate(0, None, rates))
        except BaseException:
            self.container.close()
            raise
        is_remote = bool(source.protocol) and not _size_of(self.container) > 0
        self.is_live = is_remote or source.is_camera or source.realtime

    def frames(self) -> Iterator[StreamFrame]:
        """Yield frames as they come, possibly without end; close the stream at the end.

        Raises:
            VideoError: a stream without an end breaks off, is silent, or shows no picture.
        """
        name, format_ = self.source.name, self.container.format
        clock = _Clock(self.fps, self.is_live)
        is_leading = self.stream.codec_context.name in SHOWN_WITHOUT_KEY
        # Raw frames carry no times, or those of a rate that is only a guess.
        is_timed = format_.name != "avi" and not (self.is_live and format_.flags & Flags.no_timestamps)
        seen_s = time.monotonic()
        with self.container:
            try:
                for packet in self.container.demux():
                    for frame in _decode_if_possible(packet) if packet.stream is self.stream else ():
                        is_leading &= not frame.key_frame
                        if is_leading:
                            continue
                        seen_s = time.monotonic()
                        shown_s = frame.time if is_timed else seen_s if self.is_live else None
                        yield StreamFrame(clock.time_of(shown_s, seen_s), frame, seen_s)
                        seen_s = time.monotonic()
                    if self.is_live and time.monotonic() - seen_s > self.source.timeout_s:
                        raise VideoError(
                            f"{name}: it sends data, but no picture for {self.source.timeout_s:g} s. See whether it "
                            "is a video that plays."
                        )
            except av.ExitError:
                silent_s = f"{self.source.timeout_s:g}"
                raise VideoError(f"{name}: silent for {silent_s} s. See whether it still runs.") from None
            except (OSError, av.FFmpegError) as error:
                raise VideoError(f"{name}: the stream broke off ({error.strerror}). Start it again.") from None
        if self.is_live and not self.source.realtime:
            raise VideoError(f"{name}: the stream has ended. Start it again.")


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


def _open(source: Source, stop: threading.Event) -> InputContainer:
    local: dict[str, Any] = {"options": restrict(), "metadata_errors": "replace"}
    if source.address == "-":
        return av.open(_readable(sys.stdin.buffer, source, stop), "r", **local)
    if source.is_camera:
        address, format_ = _camera(source)
        options = {"framerate": "30"} if format_ == "avfoundation" else {}  # which has no default that fits
        return av.open(address, "r", format=format_, options=options)
    if not source.protocol and source.path.is_fifo():
        pipe = os.fdopen(os.open(source.path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
        return av.open(_readable(pipe, source, stop), "r", **local)
    if not source.protocol:
        return av.open(FileForFFmpeg(source.path), "r", **local)
    limits = _limits(source)
    timeout = source.timeout_s, source.timeout_s
    return av.open(source.address, "r", options=limits, timeout=timeout, metadata_errors="replace")


def _limits(source: Source) -> dict[str, str]:
    """Return options by which FFmpeg opens the host that a URL names, and nothing else, and waits for a limited time.

    Raises:
        VideoError: the protocol is not allowed.
    """
    allowed = PROTOCOLS | {name: ON_REQUEST[name] for name in source.protocols if name in ON_REQUEST}
    if unknown := {*source.protocols} - {*PROTOCOLS, *ON_REQUEST}:
        raise VideoError(f"protocols={', '.join(sorted(unknown))}: must be among {', '.join(ON_REQUEST)}.")
    if source.protocol not in allowed or source.protocol in ("hls", "dash"):
        more = f" With protocols={source.protocol}, it is." if source.protocol in ON_REQUEST else ""
        raise VideoError(
            f"{source.name}: the protocol {source.protocol} is not allowed.{more} Allowed are {', '.join(PROTOCOLS)}."
        )
    names = dict.fromkeys(name for key in (source.protocol, *source.protocols) for name in allowed[key])
    playlists = {name.removesuffix("s") for name in (source.protocol, *source.protocols)} & OF_SERVERS
    playlists |= {*source.protocols} & OF_SERVERS
    limit = str(int(source.timeout_s * 1e6))
    options = {"rw_timeout": limit, "analyzeduration": str(PROBED_S * 10**6), "max_redirects": "0"}
    if source.protocol in PROTOCOLS:  # elsewhere, `timeout` may mean another thing
        options["timeout"] = limit
    if not {"udp", "rtp"} & {*source.protocols}:
        options["rtsp_transport"] = "tcp"
    return restrict(names, playlists) | options


def _camera(source: Source) -> tuple[str, str]:
    """Return FFmpeg's name for a camera, and for the devices of this system."""
    format_ = PROBES.get(sys.platform, "v4l2")
    if not source.address.startswith("camera:"):
        return source.address, format_
    number = source.address.removeprefix("camera:")
    if not number.isdecimal():
        raise VideoError(f"{source.name}: must be camera: and a number. The first is camera:0.")
    if format_ == "v4l2":
        return f"/dev/video{number}", format_
    if format_ == "avfoundation":
        return number, format_
    names = [device.name for device in av.enumerate_input_devices(format_) if "video" in device.media_types]
    if int(number) >= len(names):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return f"video={names[int(number)]}", format_


def _readable(file: Any, source: Source, stop: threading.Event) -> Any:
    """Return a file as FFmpeg reads it: whole if it is a regular one; else each read can be stopped."""
    try:
        is_pipe = not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except OSError:  # no file of the system
        return file
    return _Pipe(file, source, stop) if is_pipe and sys.platform != "win32" else file


class _Pipe:
    """A pipe that is read as its data come. Silence is told once, for another program may be at work."""

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


def _why_not_opened(source: Source, error: Exception) -> str:
    """Return the sentence for a stream that FFmpeg does not open."""
    code = getattr(error, "errno", None)
    if source.is_camera:
        reasons = {
            errno.EBUSY: "another program uses this camera. Close it",
            errno.EACCES: "no permission to use this camera. On Linux, add yourself to the group video",
        }
        found = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
        is_missing = f"there is no such camera. On Linux, cameras are /dev/video*; here: {found}"
        return f"{source.name}: {reasons.get(code or 0, is_missing)}."
    if not source.protocol:
        reason = "it holds no video" if isinstance(error, av.InvalidDataError) else getattr(error, "strerror", error)
        return f"{source.name}: the stream cannot be opened ({reason}). Give a video that plays."
    if isinstance(error, av.ExitError | TimeoutError):
        return f"{source.name}: no picture came within {source.timeout_s:g} s. See whether it runs; timeout_s=60 waits longer."
    if isinstance(error, ValueError):
        return f"{source.name}: a playlist, which could open other addresses. If you trust it, pass protocols=hls (or dash)."
    if source.protocol in ("http", "https") and (isinstance(error, av.InvalidDataError) or code == errno.EIO):
        return f"{source.name}: {_answer_of(source)}."
    return f"{source.name}: the stream cannot be opened ({getattr(error, 'strerror', error)}). See whether it runs."


def _answer_of(source: Source) -> str:
    """Ask a web server why it sends no video: FFmpeg does not say. Return the end of a sentence."""
    parts = urlsplit(source.address)
    connect = HTTPSConnection if parts.scheme.lower() == "https" else HTTPConnection
    try:
        connection = connect(parts.hostname or "", parts.port, timeout=source.timeout_s)
        connection.request("GET", parts._replace(scheme="", netloc="", fragment="").geturl() or "/")
        answer = connection.getresponse()
        connection.close()
    except socket.gaierror:
        return "there is no host of this name. Correct it"
    except (OSError, HTTPException, ValueError):
        return "the answer of the server is none of HTTP. Correct the address"
    if 300 <= answer.status < 400:
        where = re.sub(r"[^!-~]", "", answer.headers.get("Location", "elsewhere"))
        return f"the server redirects to {redact(where)}, and no redirection is followed. If you trust it, give that address"
    kind = answer.headers.get_content_type()
    if kind.startswith("text/"):
        return f"the server sends {kind}, a page and no video. Give the address of the video itself"
    return "what the server sends is no video, or damaged. Give a video that plays"

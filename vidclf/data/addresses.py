"""What a person may name as a stream, and what FFmpeg may open for it."""

import errno
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import av

from vidclf.data.opening import OF_SERVERS, restrict
from vidclf.errors import VidclfError
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
PLAYLISTS = {"hls", "dash"}
PROBED_S = 2  # of a live stream: what FFmpeg reads at most before the first frame
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

    def check(self) -> None:
        """Raise VidclfError if the address is not allowed, before anything is opened."""
        if self.timeout_s <= 0 or not math.isfinite(self.timeout_s):
            raise VidclfError(f"timeout_s={self.timeout_s}: must be above 0, in seconds.")
        if unknown := {*self.protocols} - {*PROTOCOLS, *ON_REQUEST}:
            raise VidclfError(f"protocols={', '.join(sorted(unknown))}: must be among {', '.join(ON_REQUEST)}.")
        if self.address.startswith("camera:") and not self.address.removeprefix("camera:").isdecimal():
            raise VidclfError(f"source={self.name}: must be camera: and a number. The first is camera:0.")
        if self.protocol and self.protocol not in [*PROTOCOLS, *({*self.protocols} - PLAYLISTS)]:
            can_be_asked = self.protocol in ON_REQUEST and self.protocol not in PLAYLISTS
            more = f"Pass protocols={self.protocol}" if can_be_asked else f"Give {', '.join(PROTOCOLS)} or a file"
            raise VidclfError(f"source={self.name}: the protocol {self.protocol} is not allowed. {more}.")
        if self.realtime and (self.protocol or self.is_camera or self.address == "-"):
            raise VidclfError(f"realtime=true: is for files, and {self.name} has a speed of its own. Leave it out.")


def is_stream(source: str) -> bool:
    """Return whether `source` is standard input (`-`), a camera (`camera:0`), a device, a named pipe or a URL."""
    path = Path(source)
    is_url = "://" in source and not path.exists()
    return source == "-" or is_url or path.is_fifo() or Source(source).is_camera


def limits_of(source: Source) -> dict[str, str]:
    """Return options by which FFmpeg opens the host that a URL names and nothing else, and waits for a limited time."""
    source.check()
    asked = (source.protocol, *source.protocols)
    names = dict.fromkeys(name for key in asked for name in (PROTOCOLS | ON_REQUEST)[key])
    playlists = {"rtsp" if key == "rtsps" else key for key in asked} & OF_SERVERS
    limit = str(int(source.timeout_s * 1e6))
    options = {"rw_timeout": limit, "analyzeduration": str(PROBED_S * 10**6), "max_redirects": "0"}
    if source.protocol in PROTOCOLS:  # elsewhere, `timeout` may mean another thing
        options["timeout"] = limit
    if not {"udp", "rtp"} & {*source.protocols}:
        options["rtsp_transport"] = "tcp"
    return restrict(names, playlists) | options


def camera_of(source: Source) -> tuple[str, str]:
    """Return FFmpeg's name for a camera, and for the devices of this system."""
    format_ = PROBES.get(sys.platform, "v4l2")
    if not source.address.startswith("camera:"):
        return source.address, format_
    number = source.address.removeprefix("camera:")
    if format_ == "v4l2":
        return f"/dev/video{number}", format_
    if format_ == "avfoundation":
        return number, format_
    names = [device.name for device in av.enumerate_input_devices(format_) if "video" in device.media_types]
    if int(number) >= len(names):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return f"video={names[int(number)]}", format_

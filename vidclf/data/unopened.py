"""Sentences for streams that FFmpeg does not open."""

import errno
import re
import socket
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import av

from vidclf.data.addresses import Source
from vidclf.system.text import redact


def why_not_opened(source: Source, error: Exception) -> str:
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
    if code == errno.EINVAL:  # its format is not on the whitelist
        more = " If you trust it, pass protocols=hls or dash." if source.protocol else " Give the video itself."
        return f"{source.name}: a playlist, which may name any address or file.{more}"
    if not source.protocol:
        reason = "it holds no video" if isinstance(error, av.InvalidDataError) else getattr(error, "strerror", error)
        return f"{source.name}: the stream cannot be opened ({reason}). Give a video that plays."
    if isinstance(error, av.ExitError | TimeoutError):
        silent = f"no picture came within {source.timeout_s:g} s"
        return f"{source.name}: {silent}. See whether it runs, or wait longer with timeout_s=60."
    if source.protocol in ("http", "https") and (isinstance(error, av.InvalidDataError) or code == errno.EIO):
        return f"{source.name}: {_answer_of(source)}."
    return f"{source.name}: the stream cannot be opened ({getattr(error, 'strerror', error)}). See whether it runs."


def _answer_of(source: Source) -> str:
    """Ask a web server why it sends no video: FFmpeg does not say. Return the end of a sentence."""
    parts = urlsplit(source.address)
    connect = HTTPSConnection if parts.scheme.lower() == "https" else HTTPConnection
    try:
        with closing(connect(parts.hostname or "", parts.port, timeout=source.timeout_s)) as connection:
            connection.request("GET", parts._replace(scheme="", netloc="", fragment="").geturl() or "/")
            answer = connection.getresponse()
    except socket.gaierror:
        return "there is no host of this name. Correct it"
    except (OSError, HTTPException, ValueError):
        return "the answer of the server is none of HTTP. Correct the address"
    if 300 <= answer.status < 400:
        where = re.sub(r"[^!-~]", "", answer.headers.get("Location", "elsewhere"))
        return f"the server leads to {redact(where)}, which is not followed. If you trust it, give that address"
    kind = answer.headers.get("Content-Type", "").partition(";")[0]
    if kind.startswith("text/"):
        return f"the server sends {kind}, a page and no video. Give the address of the video itself"
    return "what the server sends is no video, or damaged. Give a video that plays"

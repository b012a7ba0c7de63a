"""Open video files and streams. FFmpeg opens what it is given, and nothing that a playlist in it names."""

import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from vidclf.errors import VideoError

SKIP = "pass dataset.on_error=skip."
NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# Formats that name files or addresses to open: none of them may come in a file, only those of a server in a URL.
OF_SERVERS = {"dash", "hls", "rtp", "rtsp"}
PLAYLISTS = OF_SERVERS | {"concat", "image2", "imf", "lavfi", "sap", "sdp", "vobsub", "webm_dash_manifest"}


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and the video stream that players show; FFmpeg opens no other file.

    Raises:
        VideoError: the file is not a regular file, cannot be read, or holds no video.
    """
    with ExitStack() as stack:
        try:
            check_regular(path)
            # A file object, because FFmpeg reads names such as `a:b.avi` as protocols and `%03d` as patterns.
            file = stack.enter_context(FileForFFmpeg(path))
            if os.fstat(file.fileno()).st_size == 0:  # FFmpeg's own message depends on the file's extension
                raise VideoError(f"{path}: the file is empty (0 bytes). Re-extract it, or {SKIP}")
            container = stack.enter_context(av.open(file, "r", options=restrict(), metadata_errors="replace"))
        except av.FFmpegError as error:
            raise VideoError(
                f"{path}: FFmpeg finds no video in its {path.stat().st_size:,} bytes: it is another kind of file, or "
                f"damaged. Give a video that plays, or {SKIP}"
            ) from error
        except OSError as error:
            raise VideoError(f"{path}: the file cannot be read ({error.strerror}). Give a video file.") from error
        yield container, video_stream(path, container)


def restrict(protocols: Iterable[str] = ("none",), playlists: Iterable[str] = ()) -> dict[str, str]:
    """Return options by which FFmpeg opens addresses of these protocols only, and no playlists but these formats."""
    formats = av.formats_available - (PLAYLISTS - {*playlists})
    return {"protocol_whitelist": ",".join(protocols), "format_whitelist": ",".join(sorted(formats))}


def check_regular(path: Path) -> None:
    """Raise VideoError if a path is a named pipe, a device or a socket, where reading may wait for ever."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise VideoError(f"{path}: it is a pipe, a device or a socket. Give a regular file, or {SKIP}")


class FileForFFmpeg(io.BufferedReader):
    """A file that reports an impossible seek, which damage may cause, by a negative number.

    FFmpeg expects that. An exception here makes PyAV print a stack trace, or report an error of the machine.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Return the new position, or minus the number of an error."""
        try:
            return super().seek(offset, whence)
        except OSError as error:
            return -(error.errno or errno.EINVAL)


def video_stream(source: Path | str, container: InputContainer) -> VideoStream:
    """Return the video stream that players show, or the first that is no cover image or preview, on one thread."""
    shown = container.streams.best("video")
    shown_first = sorted(container.streams.video, key=lambda stream: stream is not shown)
    streams = [stream for stream in shown_first if not stream.disposition & NO_VIDEO]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise VideoError(f"{source}: no video stream, only {kinds}. Give a video, or {SKIP}")
    if streams[0].codec_context is None:
        raise VideoError(f"{source}: FFmpeg has no decoder for its video. Re-encode it, for example as H.264.")
    # Clips are small: several at once with one thread each are faster than several threads on one clip.
    streams[0].codec_context.thread_count = 1
    return streams[0]

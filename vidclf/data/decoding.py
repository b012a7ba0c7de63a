"""Frames of a video file, exact and checked: damage to what is decoded is an error, never a wrong frame.

Frames are counted in the order in which the decoder returns them, and turned upright where their container says how.
Times are looked at only to tell a video whose frames come unevenly, and never in AVI: in B-frame XVID AVI, UCF101's
format, they do not follow the pictures. Pixels that are not square are left as they are stored.
"""

import os
import struct
import traceback
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Int, UInt8
from torch import Tensor

from vidclf.data.files import FileForFFmpeg
from vidclf.data.mpeg4 import skip_unneeded
from vidclf.data.timeline import are_even, fitting_rate, time_line
from vidclf.errors import VidclfError, VideoError

SKIP = "pass dataset.on_error=skip to leave it out (it is listed and counted)."
ADVICE = f"Delete it and extract it again from the archive, or {SKIP}"
NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
HELD_BYTES = 2**26  # of a file whose packets are held to choose among them


@dataclass(frozen=True)
class VideoInfo:
    """What one look at a whole file says.

    Attributes:
        num_frames: that decode; where they come unevenly, those of the even time line that samplings see.
        fps: of these, in frames a second.
        width: of each frame in pixels, upright.
        height: likewise.
        shown_from: from which frame of the time line on each frame that decodes is shown; empty: they are the same.
    """

    num_frames: int
    fps: float
    width: int
    height: int
    shown_from: tuple[int, ...] = ()

    def frames_at(self, positions: Int[Tensor, "*views"]) -> Int[Tensor, "*views"]:
        """Return which decoded frame is shown at each position of the time line."""
        if not self.shown_from:
            return positions
        return torch.searchsorted(torch.tensor(self.shown_from), positions, right=True) - 1


def inspect(path: Path | str) -> VideoInfo:
    """Return what is known of a video once every picture of it is decoded.

    Packets are not counted: a packet may show nothing, or half a picture. Colours are not converted.

    Raises:
        VideoError: the file cannot be opened, has no video, or is damaged anywhere.
    """
    path, times, frame = Path(path), list[float | None](), None
    with open_video(path) as (container, stream):
        for _, frame in _decoded(path, container, stream):
            times.append(frame.time)
        if frame is None:
            raise VideoError(f"{path}: its video stream holds no frame. Encode it again, or {SKIP}")
        stated = stream.average_rate, stream.guessed_rate, stream.base_rate
        times_s = _trusted(container, times)
        last_s = float((frame.duration or 0) * (stream.time_base or 0))
        even = are_even(times_s)
        line = None if even else time_line(times_s, last_s, stated)
        if line is None:
            duration_s = _duration_s(container, stream) if even and not _turn_back(container, times) else None
            if even and len(times_s) > 1:  # of the last frame a container may say how long one field is shown
                duration_s = (times_s[-1] - times_s[0]) * len(times_s) / (len(times_s) - 1)
            line = len(times), known_rate(path, fitting_rate(len(times), duration_s, stated)), ()
        transposed = _turn(frame)[0]
    width, height = (frame.height, frame.width) if transposed else (frame.width, frame.height)
    return VideoInfo(line[0], line[1], width, height, line[2])


@contextmanager
def errors_name_video(path: Path) -> Iterator[None]:
    """Tell which video a worker was reading when it failed for another reason than the video, and where.

    Raises:
        VideoError: instead of any error that is not for the user yet.
    """
    try:
        yield
    except VidclfError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise VideoError(
            f"{path}: the worker that read it failed ({type(error).__name__}: {error}, {Path(where.filename).name} "
            f"line {where.lineno}). Mend that, or {SKIP}"
        ) from error


def decode_frames(
    path: Path | str, indices: Int[Tensor, "*views"], whole: bool = False
) -> UInt8[Tensor, "*views 3 H W"]:
    """Return the frames at `indices`, counted in decoding order.

    Args:
        path: any file FFmpeg opens.
        indices: at least one, 0-based, in any order, repeats allowed.
        whole: as in `iterate_frames`.

    Raises:
        VideoError: the file cannot be opened, has no video, ends before the largest index, or is damaged (see
            `iterate_frames`).
    """
    wanted = indices.flatten().tolist()
    if not wanted:
        raise VideoError(
            f"{path}: no frame was asked for (indices of shape {tuple(indices.shape)}). Ask for one or more."
        )
    found = dict(iterate_frames(path, wanted, whole))
    frames = torch.stack([found[index] for index in wanted])  # (V*T, 3, H, W)
    return frames.view(*indices.shape, *frames.shape[1:])


def iterate_frames(
    path: Path | str, wanted: Iterable[int] | None = None, whole: bool = False
) -> Iterator[tuple[int, UInt8[Tensor, "3 H W"]]]:
    """Yield (index, frame) for the `wanted` indices (None: all) in increasing order, from one pass.

    One frame is held at a time. The whole file is decoded, so that it does not depend on the sampling whether damage
    is found, but for frames that no wanted one depends on, where that is certain (see `skip_unneeded`): damage to those
    alone goes unseen.

    Args:
        path: any file FFmpeg opens.
        wanted: 0-based.
        whole: the file is known to be whole, for `inspect` said so: nothing is read behind the last wanted frame.

    Raises:
        VideoError: as `decode_frames`; frames already given stand before the damage.
    """
    path = Path(path)
    missing = None if wanted is None else set(wanted)
    if missing and min(missing) < 0:
        raise VideoError(f"{path}: frame {min(missing)} was asked for; frames are numbered from 0.")
    reformatter = VideoReformatter()  # not thread-safe, and slow to set up: one a pass
    num_frames = 0
    with open_video(path) as (container, stream):
        asked = None if missing is None else frozenset(missing)
        for index, frame in _decoded(path, container, stream, asked, whole):
            num_frames = index + 1
            if missing is None:
                yield index, to_tensor(frame, reformatter)
            elif index in missing:
                missing.remove(index)
                yield index, to_tensor(frame, reformatter)
            if whole and missing is not None and not missing:
                return
    if missing:
        raise VideoError(
            f"{path}: frame {max(missing)} was asked for, but {num_frames} frames decode, numbered from 0. Ask for "
            "those alone; if the file has changed since it was looked at, start again."
        )


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and the video stream that players show; FFmpeg opens nothing else by it.

    Raises:
        VideoError: it cannot be read, or holds no video.
    """
    with ExitStack() as stack:
        try:
            # By a file object: FFmpeg takes names such as `a:b.avi` for protocols and `%03d` for patterns.
            file = stack.enter_context(FileForFFmpeg(path))
            if os.fstat(file.fileno()).st_size == 0:  # of which FFmpeg says this and that, by its ending
                raise VideoError(f"{path}: the file is empty (0 bytes). {ADVICE}")
            # No protocol: a playlist named .avi must not open what it lists.
            options = {"protocol_whitelist": "none"}
            container = stack.enter_context(av.open(file, "r", options=options, metadata_errors="replace"))
        except av.FFmpegError as error:
            raise VideoError(f"{path}: {_why_not_a_video(path)}") from error
        except OSError as error:
            raise VideoError(
                f"{path}: the file cannot be read ({error.strerror}). A video file is needed here."
            ) from error
        yield container, video_stream(path, container)


def _why_not_a_video(path: Path) -> str:
    return (
        f"FFmpeg finds no video in its {path.stat().st_size:,} bytes: it is another kind of file, or "
        f"damaged. Give a video that plays, or {SKIP}"
    )


def video_stream(source: Path | str, container: InputContainer) -> VideoStream:
    """Return the video stream that players show, or the first that is no cover picture or preview, on one thread."""
    shown = container.streams.best("video")
    in_order = sorted(container.streams.video, key=lambda stream: stream is not shown)
    streams = [stream for stream in in_order if not stream.disposition & NO_VIDEO]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise VideoError(f"{source}: no video stream, only {kinds}. Give a video, or {SKIP}")
    if streams[0].codec_context is None:
        raise VideoError(f"{source}: FFmpeg has no decoder for its video. Encode it again, for example as H.264.")
    # Clips are small: several at once, one thread each, are faster than several threads on one.
    streams[0].codec_context.thread_count = 1
    return streams[0]


def known_rate(source: Path | str, fps: float | None) -> float:
    """Return the rate; raise VideoError where there is none."""
    if not fps:
        raise VideoError(f"{source}: the file states no frame rate, which sampling needs. Encode it again with one.")
    return fps


def _trusted(container: InputContainer, times: list[float | None]) -> list[float]:
    """Return when each frame is shown, where that can be trusted; else nothing."""
    times_s = [time for time in times if time is not None]
    is_increasing = all(after > before for before, after in pairwise(times_s))
    return times_s if container.format.name != "avi" and len(times_s) == len(times) and is_increasing else []


def _turn_back(container: InputContainer, times: list[float | None]) -> bool:
    """Whether a container's clock starts anew on the way, as where discs and recorders put parts behind one another.

    What FFmpeg says of its duration is then that of one part.
    """
    times_s = [time for time in times if time is not None]
    return container.format.name != "avi" and any(after < before for before, after in pairwise(times_s))


def _duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _turn(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Return whether a frame is upright once rows and columns change places, then left and right, then up and down.

    Its display matrix (ISO/IEC 14496-12, 6.2.2) says where a pixel goes: x' = a x + c y, y' = b x + d y.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d, *_ = struct.unpack("9i", bytes(matrix))  # type: ignore[call-overload]
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    return (True, c < 0, b < 0) if transposed else (False, a < 0, d < 0)


def to_tensor(frame: VideoFrame, reformatter: VideoReformatter) -> UInt8[Tensor, "3 H W"]:
    """Return a frame as bytes of red, green and blue, upright."""
    stored = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()  # (H, W, 3), padded rows
    picture = torch.from_numpy(np.ascontiguousarray(stored.transpose(2, 0, 1)))  # torch's own copy takes twice as long
    transposed, mirrored, upside_down = _turn(frame)
    if transposed:
        picture = picture.transpose(1, 2)
    dims = [dim for dim, turned in ((2, mirrored), (1, upside_down)) if turned]
    return (picture.flip(dims) if dims else picture).contiguous()


def _decoded(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    wanted: AbstractSet[int] | None = None,
    whole: bool = False,
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield (index, frame) of every frame, or at least of the `wanted` ones; raise where the decoder meets damage.

    A decoder cannot see all of it: arithmetic-coded pictures (H.264's CABAC, VP9) may decode to something from
    bytes that were changed. Only a checksum of the file can.
    """
    num_decoded, size = 0, None
    context = stream.codec_context
    context.options = {"err_detect": "explode"}
    if context.name == "libdav1d":
        # Any bytes are an AV1 picture unless its last bits are checked too. Others reorder frames if so told.
        context.options = {"strict": "strict"}
    packets: Iterable[Packet] = _packets(path, container, stream, whole)
    numbers: Iterator[int] = count()
    if wanted and context.name == "mpeg4" and path.stat().st_size <= HELD_BYTES:
        packets, numbers = skip_unneeded(iter(packets), wanted, whole, context.extradata or b"")
    try:
        for packet in packets:
            for frame in context.decode(packet):
                number = next(numbers, None)
                # A slice that is missing raises nothing: the decoder paints over the hole and marks the picture.
                if frame.is_corrupt or number is None:
                    raise _damaged(path, num_decoded, stream)
                size = size or (frame.width, frame.height)
                if (frame.width, frame.height) != size:
                    raise _resized(path, number, frame, size)
                yield number, frame
                num_decoded += 1
    except av.FFmpegError as error:
        raise _damaged(path, num_decoded, stream) from error


def _resized(path: Path, number: int, frame: VideoFrame, size: tuple[int, int]) -> VideoError:
    return VideoError(
        f"{path}: frame {number} is {frame.width}x{frame.height}, those before {size[0]}x{size[1]}; only "
        "videos of one frame size are read. Encode it again at one size, or pass dataset.on_error=skip."
    )


def _packets(path: Path, container: InputContainer, stream: VideoStream, whole: bool) -> Iterator[Packet]:
    """Yield the packets of `stream`, last an empty one that drains the decoder; raise where the file is damaged."""
    num_packets, ends = 0, {stream.index: 0}  # of each stream, in its own time base: fractions are slow
    is_avi = container.format.name == "avi"
    try:
        others = [] if whole else [*container.streams.audio, *container.streams.subtitles]
        for packet in container.demux(stream, *others):
            if packet.is_corrupt:
                raise _damaged(path, num_packets, stream)
            # An AVI knows when a picture is decoded, a Matroska when it is shown.
            time = packet.dts if is_avi else packet.pts
            if time is not None:
                index = packet.stream_index
                ends[index] = max(time + (packet.duration or 0), ends.get(index, 0))
            if packet.stream is stream:
                num_packets += packet.size > 0
                yield packet
    except av.FFmpegError as error:
        raise _damaged(path, num_packets, stream) from error
    ends_s = {index: float(end * (container.streams[index].time_base or 0)) for index, end in ends.items()}
    if not whole and _is_cut_short(path, container, stream, ends_s):
        raise _damaged(path, num_packets, stream)


def _is_cut_short(path: Path, container: InputContainer, stream: VideoStream, ends_s: dict[int, float]) -> bool:
    """Whether the container promises more than was read from it: frames, bytes or seconds.

    AVI's count goes by time, for it counts repeated frames, which have no packet. MP4's count is no sign: it holds
    frames that the edit list leaves out, and where packets are lost FFmpeg fails anyway. Other containers (MPEG-TS,
    WMV, GIF, ...) promise nothing that FFmpeg reports: there, a lost end goes unseen unless it cuts a picture in two.
    `ends_s` says when the last packet of each stream ends.
    """
    if container.format.name == "avi":
        return round(ends_s[stream.index] * float(stream.average_rate or 0)) < stream.frames
    if container.format.name == "matroska,webm":
        # A tenth or a frame, because how long the last one is shown its packet may not tell.
        stated_s = (container.duration or 0) / av.time_base
        slack_s = max(0.1 * stated_s, 1.5 / float(stream.average_rate or 1))
        return path.stat().st_size < _segment_end(path) or max(ends_s.values()) < stated_s - slack_s
    return False


def _segment_end(path: Path) -> int:
    """Return the size in bytes that a Matroska file has by its own header (RFC 8794, 4 and 6); 0 where unknown."""
    with path.open("rb") as file:
        header = file.read(4096)
    start = header.find(b"\x18\x53\x80\x67") + 4  # the Segment's id; its size follows
    length = 9 - header[start].bit_length()
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(header[start : start + length]) & unknown
    return 0 if size == unknown else start + length + size


def _damaged(path: Path, num_decoded: int, stream: VideoStream) -> VideoError:
    if not num_decoded:
        return VideoError(
            f"{path}: no frame of its {stream.codec_context.name} video decodes. It is damaged from its beginning, or "
            f"of a kind that FFmpeg {av.ffmpeg_version_info} cannot decode (animated WebP is one): see whether another "
            f"player shows it, and encode it again, for example as H.264; or {SKIP}"
        )
    stated = stream.frames or len(stream.index_entries)
    whole = str(stated) if stated > num_decoded else "an unknown number of"
    return VideoError(f"{path}: {num_decoded} of {whole} frames decode; the file is damaged. {ADVICE}")

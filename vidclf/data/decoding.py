"""Read the frames of a video file: exact and checked. Damage is an error, never a wrong frame.

Frames are counted in the order in which the decoder returns them, and turned upright as the container says. Times serve
only to recognise a video with an uneven frame rate, and never in AVI: in XVID with B-frames, UCF101's format, they do
not follow the frames. Pixels that are not square stay as they are stored.
"""

import errno
import io
import math
import os
import struct
import traceback
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, pairwise
from pathlib import Path
from statistics import median

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

from vidclf.data.mpeg4 import skip_unneeded
from vidclf.errors import VidclfError, VideoError

SKIP = "pass dataset.on_error=skip."
NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
HELD_BYTES = 2**26  # largest file that skip_unneeded holds in memory
RATE_TOLERANCE = 0.02  # of the frames, and at least two frames: how far a stated rate may miss frames / duration
MAX_STRETCH = 20  # time line frames per decoded frame; more means that the times are a mistake

Rates = Sequence[Fraction | None]  # as a container states them, the most likely first


@dataclass(frozen=True)
class VideoInfo:
    """The facts that decoding a whole file gives.

    Attributes:
        num_frames: number of decoded frames; for uneven frames, length of the even time line that samplings see.
        fps: rate of these, in frames per second.
        width: of each upright frame, in pixels.
        height: likewise.
        shown_from: for each decoded frame, the position on the time line where it appears; empty: they are the same.
    """

    num_frames: int
    fps: float
    width: int
    height: int
    shown_from: tuple[int, ...] = ()

    def frames_at(self, positions: Int[Tensor, "*views"]) -> Int[Tensor, "*views"]:
        """Return the decoded frame that is shown at each position of the time line."""
        if not self.shown_from:
            return positions
        return torch.searchsorted(torch.tensor(self.shown_from), positions, right=True) - 1


def inspect(path: Path | str) -> VideoInfo:
    """Decode a whole video and return its facts.

    Counting packets is not enough: a packet may show nothing, or half a frame. Colours are not converted.

    Raises:
        VideoError: the file cannot be opened, has no video, or is damaged anywhere.
    """
    path, times, frame = Path(path), list[float | None](), None
    with open_video(path) as (container, stream):
        for _, frame in _decoded(path, container, stream):
            times.append(frame.time)
        if frame is None:
            raise VideoError(f"{path}: the video stream holds no frame. Re-encode it, or {SKIP}")
        last_s = float((frame.duration or 0) * (stream.time_base or 0))
        num_frames, fps, shown_from = _timing(container, stream, times, last_s)
        transposed = _turn(frame)[0]
    width, height = (frame.height, frame.width) if transposed else (frame.width, frame.height)
    return VideoInfo(num_frames, known_rate(path, fps), width, height, shown_from)


@contextmanager
def errors_name_video(path: Path) -> Iterator[None]:
    """Turn an unexpected error into a VideoError that names the video and the line of code."""
    try:
        yield
    except VidclfError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise VideoError(
            f"{path}: the worker that read it failed ({type(error).__name__}: {error}, {Path(where.filename).name} "
            f"line {where.lineno}). Fix that, or {SKIP}"
        ) from error


def decode_frames(
    path: Path | str, indices: Int[Tensor, "*views"], whole: bool = False
) -> UInt8[Tensor, "*views 3 H W"]:
    """Return the frames at `indices`, counted in decoding order.

    Args:
        path: any file that FFmpeg opens.
        indices: at least one, 0-based, in any order, repeats allowed.
        whole: as in `iterate_frames`.

    Raises:
        VideoError: the file cannot be opened, has no video, ends before the largest index, or is damaged (see
            `iterate_frames`).
    """
    wanted = indices.flatten().tolist()
    if not wanted:
        raise VideoError(f"{path}: no frame was asked for (indices of shape {tuple(indices.shape)}). Ask for some.")
    decoded = dict(iterate_frames(path, wanted, whole))
    frames = torch.stack([decoded[index] for index in wanted])  # (V*T, 3, H, W)
    return frames.view(*indices.shape, *frames.shape[1:])


def iterate_frames(
    path: Path | str, wanted: Iterable[int] | None = None, whole: bool = False
) -> Iterator[tuple[int, UInt8[Tensor, "3 H W"]]]:
    """Yield (index, frame) for the `wanted` indices (None: all) in increasing order, in one pass.

    One frame is held at a time. The whole file is decoded, so that every sampling detects damage. Only frames that no
    wanted frame depends on are skipped, where that is certain (see `skip_unneeded`): damage to them goes unseen.

    Args:
        path: any file that FFmpeg opens.
        wanted: 0-based.
        whole: whether `inspect` has found the file undamaged: reading then stops at the last wanted frame.

    Raises:
        VideoError: as `decode_frames`; frames that were yielded are correct.
    """
    path = Path(path)
    missing = None if wanted is None else set(wanted)
    if missing and min(missing) < 0:
        raise VideoError(f"{path}: frame {min(missing)} was asked for; frames are numbered from 0.")
    reformatter = VideoReformatter()  # not thread-safe and slow to create: one per pass
    num_frames = 0
    with open_video(path) as (container, stream):
        needed = None if missing is None else frozenset(missing)
        for index, frame in _decoded(path, container, stream, needed, whole):
            num_frames = index + 1
            if missing is None or index in missing:
                yield index, to_tensor(frame, reformatter)
            if missing is not None:
                missing.discard(index)
                if whole and not missing:
                    return
    if missing:
        raise VideoError(
            f"{path}: frame {max(missing)} was asked for, but {num_frames} frames decode, numbered from 0. If the "
            "file has changed since it was examined, start again."
        )


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and the video stream that players show; FFmpeg opens no other file.

    Raises:
        VideoError: the file cannot be read, or holds no video.
    """
    with ExitStack() as stack:
        try:
            # A file object, because FFmpeg reads names such as `a:b.avi` as protocols and `%03d` as patterns.
            file = stack.enter_context(FileForFFmpeg(path))
            if os.fstat(file.fileno()).st_size == 0:  # FFmpeg's own message depends on the file's extension
                raise VideoError(f"{path}: the file is empty (0 bytes). Re-extract it, or {SKIP}")
            # No protocol: a playlist named .avi must not open the files that it lists.
            options = {"protocol_whitelist": "none"}
            container = stack.enter_context(av.open(file, "r", options=options, metadata_errors="replace"))
        except av.FFmpegError as error:
            raise VideoError(
                f"{path}: FFmpeg finds no video in its {path.stat().st_size:,} bytes: it is another kind of file, or "
                f"damaged. Give a video that plays, or {SKIP}"
            ) from error
        except OSError as error:
            raise VideoError(f"{path}: the file cannot be read ({error.strerror}). Give a video file.") from error
        yield container, video_stream(path, container)


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


def known_rate(source: Path | str, fps: float | None) -> float:
    """Return the rate; raise VideoError if it is unknown."""
    if not fps:
        raise VideoError(f"{source}: the file states no frame rate, which sampling needs. Re-encode it with one.")
    return fps


def fitting_rate(num_frames: int, duration_s: float | None, stated: Rates) -> float | None:
    """Return the first stated rate that fits `num_frames` in `duration_s`, else the measured one; None: unknown.

    Raw DV states 60,000 frames per second, and interlaced H.264 in MPEG-TS may state the rate of its fields.
    """
    rates = [float(rate) for rate in stated if rate]
    if not duration_s or duration_s <= 0:
        return rates[0] if rates else None
    allowed = max(2, RATE_TOLERANCE * num_frames)
    fitting = (rate for rate in rates if abs(num_frames - rate * duration_s) <= allowed)
    measured = num_frames / duration_s
    return next(fitting, float(Fraction(measured).limit_denominator(1001)) or measured)  # 30000/1001 is a rate


def are_even(times_s: Sequence[float]) -> bool:
    """Return whether each frame is nearest to its place on an even time line from the first frame to the last."""
    last = len(times_s) - 1
    if last < 2:
        return True
    step = (times_s[-1] - times_s[0]) / last
    return all(abs((time - times_s[0]) / step - index) < 0.5 for index, time in enumerate(times_s))


def time_line(times_s: Sequence[float], last_s: float, stated: Rates) -> tuple[int, float, tuple[int, ...]] | None:
    """Return an even time line for uneven frames; None if it would be absurdly long.

    Args:
        times_s: time of each frame, increasing, two or more.
        last_s: duration of the last frame.
        stated: rates; the one nearest to the median step is used if it is near, else the median step itself.

    Returns:
        Number of frames, rate in frames per second, and the position where each decoded frame appears.
    """
    step = median(after - before for before, after in pairwise(times_s))
    near = [float(rate) for rate in stated if rate and abs(float(rate) * step - 1) <= 0.1]
    fps = min(near, key=lambda rate: abs(rate * step - 1), default=1 / step)
    # Matroska rounds times to milliseconds, which is less than a tenth of a frame.
    shown_from = tuple(max(0, math.ceil((time - times_s[0]) * fps - 0.1)) for time in times_s)
    num_frames = max(shown_from[-1] + 1, round((times_s[-1] - times_s[0] + last_s) * fps))
    return (num_frames, fps, shown_from) if num_frames <= MAX_STRETCH * len(times_s) else None


def _timing(
    container: InputContainer, stream: VideoStream, times: Sequence[float | None], last_s: float
) -> tuple[int, float | None, tuple[int, ...]]:
    """Return the length, rate and `shown_from` of a VideoInfo, from each frame's time and the last one's duration."""
    rates = stream.average_rate, stream.guessed_rate, stream.base_rate
    known = [time for time in times if time is not None and container.format.name != "avi"]
    is_increasing = all(after > before for before, after in pairwise(known))
    times_s = known if is_increasing and len(known) == len(times) else []  # those that can be trusted
    even = are_even(times_s)
    line = None if even else time_line(times_s, last_s, rates)
    if line is not None:
        return line
    duration_s = None
    if even and len(times_s) > 1:  # the container may state the duration of one field for the last frame
        duration_s = (times_s[-1] - times_s[0]) * len(times_s) / (len(times_s) - 1)
    elif even and all(after >= before for before, after in pairwise(known)):
        # Else the clock restarts, as where discs and recorders join recordings: FFmpeg states the duration of one.
        own_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
        duration_s = own_s or (container.duration / av.time_base if container.duration else None)
    return len(times), fitting_rate(len(times), duration_s, rates), ()


def _turn(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Return whether to transpose a frame, then mirror it left to right, then upside down, to show it upright.

    Its display matrix (ISO/IEC 14496-12, 6.2.2) moves pixels: x' = a x + c y, y' = b x + d y.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d, *_ = struct.unpack("9i", bytes(matrix))  # type: ignore[call-overload]
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    return (True, c < 0, b < 0) if transposed else (False, a < 0, d < 0)


def to_tensor(frame: VideoFrame, reformatter: VideoReformatter) -> UInt8[Tensor, "3 H W"]:
    """Return a frame as upright RGB bytes."""
    stored = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()  # (H, W, 3), padded rows
    image = torch.from_numpy(np.ascontiguousarray(stored.transpose(2, 0, 1)))  # torch's copy takes twice as long
    transposed, mirrored, upside_down = _turn(frame)
    if transposed:
        image = image.transpose(1, 2)
    dims = [dim for dim, turned in ((2, mirrored), (1, upside_down)) if turned]
    return (image.flip(dims) if dims else image).contiguous()


def _decoded(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    wanted: AbstractSet[int] | None = None,
    whole: bool = False,
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield (index, frame) of every frame, or at least of the `wanted` ones; raise where the decoder detects damage.

    No decoder detects all damage: arithmetic-coded frames (H.264's CABAC, VP9) may decode to something from changed
    bytes. Only a checksum of the file does.
    """
    num_decoded, size = 0, None
    context = stream.codec_context
    context.options = {"err_detect": "explode"}
    if context.name == "libdav1d":
        # Any bytes are a valid AV1 frame unless its last bits are checked. Strict makes other decoders reorder frames.
        context.options = {"strict": "strict"}
    packets: Iterable[Packet] = _packets(path, container, stream, whole)
    numbers: Iterator[int] = count()
    if wanted and context.name == "mpeg4" and path.stat().st_size <= HELD_BYTES:
        packets, numbers = skip_unneeded(iter(packets), wanted, whole, context.extradata or b"")
    try:
        for packet in packets:
            for frame in context.decode(packet):
                number = next(numbers, None)
                # A missing slice raises nothing: the decoder conceals the hole and marks the frame.
                if frame.is_corrupt or number is None:
                    raise _damaged(path, num_decoded, stream)
                size = size or (frame.width, frame.height)
                if (frame.width, frame.height) != size:
                    raise VideoError(
                        f"{path}: frame {number} is {frame.width}x{frame.height}, those before {size[0]}x{size[1]}. "
                        f"Re-encode it at one frame size, or {SKIP}"
                    )
                yield number, frame
                num_decoded += 1
    except av.FFmpegError as error:
        raise _damaged(path, num_decoded, stream) from error


def _packets(path: Path, container: InputContainer, stream: VideoStream, whole: bool) -> Iterator[Packet]:
    """Yield the packets of `stream` and an empty one, which drains the decoder; raise where the file is damaged."""
    num_packets, ends = 0, {stream.index: 0}  # of each stream, in its time base: fractions are slow
    is_avi = container.format.name == "avi"
    try:
        sound_and_text = [] if whole else [*container.streams.audio, *container.streams.subtitles]
        for packet in container.demux(stream, *sound_and_text):
            if packet.is_corrupt:
                raise _damaged(path, num_packets, stream)
            # AVI stores when a frame is decoded, Matroska when it is shown.
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
    """Return whether the container states more frames, bytes or seconds than were read from it.

    AVI is compared by time, because its count includes repeated frames, which have no packet. MP4's count is not used:
    it includes frames that the edit list removes, and FFmpeg fails anyway if packets are missing. Other containers
    (MPEG-TS, WMV, GIF, ...) state nothing that FFmpeg reports: a missing end goes unseen unless it cuts a frame in two.
    `ends_s` is the end of each stream's last packet.
    """
    if container.format.name == "avi":
        return round(ends_s[stream.index] * float(stream.average_rate or 0)) < stream.frames
    if container.format.name == "matroska,webm":
        # A tenth, or a frame and a half, because the last packet may not state its duration.
        stated_s = (container.duration or 0) / av.time_base
        slack_s = max(0.1 * stated_s, 1.5 / float(stream.average_rate or 1))
        return path.stat().st_size < _segment_end(path) or max(ends_s.values()) < stated_s - slack_s
    return False


def _segment_end(path: Path) -> int:
    """Return the size in bytes that the header of a Matroska file states (RFC 8794, 4 and 6); 0: unknown."""
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
            f"of a kind that FFmpeg {av.ffmpeg_version_info} cannot decode (such as animated WebP). If another player "
            f"shows it, re-encode it, for example as H.264; or {SKIP}"
        )
    stated = stream.frames or len(stream.index_entries)
    total = str(stated) if stated > num_decoded else "an unknown number of"
    return VideoError(f"{path}: {num_decoded} of {total} frames decode; the file is damaged. Re-extract it, or {SKIP}")

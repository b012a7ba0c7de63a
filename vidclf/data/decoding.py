"""Read the frames of a video file: exact and checked. Damage is an error, never a wrong frame.

Frames are counted in the order in which the decoder returns them, and turned upright as the container says. Times serve
only to recognise a video with an uneven frame rate, and never in AVI: in XVID with B-frames, UCF101's format, they do
not follow the frames. Pixels that are not square stay as they are stored.
"""

import math
import struct
import traceback
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Int, UInt8
from torch import Tensor

from vidclf.data.mpeg4 import skip_unneeded
from vidclf.data.opening import SKIP, open_video
from vidclf.data.packets import NEEDED_UNITS, begins_within_group, damaged, read_packets, without_messages
from vidclf.data.timing import find_line, known_rate
from vidclf.errors import VidclfError, VideoError
from vidclf.system.terminal import say

HELD_BYTES = 2**26  # largest file that skip_unneeded holds in memory
# Their decoders show frames of a recording that begins between two key frames before there is one to build them on.
SHOWN_WITHOUT_KEY = {"flv", "h263", "mpeg4", "msmpeg4", "msmpeg4v1", "msmpeg4v2", "wmv1", "wmv2"}
FAIL_WITHOUT_KEY = {"vp8", "vp9"}  # their decoders raise instead


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
            raise damaged(path, 0, stream)
        last_s = float((frame.duration or 0) * (stream.time_base or 0))
        num_frames, fps, shown_from = find_line(path, container, stream, times, last_s)
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


def _turn(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Return whether to transpose a frame, then mirror it left to right, then upside down, to show it upright.

    Its display matrix (ISO/IEC 14496-12, 6.2.2) moves pixels: x' = a x + c y, y' = b x + d y.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return False, False, False
        a, b, _, c, d, *_ = struct.unpack("9i", bytes(matrix))  # type: ignore[call-overload]
    except ValueError:  # PyAV 18 does not know all side data, such as EXIF, and reads none then; the angle remains
        angle = math.radians(frame.rotation)
        a, b, c, d = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
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
    num_strict: int | None = None,
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield (index, frame) of every frame, or at least of the `wanted` ones; raise where the decoder detects damage.

    No decoder detects all damage: arithmetic-coded frames (H.264's CABAC, VP9) may decode to something from changed
    bytes. Only a checksum of the file does. `num_strict` frames decode before the first damaged message, if messages
    are to be ignored.
    """
    num_decoded, size = 0, None
    context = stream.codec_context
    try:
        all_packets = read_packets(path, container, stream, whole)
        first = next(all_packets, Packet())
        packets: Iterable[Packet] = chain([first], all_packets)
        is_cut = begins_within_group(first, stream)
        context.options = _checks(context.name, is_cut)
        numbers: Iterator[int] = count()
        if num_strict is not None:
            packets = without_messages(packets, stream)
        elif wanted and context.name == "mpeg4" and path.stat().st_size <= HELD_BYTES:
            packets, numbers = skip_unneeded(iter(packets), wanted, whole, context.extradata or b"")
        for frame in _built(path, context, packets, is_cut, whole):
            number = next(numbers, None)
            # A missing slice raises nothing: the decoder conceals the hole and marks the frame.
            if frame.is_corrupt or number is None:
                raise damaged(path, max(num_decoded, num_strict or 0), stream)
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise VideoError(
                    f"{path}: frame {number} is {frame.width}x{frame.height}, those before {size[0]}x{size[1]}. "
                    f"Re-encode it at one frame size, or {SKIP}"
                )
            yield number, frame
            num_decoded += 1
        return
    except av.FFmpegError as error:
        if num_strict is not None or context.name not in NEEDED_UNITS:
            raise damaged(path, max(num_decoded, num_strict or 0), stream) from error
    # Perhaps only the messages beside the images are damaged: go on without them.
    with open_video(path) as (again, same):
        yield from islice(_decoded(path, again, same, wanted, whole, num_decoded), num_decoded, None)


def _checks(codec: str, is_cut: bool) -> dict[str, str]:
    """Return the options that make a decoder raise at damage, and not at what is sound."""
    if codec == "libdav1d":
        # Any bytes are a valid AV1 frame unless its last bits are checked. Strict makes other decoders reorder frames.
        return {"strict": "strict"}
    # Else TIFF raises at tags that it does not know, and H.264 where frames before the cut are missing.
    is_strict = codec != "tiff" and not (is_cut and codec in NEEDED_UNITS)
    return {"err_detect": "explode"} if is_strict else {}


def _built(
    path: Path, context: VideoCodecContext, packets: Iterable[Packet], is_cut: bool, whole: bool
) -> Iterator[VideoFrame]:
    """Yield frames, from the first one that can be built on; say how many are left out before it."""
    is_leading = is_cut or context.name in SHOWN_WITHOUT_KEY
    num_hidden, times = 0, []
    for packet in packets:
        is_leading &= not packet.is_discard  # an edit list hides the frames that the first one is built on
        if is_leading and packet.pts is not None:
            times.append(packet.pts)
        try:
            frames = context.decode(packet)
        except av.InvalidDataError:
            if not (is_leading and context.name in FAIL_WITHOUT_KEY):
                raise
            continue
        for frame in frames:
            if is_leading and context.name in SHOWN_WITHOUT_KEY and not frame.key_frame:
                num_hidden += 1
                continue
            num_left_out = num_hidden or sum(time < frame.pts for time in times if frame.pts is not None)
            if is_leading and num_left_out and not whole:
                say(f"{path}: {num_left_out} images before its first key frame cannot be built and are left out.")
            is_leading = False
            yield frame

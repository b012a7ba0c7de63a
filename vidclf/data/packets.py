"""Read the packets of a video stream, and notice where a container shows that some are missing or damaged."""

import errno
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vidclf.data.opening import SKIP
from vidclf.errors import VideoError

FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # the id of an object in ASF's header
ASF_TOLERANCE = 0.95  # of the stated size: FFmpeg, too, takes a file for whole that misses by less than a twentieth
EMPTY_REPEATS = ("theora", "vp3")  # codecs in which a packet of no bytes shows the frame before it for longer
# Types of units (ITU-T H.264, table 7-1; H.265, table 7-1): where decoding can begin, and all but messages (SEI).
KEY_UNITS = {"h264": "5", "hevc": "16-23"}
NEEDED_UNITS = {"h264": "1-5|7-8|13-20", "hevc": "0-34|36-37"}


def read_packets(path: Path, container: InputContainer, stream: VideoStream, whole: bool) -> Iterator[Packet]:
    """Yield the packets of `stream` and an empty one, which drains the decoder; raise where the file is damaged."""
    num_packets, ends = 0, {stream.index: 0}  # of each stream, in its time base: fractions are slow
    is_avi = container.format.name == "avi"
    may_be_empty = stream.codec_context.name in EMPTY_REPEATS
    try:
        sound_and_text = [] if whole else [*container.streams.audio, *container.streams.subtitles]
        for packet in container.demux(stream, *sound_and_text):
            if packet.is_corrupt:
                raise damaged(path, num_packets, stream)
            # AVI stores when a frame is decoded, Matroska when it is shown.
            time = packet.dts if is_avi else packet.pts
            if time is not None:
                index = packet.stream_index
                ends[index] = max(time + (packet.duration or 0), ends.get(index, 0))
            if packet.stream is stream:
                num_packets += packet.size > 0
                if packet.size or time is None or not may_be_empty:
                    yield packet
    except av.FFmpegError as error:
        raise damaged(path, num_packets, stream) from error
    ends_s = {index: float(end * (container.streams[index].time_base or 0)) for index, end in ends.items()}
    if not whole and _is_cut_short(path, container, stream, ends_s):
        raise damaged(path, num_packets, stream)


def begins_within_group(first: Packet, stream: VideoStream) -> bool:
    """Return whether a stream's first packet is not one where decoding can begin, as in recordings and cuts."""
    types = KEY_UNITS.get(stream.codec_context.name)
    if types is None:
        return not first.is_keyframe
    keys = BitStreamFilterContext(f"filter_units=pass_types={types}", stream)
    return not keys.filter(Packet(bytes(first)))


def without_messages(packets: Iterable[Packet], stream: VideoStream) -> Iterator[Packet]:
    """Yield packets without their SEI messages, which some cameras write wrongly and no image depends on.

    Raises:
        av.FFmpegError: nothing but messages is in a packet, or its units are damaged.
    """
    needed = BitStreamFilterContext(f"filter_units=pass_types={NEEDED_UNITS[stream.codec_context.name]}", stream)
    for packet in packets:
        remaining = needed.filter(packet) if packet.size else [packet]
        if not remaining:
            raise av.InvalidDataError(errno.EINVAL, "a packet without an image")
        yield from remaining


def _is_cut_short(path: Path, container: InputContainer, stream: VideoStream, ends_s: dict[int, float]) -> bool:
    """Return whether the container states more frames, bytes or seconds than were read from it.

    AVI is compared by time, because its count includes repeated frames, which have no packet. MP4's count is not used:
    it includes frames that the edit list removes; its index must not lead beyond the file. Other containers (MPEG-TS,
    GIF, ...) state nothing that FFmpeg reports: a missing end goes unseen unless it cuts a frame in two.
    `ends_s` is the end of each stream's last packet.
    """
    if container.format.name == "avi":
        return round(ends_s[stream.index] * float(stream.average_rate or 0)) < stream.frames
    if container.format.name in ("asf", "flv", "matroska,webm"):
        # A tenth, or a frame and a half, because the last packet may not state its duration.
        stated_s = (container.duration or 0) / av.time_base
        slack_s = max(0.1 * stated_s, 1.5 / float(stream.average_rate or 1))
        is_short = max(ends_s.values()) < stated_s - slack_s
        return is_short or path.stat().st_size < _stated_size(path, container)
    if container.format.name.startswith("mov,"):
        entries = (entry for stream in container.streams for entry in stream.index_entries)
        return any(entry.pos + entry.size > path.stat().st_size for entry in entries)
    return False


def _stated_size(path: Path, container: InputContainer) -> int:
    """Return the size in bytes that the header of a file states; 0: unknown.

    Sources: Matroska, RFC 8794, 4 and 6; ASF (WMV), Microsoft's specification, 3.2.
    """
    with path.open("rb") as file:
        header = file.read(4096).ljust(8192, b"\0")
    if container.format.name == "asf":
        start = header.find(FILE_PROPERTIES)
        size, flags = struct.unpack_from("<40xQ40xB", header, max(0, start))
        is_live = flags & 1  # its size was not known when the header was written
        return 0 if start < 0 or is_live else int(size * ASF_TOLERANCE)
    if container.format.name == "matroska,webm":
        start = header.find(b"\x18\x53\x80\x67") + 4  # the Segment's id; its size follows
        length = 9 - header[start].bit_length()
        unknown = (1 << 7 * length) - 1
        size = int.from_bytes(header[start : start + length]) & unknown
        return 0 if size == unknown else start + length + size
    return 0


def damaged(path: Path, num_decoded: int, stream: VideoStream) -> VideoError:
    """Return the error of a damaged file, of which `num_decoded` frames could be decoded."""
    if not num_decoded:
        return VideoError(
            f"{path}: no frame of its {stream.codec_context.name} video decodes. It is damaged from its beginning, or "
            f"of a kind that FFmpeg {av.ffmpeg_version_info} cannot decode (such as animated WebP). If another player "
            f"shows it, re-encode it, for example as H.264; or {SKIP}"
        )
    stated = stream.frames or len(stream.index_entries)
    total = str(stated) if stated > num_decoded else "an unknown number of"
    return VideoError(f"{path}: {num_decoded} of {total} frames decode; the file is damaged. Re-extract it, or {SKIP}")

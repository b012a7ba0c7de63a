"""Skip the frames of an MPEG-4 part 2 stream (XVID, DivX: UCF101's codecs) that no wanted frame depends on.

A P-frame is predicted from the last frame before it that is not a B-frame, a B-frame from the last two, and nothing
from a B-frame. A decoder outputs B-frames at once and every other frame when the next such frame comes, so frames can
be numbered without decoding. Nothing is skipped unless the stream is unambiguous. (ISO/IEC 14496-2, 6.2, and FFmpeg's
behaviour. The standard calls a coded frame a VOP.)
"""

import re
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import chain, count

from av.packet import Packet

INTRA, PREDICTED, BIDIRECTIONAL = 0, 1, 2
LAYER, USER_DATA, GROUP, FRAME = range(0x20, 0x30), 0xB2, 0xB3, 0xB6  # last bytes of start codes
START = re.compile(rb"\x00\x00\x01([\x20-\x2f\xb2\xb3\xb6])")
PACKED = re.compile(rb"\x00\x00\x01\xb2DivX\d+(Build|b)\d+p")  # a packet may hold a B-frame behind another frame
MIN_CODED = 32  # bytes: a frame that repeats the one before and codes nothing has a dozen
MAX_FILLER = 19  # bytes of a packet without a frame, for which the decoder outputs the pending one


def skip_unneeded(
    packets: Iterator[Packet], wanted: AbstractSet[int], whole: bool, extradata: bytes
) -> tuple[Iterable[Packet], Iterator[int]]:
    """Return the packets that the `wanted` frames depend on, and the numbers of the frames that they decode to.

    An empty packet behind them drains the decoder. If the file is known to be `whole`, packets are read until the last
    wanted frame has its number; otherwise all are read, so that damage behind that frame is detected.
    """
    held: list[Packet] = []
    frames = CodedFrames(extradata)
    for packet in packets:
        held.append(packet)
        if not packet.size:
            frames.end()
            break
        if packet.is_discard or not frames.add(packet):
            return chain(held, packets), count()
        if whole and frames.num_numbered > max(wanted) and not frames.is_pending:
            break
    if frames.num_numbered <= max(wanted):
        return chain(held, packets), count()  # the stream is too short: decode and count all frames
    needed = frames.needed(wanted)
    numbers = sorted(frames.numbers[index] for index in needed)
    return [*(frames.packets[index] for index in needed), Packet(), *([] if whole else packets)], iter(numbers)


class CodedFrames:
    """The coded frames of a stream in decoding order, collected packet by packet.

    Attributes:
        packets: one for each coded frame.
        numbers: of the decoded frames; that of the last reference may still grow.
        num_numbered: how many frames have their final number.
        is_pending: whether the decoder still holds a frame that came behind another in its packet.
    """

    def __init__(self, extradata: bytes) -> None:
        self.extradata = extradata
        self.packets: list[Packet] = []
        self.kinds: list[int] = []
        self.numbers: list[int] = []
        self.references: list[int] = []  # positions of all but the B-frames
        self.num_numbered, self.is_pending = 0, False
        self.is_packed = bool(PACKED.search(extradata))
        self.clock = Clock(_ticks_per_second(extradata))

    def add(self, packet: Packet) -> bool:
        """Add the next packet; return False if it is ambiguous."""
        data = bytes(packet)
        starts = self._starts(data)
        first, last = (starts[0], starts[-1]) if starts else (0, len(data))
        kind = data[last] >> 6 if last < len(data) else None
        if len(starts) == 1 and not self.is_pending:
            return self._add(packet, data[first:])
        if len(starts) == 1 and kind == PREDICTED and len(data) <= MAX_FILLER:
            self.is_pending = False
            return True
        if kind != BIDIRECTIONAL or not self.is_packed or len(starts) + self.is_pending > 2:
            return False
        self.is_pending = True
        if len(starts) == 1:
            return self._add(packet, data[first:])
        before, behind = data[: last - 4], data[last - 4 :]
        return self._add(_packet(before), before[first:]) and self._add(_packet(behind), behind[4:])

    def end(self) -> None:
        """Finish: no packet follows. A frame that is still pending is never decoded."""
        if self.is_pending:
            for column in (self.packets, self.kinds, self.numbers):
                column.pop()
            self.num_numbered -= 1
        if self.references:
            self.numbers[self.references[-1]] = self.num_numbered
            self.num_numbered += 1

    def needed(self, wanted: AbstractSet[int]) -> list[int]:
        """Return the positions of the wanted frames and of the frames that they depend on."""
        needed = []
        num_references = 0  # how many of the next references back a later frame depends on
        for index in reversed(range(len(self.packets))):
            kind, is_wanted = self.kinds[index], self.numbers[index] in wanted
            if kind == BIDIRECTIONAL:
                num_references = 2 if is_wanted else num_references
            elif num_references or is_wanted:
                num_references = max(num_references - 1, kind == PREDICTED)
            else:
                continue
            if is_wanted or kind != BIDIRECTIONAL:
                needed.append(index)
        return needed[::-1]

    def _starts(self, data: bytes) -> list[int]:
        """Return where the frames of a packet begin, behind their start codes; read its other headers."""
        starts = []
        for match in START.finditer(data):
            code = match[1][0]
            if code == FRAME:
                starts.append(match.end())
            elif code == GROUP:
                self.clock.is_certain &= not self.packets  # later groups reset the clock
            elif code == USER_DATA:
                if data.startswith(b"DivX", match.end()):
                    self.is_packed = bool(PACKED.match(data, match.start()))
            else:
                end = data.find(b"\x00\x00\x01", match.end())
                self.clock.is_certain &= data[match.start() : end] in self.extradata  # the same layer as the first
        return starts

    def _add(self, packet: Packet, frame: bytes) -> bool:
        kind = frame[0] >> 6 if frame else None
        if kind == BIDIRECTIONAL:
            if len(self.references) < 2 or not self.clock.is_between(frame):
                return False
            self.numbers[self.references[-1]] += 1
        elif len(frame) < MIN_CODED or not (kind == INTRA or (kind == PREDICTED and self.references)):
            return False
        else:
            self.clock.advance_to(frame)
            self.num_numbered += bool(self.references)
            self.references.append(len(self.packets))
        self.packets.append(packet)
        self.kinds.append(frame[0] >> 6)
        self.numbers.append(self.num_numbered)
        self.num_numbered += kind == BIDIRECTIONAL
        return True


class Clock:
    """Checks that a B-frame lies in time between the two references before it; a decoder drops any other.

    `ticks` are per second; None: the stream's B-frames are not understood. `is_certain` turns False at the first doubt.
    """

    def __init__(self, ticks: int | None) -> None:
        self.ticks, self.is_certain = ticks or 1, ticks is not None
        self.before = self.now = (0, -1)  # seconds and ticks of the last two references

    def advance_to(self, reference: bytes) -> None:
        """Read the time of the next frame that is not a B-frame."""
        if self.is_certain:
            self.before, self.now = self.now, self._read(reference, self.now[0])
            self.is_certain &= self.now > self.before

    def is_between(self, frame: bytes) -> bool:
        """Return whether a B-frame is coded and lies between its references."""
        if not self.is_certain:
            return False
        time = self._read(frame, self.before[0])
        return self.is_certain and self.before < time < self.now

    def _read(self, frame: bytes, seconds: int) -> tuple[int, int]:
        """Return a frame's seconds and ticks (6.2.5); `seconds` are those of the reference before it."""
        take = _bit_reader(frame[:16])
        take(2)
        while take(1):
            seconds += 1
        marker, tick, marker_behind, is_coded = take(1), take(_width(self.ticks)), take(1), take(1)
        self.is_certain &= bool(marker and marker_behind and is_coded and tick < self.ticks)
        return seconds, tick


def _ticks_per_second(extradata: bytes) -> int | None:
    """Return the clock rate of a stream's layer (6.2.3); None unless it is progressive and declares B-frames."""
    layer = next((match.end() for match in START.finditer(extradata) if match[1][0] in LAYER), len(extradata))
    take = _bit_reader(extradata[layer : layer + 64])
    take(9)  # random access, type
    if take(1):
        take(7)  # version, priority
    if take(4) == 15:
        take(16)  # a pixel's shape
    if not take(1):
        return None
    take(2)  # colours
    low_delay = take(1)
    if take(1):
        take(79)  # a buffer
    shape, _, ticks, _ = take(2), take(1), take(16), take(1)
    if take(1):
        take(_width(ticks))
    take(29)  # width and height
    return None if low_delay or shape or take(1) else ticks or None


def _packet(data: bytes) -> Packet:
    packet = Packet(len(data))  # Packet(data) lacks the zeros that a decoder reads behind the data
    packet.update(data)
    return packet


def _width(ticks: int) -> int:
    """Return how many bits a number below `ticks` takes."""
    return max(1, (ticks - 1).bit_length())


def _bit_reader(data: bytes) -> Callable[[int], int]:
    """Return a function that reads the next bits as a number; behind the end it reads zeros."""
    value, left = int.from_bytes(data), 8 * len(data)

    def take(num_bits: int) -> int:
        nonlocal left
        left -= num_bits
        return value >> left & ((1 << num_bits) - 1) if left >= 0 else 0

    return take

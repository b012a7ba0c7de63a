"""Which pictures of an MPEG-4 part 2 stream (XVID, DivX: UCF101's) the wanted frames are built on; no other is decoded.

A picture of kind P is built on the one before it that is no B-picture, a B-picture on two of them, and nothing on a
B-picture. A decoder gives B-pictures at once and any other when the next such comes, so frames can be numbered without
decoding. All this holds where the stream leaves no doubt of it; else nothing is left out. (ISO/IEC 14496-2, 6.2, and
what FFmpeg makes of it.)
"""

import re
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import chain, count

from av.packet import Packet

INTRA, PREDICTED, BIDIRECTIONAL = 0, 1, 2
LAYER, USER_DATA, GROUP, PICTURE = range(0x20, 0x30), 0xB2, 0xB3, 0xB6  # what a start code begins
START = re.compile(rb"\x00\x00\x01([\x20-\x2f\xb2\xb3\xb6])")
PACKED = re.compile(rb"\x00\x00\x01\xb2DivX\d+(Build|b)\d+p")  # a B-picture may lie behind another in one packet
SURELY_CODED = 32  # bytes: a picture that says "as before" and codes nothing has a dozen
LARGEST_FILLER = 19  # bytes of a packet that holds no picture: the decoder gives the one that waits


def skip_unneeded(
    packets: Iterator[Packet], wanted: AbstractSet[int], whole: bool, extradata: bytes
) -> tuple[Iterable[Packet], Iterator[int]]:
    """Return the packets that the `wanted` frames are built on, and the numbers of the frames that they decode to.

    The last but none is an empty one, which drains the decoder. Of a `whole` file, packets are read until it is known
    which picture the last wanted frame is; else all are, so that what comes behind the end is looked at.
    """
    held: list[Packet] = []
    pictures = Pictures(extradata)
    for packet in packets:
        held.append(packet)
        if not packet.size:
            pictures.end()
            break
        if packet.is_discard or not pictures.add(packet):
            return chain(held, packets), count()
        if whole and pictures.num_frames > max(wanted) and not pictures.one_waits:
            break
    if pictures.num_frames <= max(wanted):
        return chain(held, packets), count()  # there is no such frame: count those that there are
    needed = pictures.needed(wanted)
    numbers = sorted(pictures.numbers[index] for index in needed)
    return [*(pictures.packets[index] for index in needed), Packet(), *([] if whole else packets)], iter(numbers)


class Pictures:
    """The pictures of a stream in decoding order, as its packets come.

    Attributes:
        packets: one for each.
        numbers: of the frames that they become; the last one's that is no B-picture may still grow.
        num_frames: how many have their number for good.
        one_waits: whether the decoder has yet to decode one that came behind another in its packet.
    """

    def __init__(self, extradata: bytes) -> None:
        self.extradata = extradata
        self.packets: list[Packet] = []
        self.kinds: list[int] = []
        self.numbers: list[int] = []
        self.references: list[int] = []  # positions of those that are no B-pictures
        self.num_frames, self.one_waits = 0, False
        self.is_packed = bool(PACKED.search(extradata))
        self.clock = Clock(_ticks_a_second(extradata))

    def add(self, packet: Packet) -> bool:
        """Take the next packet, and return whether it leaves no doubt."""
        data = bytes(packet)
        starts = self._starts(data)
        first, last = (starts[0], starts[-1]) if starts else (0, len(data))
        kind = data[last] >> 6 if last < len(data) else None
        if len(starts) == 1 and not self.one_waits:
            return self._add(packet, data[first:])
        if len(starts) == 1 and kind == PREDICTED and len(data) <= LARGEST_FILLER:
            self.one_waits = False
            return True
        if kind != BIDIRECTIONAL or not self.is_packed or len(starts) + self.one_waits > 2:
            return False
        self.one_waits = True
        if len(starts) == 1:
            return self._add(packet, data[first:])
        before, behind = data[: last - 4], data[last - 4 :]
        return self._add(_packet(before), before[first:]) and self._add(_packet(behind), behind[4:])

    def end(self) -> None:
        """Say that no packet follows. A picture that still waits is never decoded."""
        if self.one_waits:
            for of_each in (self.packets, self.kinds, self.numbers):
                of_each.pop()
            self.num_frames -= 1
        if self.references:
            self.numbers[self.references[-1]] = self.num_frames
            self.num_frames += 1

    def needed(self, wanted: AbstractSet[int]) -> list[int]:
        """Return the positions of the wanted frames' pictures and of those that they are built on."""
        needed = []
        num_asked = 0  # how many of the next references back a later picture is built on
        for index in reversed(range(len(self.packets))):
            kind, is_wanted = self.kinds[index], self.numbers[index] in wanted
            if kind == BIDIRECTIONAL:
                num_asked = 2 if is_wanted else num_asked
            elif num_asked or is_wanted:
                num_asked = max(num_asked - 1, kind == PREDICTED)
            else:
                continue
            if is_wanted or kind != BIDIRECTIONAL:
                needed.append(index)
        return needed[::-1]

    def _starts(self, data: bytes) -> list[int]:
        """Return where the pictures of a packet begin, behind their start codes; note what else it says."""
        starts = []
        for match in START.finditer(data):
            code = match[1][0]
            if code == PICTURE:
                starts.append(match.end())
            elif code == GROUP:
                self.clock.is_certain &= not self.packets  # later ones set it anew
            elif code == USER_DATA:
                if data.startswith(b"DivX", match.end()):
                    self.is_packed = bool(PACKED.match(data, match.start()))
            else:
                end = data.find(b"\x00\x00\x01", match.end())
                self.clock.is_certain &= data[match.start() : end] in self.extradata  # a layer like the first
        return starts

    def _add(self, packet: Packet, picture: bytes) -> bool:
        kind = picture[0] >> 6 if picture else None
        if kind == BIDIRECTIONAL:
            if len(self.references) < 2 or not self.clock.is_between(picture):
                return False
            self.numbers[self.references[-1]] += 1
        elif len(picture) < SURELY_CODED or not (kind == INTRA or (kind == PREDICTED and self.references)):
            return False
        else:
            self.clock.go_on_to(picture)
            self.num_frames += bool(self.references)
            self.references.append(len(self.packets))
        self.packets.append(packet)
        self.kinds.append(picture[0] >> 6)
        self.numbers.append(self.num_frames)
        self.num_frames += kind == BIDIRECTIONAL
        return True


class Clock:
    """Tells whether a B-picture lies in time between the two references before it; a decoder drops one that does not.

    `ticks` a second; None: the stream's B-pictures are not understood. `is_certain` turns False at the first doubt.
    """

    def __init__(self, ticks: int | None) -> None:
        self.ticks, self.is_certain = ticks or 1, ticks is not None
        self.seconds, self.time, self.seconds_before, self.time_before = 0, -1, 0, -1

    def go_on_to(self, reference: bytes) -> None:
        """Take the next picture that is no B-picture."""
        if self.is_certain:
            seconds, tick = self._read(reference)
            self.seconds_before, self.time_before = self.seconds, self.time
            self.seconds += seconds
            self.time = self.seconds * self.ticks + tick
            self.is_certain &= self.time > self.time_before

    def is_between(self, picture: bytes) -> bool:
        """Return whether a B-picture is coded and in its place."""
        if not self.is_certain:
            return False
        seconds, tick = self._read(picture)
        time = (self.seconds_before + seconds) * self.ticks + tick
        return self.is_certain and self.time_before < time < self.time

    def _read(self, picture: bytes) -> tuple[int, int]:
        """Return a picture's seconds since the last reference's before it, and its ticks (6.2.5)."""
        take = _reader(picture[:16])
        take(2)
        seconds = 0
        while take(1):
            seconds += 1
        marker, tick, marker_behind, is_coded = take(1), take(_width(self.ticks)), take(1), take(1)
        self.is_certain &= bool(marker and marker_behind and is_coded)
        return seconds, tick


def _ticks_a_second(extradata: bytes) -> int | None:
    """Return the clock of a stream's layer (6.2.3); None unless it is progressive and says that it has B-pictures."""
    layer = next((match.end() for match in START.finditer(extradata) if match[1][0] in LAYER), len(extradata))
    take = _reader(extradata[layer : layer + 64])
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
    packet = Packet(len(data))  # of bytes themselves it would be without the zeros that a decoder reads behind them
    packet.update(data)
    return packet


def _width(ticks: int) -> int:
    """Return how many bits a number below `ticks` takes."""
    return max(1, (ticks - 1).bit_length())


def _reader(data: bytes) -> Callable[[int], int]:
    """Return what takes so many of the next bits as a number; zeros behind the end."""
    value, left = int.from_bytes(data), 8 * len(data)

    def take(num_bits: int) -> int:
        nonlocal left
        left -= num_bits
        return value >> left & ((1 << num_bits) - 1) if left >= 0 else 0

    return take

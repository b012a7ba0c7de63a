"""Interlaced H.264 with a packet for each field, as camcorders write it; PyAV cannot encode it."""

from fractions import Fraction
from pathlib import Path

import av

I_PCM, I_SLICE, MAIN_PROFILE = 25, 7, 77  # of ITU-T H.264, tables 7-11 and 7-6, annex A


def ue(value: int) -> str:
    """Return the bits of an unsigned Exp-Golomb code."""
    bits = f"{value + 1:b}"
    return "0" * (len(bits) - 1) + bits


def unit(header: int, bits: str) -> bytes:
    """Return a NAL unit; nothing in it may look like a start code (7.4.1)."""
    bits += "1"
    payload = int(bits + "0" * (-len(bits) % 8), 2).to_bytes((len(bits) + 7) // 8)
    escaped = bytearray()
    for byte in payload:
        if byte <= 3 and escaped[-2:] == b"\0\0":
            escaped.append(3)
        escaped.append(byte)
    return b"\0\0\0\1" + bytes([header]) + escaped


def parameter_sets() -> bytes:
    """Return the parameter sets of 32x32 frames with 50 fields per second."""
    timing = "00001" + f"{1:032b}{50:032b}" + "1" + "0000"
    size = ue(1) + ue(0) + "0"  # two macroblocks wide; one high in a field; fields are allowed
    sequence = f"{MAIN_PROFILE:08b}{0:08b}{30:08b}" + ue(0) + ue(0) + ue(2) + ue(1) + "0" + size + "0101" + timing
    per_frame = ue(0) + ue(0) + "00" + ue(0) + ue(0) + ue(0) + "000" + ue(0) * 3 + "000"
    return unit(0x67, sequence) + unit(0x68, per_frame)


def field(number: int, bottom: bool, luma: int) -> bytes:
    """Return a grey field of raw macroblocks."""
    first = number == 0 and not bottom
    bits = (
        ue(0) + ue(I_SLICE) + ue(0) + f"{number % 16:04b}" + f"1{bottom:d}" + (ue(0) + "00" if first else "0") + ue(0)
    )
    for _ in range(2):
        bits += ue(I_PCM)
        bits += "0" * (-len(bits) % 8) + f"{luma:08b}" * 256 + f"{128:08b}" * 128
    return unit(0x65 if first else 0x61, bits)


def write_field_coded(path: Path, num_frames: int = 12) -> Path:
    """Write 25 frames per second; frame n has luma 20 + 10 n in its upper field and 5 more in its lower field."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 32
        stream.codec_context.extradata = parameter_sets()
        for number in range(2 * num_frames):
            start = parameter_sets() if number == 0 else b""
            packet = av.Packet(start + field(number // 2, bool(number % 2), 20 + 5 * number))
            packet.pts = packet.dts = number
            packet.time_base, packet.duration, packet.stream = Fraction(1, 50), 1, stream
            packet.is_keyframe = number == 0
            container.mux(packet)
    return path

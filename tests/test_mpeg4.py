"""Frames of MPEG-4 part 2 that no wanted frame depends on are not decoded, and the others are exact."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from videos import (
    change_packets,
    count_decoded,
    cut_the_start,
    encode_video,
    full_decode,
    key_framed,
    read_frame_number,
)

from vidclf.data import decoding, mpeg4
from vidclf.data.decoding import decode_frames, inspect, iterate_frames
from vidclf.errors import VideoError

VOP_START = b"\x00\x00\x01\xb6"  # of a picture; two bits of its kind follow

B_FRAMES: dict[str, dict[str, Any]] = {
    "one group": {"max_b_frames": 2, "gop_size": 250},
    "groups of 12": {"max_b_frames": 2},
    "one B-frame, 29.97 Hz": {"max_b_frames": 1, "fps": Fraction(30000, 1001)},
}


@pytest.mark.parametrize("gop_size", [1, 5, 12, 250])
def test_every_frame_of_a_key_framed_clip_is_the_right_one(gop_size: int, tmp_path: Path):
    path = key_framed(tmp_path / "clip.avi", gop_size=gop_size)
    whole = torch.stack([frame for _, frame in decoding.iterate_frames(path)])
    assert [read_frame_number(frame) for frame in whole] == list(range(40))
    for wanted in ([0], [39], [11, 12, 13], [0, 25], [24], [5, 17, 38, 39], list(range(40))):
        for known in (False, True):
            assert torch.equal(decode_frames(path, torch.tensor(wanted), known), whole[wanted])


@pytest.mark.parametrize("whole", [False, True])
def test_pictures_that_no_wanted_one_is_built_on_are_not_decoded(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = key_framed(tmp_path / "clip.avi")
    assert count_decoded(path, [0, 25], monkeypatch, whole) == 1 + 2  # frame 0; key frame 24 and frame 25
    assert count_decoded(path, [11], monkeypatch, whole) == 12
    assert count_decoded(path, list(range(40)), monkeypatch, whole) == 40


@pytest.mark.parametrize("kind", B_FRAMES)
def test_every_frame_of_a_clip_with_b_frames_is_the_right_one(kind: str, tmp_path: Path):
    path = key_framed(tmp_path / "clip.avi", **B_FRAMES[kind])
    everything = full_decode(path)
    for wanted in ([0], [1], [2], [39], [38], [5, 6], [12, 13], [0, 25], [5, 17, 38, 39], list(range(40))):
        for whole in (False, True):
            assert torch.equal(decode_frames(path, torch.tensor(wanted), whole), everything[wanted])


def test_a_b_frame_that_is_not_wanted_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = key_framed(tmp_path / "clip.avi", **B_FRAMES["one group"])  # I B B P B B P ...: frames 0, 3, 6 are no B
    assert count_decoded(path, [0, 24], monkeypatch) == 9  # 0, 3, ..., 24
    assert count_decoded(path, [10], monkeypatch) == 6  # 0, 3, 6, 9 and 12, and itself
    assert count_decoded(path, [10], monkeypatch, whole=True) <= 6
    assert count_decoded(path, list(range(40)), monkeypatch) == 40


def pack(source: Path, path: Path) -> Path:
    """Pack a clip of single B-frames as DivX does: P and B in one packet, and one of no picture behind them."""
    with av.open(source) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    are_b = [packet[packet.index(VOP_START) + 4] >> 6 == mpeg4.BIDIRECTIONAL for packet in packets]

    def change(number: int, packet: bytes) -> bytes:
        if are_b[number]:
            return VOP_START + b"\x50\x01"
        if number == 0:
            return packet.replace(b"\x00\x00\x01\xb3", b"\x00\x00\x01\xb2DivX503b1393p\x00\x00\x01\xb3")
        return packet + (packets[number + 1] if any(are_b[number + 1 : number + 2]) else b"")

    return change_packets(source, path, change)


def test_every_frame_of_packed_b_frames_is_correct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = key_framed(tmp_path / "clip.avi", max_b_frames=1, gop_size=250)
    path = pack(source, tmp_path / "packed.avi")
    everything = full_decode(path)
    assert [read_frame_number(frame) for frame in everything] == list(range(40))
    for wanted in ([0], [1], [2], [20, 21], [len(everything) - 1], list(range(len(everything)))):
        for whole in (False, True):
            assert torch.equal(decode_frames(path, torch.tensor(wanted), whole), everything[wanted])
    assert count_decoded(path, [20], monkeypatch) == 11


def test_frames_of_real_packed_b_frames_are_correct(shared: Path, monkeypatch: pytest.MonkeyPatch):
    path = shared / "ucf101/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"  # its last B-frame is cut off
    everything = full_decode(path)
    for wanted in ([0, 25, 50, 75, 100, 125, 150], [7, 8, 9], [162, 163]):
        assert torch.equal(decode_frames(path, torch.tensor(wanted)), everything[wanted])
    assert count_decoded(path, [0, 25, 50, 75, 100, 125, 150], monkeypatch) < 0.7 * len(everything)


@pytest.mark.parametrize("kind", ["late clock", "H.264", "too long to hold"])
def test_all_frames_are_decoded_where_skipping_would_not_be_exact(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if kind == "late clock":  # groups of B-frames that each set the clock anew
        path = key_framed(tmp_path / "clip.avi", max_b_frames=2)
    elif kind == "H.264":
        path = encode_video(tmp_path / "clip.mp4", 40, codec="libx264", gop_size=12, max_b_frames=0)
    else:
        path = key_framed(tmp_path / "clip.avi")
        monkeypatch.setattr(decoding, "HELD_BYTES", 100)
    assert count_decoded(path, [0, 25], monkeypatch) == 40


def test_frames_before_an_edit_list_starts_do_not_count_in_a_key_framed_clip(tmp_path: Path):
    cut = cut_the_start(key_framed(tmp_path / "whole.mp4", codec_tag="mp4v"), tmp_path / "cut.mp4")
    shown = [read_frame_number(frame) for _, frame in iterate_frames(cut)]
    assert shown == list(range(15, 40))
    assert [read_frame_number(frame) for frame in decode_frames(cut, torch.tensor([0, 24]))] == [15, 39]


def test_nothing_is_skipped_after_a_packet_that_may_code_no_frame():
    """XviD writes such packets of a dozen bytes, which would shift every later frame."""
    intra, predicted = (VOP_START + bytes([kind << 6]) + b"\x55" * 100 for kind in (mpeg4.INTRA, mpeg4.PREDICTED))

    def are_unambiguous(*packets: bytes) -> bool:
        frames = mpeg4.CodedFrames(b"")
        return all(frames.add(av.Packet(packet)) for packet in packets)

    assert are_unambiguous(b"\x00\x00\x01\xb0\x01" + intra, predicted)
    assert not are_unambiguous(intra, predicted[:8])
    assert not are_unambiguous(intra, predicted * 2)  # two frames in one packet
    assert not are_unambiguous(predicted)  # the frame before it is missing
    assert not are_unambiguous(b"\x55" * 100)


def test_damage_is_found_in_what_is_decoded_and_by_a_check_of_the_whole(tmp_path: Path):
    path = key_framed(tmp_path / "clip.avi")
    data = bytearray(path.read_bytes())
    start = data.index(b"movi") + 4
    for _ in range(14):  # to the fifteenth frame, in the second group
        start += 8 + int.from_bytes(data[start + 4 : start + 8], "little")
        start += start % 2
    size = int.from_bytes(data[start + 4 : start + 8], "little")
    data[start + 8 + size // 4 : start + 8 + size] = b"\xa5" * (size - size // 4)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="damaged"):
        decode_frames(path, torch.tensor([20]))
    with pytest.raises(VideoError, match="damaged"):
        inspect(path)
    assert read_frame_number(decode_frames(path, torch.tensor([30]))[0]) == 30


def test_packets_of_b_frames_are_not_numbered_in_order(tmp_path: Path):
    """Packets I P B decode to I B P: the second packet is frame 2 and not frame 1."""
    path = key_framed(tmp_path / "b.avi", 6, max_b_frames=2)
    for index in range(6):
        assert torch.equal(decode_frames(path, torch.tensor(index), whole=True), full_decode(path)[index])

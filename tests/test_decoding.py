"""Every frame equals a plain full decode's, whatever the codec; every damaged file is an error."""

import csv
import io
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor
from videos import encode_video, numbered_frame, read_frame_number

from vidclf.contracts import VideoError
from vidclf.data import decoding, mpeg4
from vidclf.data.decoding import (
    VideoInfo,
    decode_frames,
    inspect,
    is_stream,
    iterate_frames,
    naming_the_video,
    stream_frames,
)
from vidclf.errors import VidclfError

VOP_START = b"\x00\x00\x01\xb6"  # of a picture in MPEG-4 part 2; two bits of its kind follow
X265 = {"x265-params": "log-level=none:pools=1"}
FAST_VPX = {"deadline": "realtime", "cpu-used": "8"}
KEYED_XVID: dict[str, Any] = {"codec_tag": "XVID", "max_b_frames": 0, "gop_size": 12}

SOURCES: dict[str, dict[str, Any]] = {
    "xvid_b_frames.avi": {},
    "xvid_key_frames.avi": KEYED_XVID,
    "h264.mp4": {"codec": "libx264", "max_b_frames": 2, "gop_size": 12},
    "h264_open_gop.mkv": {"codec": "libx264", "options": {"x264-params": "open-gop=1:keyint=12"}},
    "h264_fragments.mp4": {"codec": "libx264", "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264_audio_first.mp4": {"codec": "libx264", "audio": "aac"},
    "h264_444.mp4": {"codec": "libx264", "pix_fmt": "yuv444p"},
    "h264_10_bit.mp4": {"codec": "libx264", "pix_fmt": "yuv420p10le"},
    "h264.ts": {"codec": "libx264"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "vp8.webm": {"codec": "libvpx", "options": FAST_VPX},
    "vp9.webm": {"codec": "libvpx-vp9", "options": FAST_VPX},
    "hevc.mp4": {"codec": "libx265", "options": X265},
    "hevc_10_bit.mkv": {"codec": "libx265", "options": X265, "pix_fmt": "yuv420p10le"},
    "av1.mp4": {"codec": "libsvtav1", "options": {"picture_format": "11"}},
    "grey.avi": {"codec": "ffv1", "pix_fmt": "gray"},
    "odd_size.avi": {"codec": "ffv1", "pix_fmt": "yuv444p", "size": (67, 49)},
    "variable_rate.mp4": {"codec": "libx264", "pts": [i * i for i in range(40)]},
    "repeated_frames.avi": {"codec": "mpeg4", "pts": [2 * i for i in range(40)]},
    "variable_rate.mkv": {"codec": "libx264", "pts": [i * i for i in range(40)]},
}


def full_decode(path: Path) -> Tensor:
    """The reference: PyAV alone."""
    with av.open(f"file:{path}") as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Encode a source of `SOURCES`, 40 frames, once."""
    folder = tmp_path_factory.mktemp("sources")

    def encode(name: str) -> Path:
        path = folder / name
        return path if path.exists() else encode_video(path, 40, **SOURCES[name])

    return encode


# What comes out


@pytest.mark.parametrize("name", SOURCES)
def test_every_frame_equals_the_full_decode_and_carries_its_number(name: str, source: Callable[[str], Path]):
    path = source(name)
    indices = torch.randperm(40, generator=torch.Generator().manual_seed(0)).view(8, 5)
    frames = decode_frames(path, indices)
    assert torch.equal(frames, full_decode(path)[indices])
    assert [read_frame_number(frame) for frame in frames.flatten(0, 1)] == indices.flatten().tolist()
    info = inspect(path)
    assert (len(info.shown_from) or info.num_frames) == 40


def test_every_frame_of_the_real_ucf101_clip_equals_the_full_decode(shared: Path):
    name = "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"
    path = shared / "ucf101" / "UCF-101" / name
    with (shared / "ucf101" / "frame_counts.csv").open() as file:
        counts = {row["video"]: int(row["num_frames"]) for row in csv.DictReader(file)}
    assert inspect(path) == VideoInfo(num_frames=counts[name], fps=25.0, width=320, height=240)
    assert torch.equal(decode_frames(path, torch.arange(counts[name])), full_decode(path))


def test_every_frame_of_the_real_h264_clip_equals_the_full_decode(shared: Path):
    path = shared / "clips" / "kinetics_340x256_h264.mp4"
    assert inspect(path) == VideoInfo(num_frames=280, fps=28.0, width=340, height=256)
    assert torch.equal(decode_frames(path, torch.arange(280)), full_decode(path))


def test_frames_come_in_the_order_and_as_often_as_asked(source: Callable[[str], Path]):
    frames = decode_frames(source("xvid_b_frames.avi"), torch.tensor([7, 0, 7]))
    assert [read_frame_number(frame) for frame in frames] == [7, 0, 7]


def cut_the_start(path: Path, cut: Path) -> Path:
    """Let an MP4 begin at its fifteenth frame by an edit list, without encoding again."""
    with av.open(path) as old, av.open(cut, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.dts -= int(15 / 25 / packet.time_base)
                packet.pts -= int(15 / 25 / packet.time_base)
                packet.stream = stream
                new.mux(packet)
    return cut


def test_frames_before_an_edit_list_starts_do_not_count(source: Callable[[str], Path], tmp_path: Path):
    path = cut_the_start(source("h264.mp4"), tmp_path / "cut_without_encoding.mp4")
    numbers = [read_frame_number(frame) for _, frame in iterate_frames(path)]
    assert numbers == list(range(15, 40))
    assert inspect(path).num_frames == 25


def test_a_video_of_one_frame_has_one(tmp_path: Path):
    path = encode_video(tmp_path / "one.avi", 1)
    assert inspect(path).num_frames == 1
    assert [index for index, _ in iterate_frames(path)] == [0]


def change_packets(source: Path, path: Path, change: Callable[[int, bytes], bytes]) -> Path:
    """Write the packets of `source` to `path`, each as `change(number, packet)` gives it, without encoding again."""
    with av.open(source) as old, av.open(path, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            changed = av.Packet(change(number, bytes(packet)))
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.stream, changed.is_keyframe = stream, packet.is_keyframe
            new.mux(changed)
    return path


def say_as_before(number: int, packet: bytes) -> bytes:
    """Let three packets of an MPEG-4 stream at 25 Hz code no picture (`vop_coded` is 0), as XviD does."""
    header = f"0101{number % 25:05b}10".ljust(16, "1")  # P; in the same second; when in it; not coded
    return VOP_START + int(header, 2).to_bytes(2) if number in (17, 18, 30) else packet


def test_packets_that_show_nothing_are_no_frames(tmp_path: Path):
    path = change_packets(key_framed(tmp_path / "coded.avi"), tmp_path / "a.avi", say_as_before)
    with av.open(path) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 40
    assert inspect(path).num_frames == len(full_decode(path)) == 37
    assert torch.equal(decode_frames(path, torch.arange(37)), full_decode(path))
    with pytest.raises(VideoError, match="frame 37 was asked for, but 37 frames decode"):
        decode_frames(path, torch.tensor([37]))


def test_every_clip_of_three_real_classes_has_its_true_number_of_frames(shared: Path):
    with (shared / "ucf101" / "frame_counts.csv").open() as file:
        counts = {row["video"]: int(row["num_frames"]) for row in csv.DictReader(file)}
    paths = {f"{path.parent.name}/{path.name}": path for path in sorted((shared / "ucf3").rglob("*.avi"))}
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(paths, pool.map(lambda path: inspect(path).num_frames, paths.values()), strict=True))
    assert len(found) == 363
    assert found == {name: counts[name] for name in found}


def test_every_foreign_clip_but_the_damaged_one_is_sound_and_counted(shared: Path):
    paths = sorted((shared / "clips" / "foreign").iterdir())
    damaged = [path for path in paths if path.name == "corrupted.mp4"]
    assert (len(paths), len(damaged)) == (25, 1)
    for path in paths:
        if path not in damaged:
            info = inspect(path)
            assert (len(info.shown_from) or info.num_frames) == count_frames(path), path
    with pytest.raises(VideoError, match=r"28 of 50 frames decode; the file is damaged\. Delete it"):
        inspect(damaged[0])


def count_frames(path: Path) -> int:
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def test_the_rate_is_the_average_of_the_file(tmp_path: Path):
    assert inspect(encode_video(tmp_path / "a.avi", fps=29.97)).fps == pytest.approx(30000 / 1001, rel=1e-4)


def test_only_the_wanted_frames_are_given(source: Callable[[str], Path]):
    given = dict(iterate_frames(source("h264.mp4"), [3, 20, 39]))
    assert {index: read_frame_number(frame) for index, frame in given.items()} == {3: 3, 20: 20, 39: 39}


def test_several_threads_decode_several_clips_at_once(source: Callable[[str], Path]):
    paths = [source(name) for name in ("xvid_b_frames.avi", "h264.mp4", "odd_size.avi", "vp9.webm")] * 4
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda path: decode_frames(path, torch.arange(40)), paths))
    assert all(torch.equal(frames, full_decode(path)) for frames, path in zip(together, paths, strict=True))


@pytest.mark.parametrize("name", ["a b,c=d (1) ü.avi", "file:x.avi", "http:y.avi", "-", "%03d.avi", "x%20y~.avi"])
def test_any_file_name_is_a_plain_file(name: str, source: Callable[[str], Path], tmp_path: Path, monkeypatch):
    shutil.copy(source("xvid_b_frames.avi"), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert inspect(name).num_frames == 40
    assert read_frame_number(decode_frames(Path(name), torch.tensor(9))) == 9


# What is no video


def audio_only(path: Path) -> None:
    with av.open(path, "w", format="wav") as container:
        add_silence(container, container.add_stream("pcm_s16le", rate=8000, layout="mono"))


def audio_with_cover(path: Path) -> None:
    with av.open(path, "w", format="mp3") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = container.add_stream("libmp3lame", rate=8000, layout="mono")
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered_frame(0), format="rgb24")))
        container.mux(cover.encode(None))
        add_silence(container, sound)


def add_silence(container: av.container.OutputContainer, stream: av.AudioStream) -> None:
    silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
    silence.sample_rate = 8000
    container.mux(stream.encode(silence))
    container.mux(stream.encode(None))


NO_VIDEOS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "text": (lambda path: path.write_text("no video\n" * 50), "finds no video in its 450 bytes"),
    "empty": (lambda path: path.touch(), r"empty \(0 bytes\)"),
    "folder": (lambda path: path.mkdir(), "cannot be read.*[Dd]irectory"),
    "missing": (lambda path: None, "cannot be read.*No such file"),
    "audio": (audio_only, "no video stream, only audio"),
    "cover": (audio_with_cover, "no video stream, only audio, video"),
    "playlist": (
        lambda path: path.write_text(f"ffconcat version 1.0\nfile '{encode_video(path.with_name('b.avi')).name}'\n"),
        "finds no video",
    ),
}


@pytest.mark.parametrize("kind", NO_VIDEOS)
def test_what_is_no_video_is_refused_in_a_sentence(kind: str, tmp_path: Path):
    path = tmp_path / "a.avi"
    write, message = NO_VIDEOS[kind]
    write(path)
    with pytest.raises(VideoError, match=f"^{path}: .*{message}"):
        inspect(path)
    with pytest.raises(VideoError, match=f"^{path}: .*{message}"):
        decode_frames(path, torch.tensor([0]))


@pytest.mark.parametrize("whole", [False, True])
def test_a_frame_that_is_not_there_is_refused_and_no_file_called_damaged(
    whole: bool, source: Callable[[str], Path], tmp_path: Path
):
    for path in (source("h264.mp4"), key_framed(tmp_path / "clip.avi")):
        with pytest.raises(VideoError, match=r"frame 40 was asked for, but 40 frames decode.*Ask for those alone"):
            decode_frames(path, torch.tensor([0, 40]), whole)
        with pytest.raises(VideoError, match="frame -1 was asked for; frames are numbered from 0"):
            decode_frames(path, torch.tensor([0, -1]), whole)


def test_no_indices_at_all_are_refused(source: Callable[[str], Path]):
    with pytest.raises(VideoError, match=r"no frame was asked for \(indices of shape \(0, 4\)\)"):
        decode_frames(source("h264.mp4"), torch.empty(0, 4, dtype=torch.int64))


def test_a_change_of_frame_size_is_refused(tmp_path: Path):
    parts = [encode_video(tmp_path / f"{w}.h264", 20, codec="libx264", size=(w, 48)).read_bytes() for w in (64, 96)]
    path = tmp_path / "a.h264"
    path.write_bytes(b"".join(parts))
    with pytest.raises(VideoError, match="frame 20 is 96x48, those before 64x48"):
        list(iterate_frames(path))


# What is damaged


def noisy_video(path: Path, **settings: Any) -> Path:
    """40 frames of which each takes some kilobytes, so that 4 KB of damage hit a picture."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 96, 128, 3), dtype=np.uint8)
    return encode_video(path, frames=list(noise), size=(128, 96), **settings)


def halve(data: bytes) -> bytes:
    return data[: len(data) // 2]


def lose_the_last_tenth(data: bytes) -> bytes:
    return data[: len(data) * 9 // 10]


def put_garbage_in_the_middle(data: bytes, num_bytes: int = 4096) -> bytes:
    middle = len(data) // 2
    return data[:middle] + np.random.default_rng(1).bytes(num_bytes) + data[middle + num_bytes :]


DAMAGEABLE: dict[str, dict[str, Any]] = {
    "xvid_b_frames.avi": {},
    "xvid_key_frames.avi": KEYED_XVID,
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "h264.mp4": {"codec": "libx264"},
    "h264_moov_first.mp4": {"codec": "libx264", "container_options": {"movflags": "faststart"}},
    "h264.mkv": {"codec": "libx264"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": FAST_VPX},
    "hevc.mp4": {"codec": "libx265", "options": X265},
    "av1.mp4": {"codec": "libsvtav1", "options": {"picture_format": "11"}},
}


@pytest.fixture(scope="module")
def sound_bytes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    folder = tmp_path_factory.mktemp("noisy")

    def encode(name: str) -> bytes:
        path = folder / name
        return (path if path.exists() else noisy_video(path, **DAMAGEABLE[name])).read_bytes()

    return encode


@pytest.mark.parametrize("damage", [halve, lose_the_last_tenth, put_garbage_in_the_middle])
@pytest.mark.parametrize("name", DAMAGEABLE)
def test_damage_is_found_whatever_is_asked_for(
    name: str, damage: Callable[[bytes], bytes], sound_bytes: Callable[[str], bytes], tmp_path: Path, capfd
):
    path = tmp_path / name
    path.write_bytes(sound_bytes(name))
    assert decode_frames(path, torch.tensor([0])).shape == (1, 3, 96, 128)
    path.write_bytes(damage(sound_bytes(name)))
    with pytest.raises(VideoError, match=r"damaged.*(Delete it|Give a video that plays).*on_error=skip"):
        decode_frames(path, torch.tensor([0]))
    assert capfd.readouterr().err == ""


def test_the_message_counts_the_frames_before_the_damage(sound_bytes: Callable[[str], bytes], tmp_path: Path):
    path = tmp_path / "a.avi"
    path.write_bytes(halve(sound_bytes("mjpeg.avi")))
    with pytest.raises(VideoError, match=r"a\.avi: (1\d|20) of 40 frames decode; the file is damaged\."):
        decode_frames(path, torch.tensor([0]))
    with pytest.raises(VideoError, match=r"of 40 frames decode; the file is damaged\."):
        inspect(path)


REAL_CLIPS = {
    "ucf101/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi": "75 of 164 frames decode",
    "clips/kinetics_340x256_h264.mp4": "139 of 280 frames decode",
}


@pytest.mark.parametrize("name", REAL_CLIPS)
def test_garbage_in_a_real_clip_is_found(name: str, shared: Path, tmp_path: Path):
    path = tmp_path / Path(name).name
    path.write_bytes(put_garbage_in_the_middle((shared / name).read_bytes()))
    with pytest.raises(VideoError, match=f"{REAL_CLIPS[name]}; the file is damaged"):
        decode_frames(path, torch.tensor([0]))


def lose_a_slice(number: int, packet: bytes) -> bytes:
    """Leave the last of an H.264 picture's slices out of packet 20."""
    return packet[: packet.rindex(b"\x00\x00\x01")] if number == 20 else packet


def test_a_picture_that_the_decoder_paints_over_and_marks_is_found(tmp_path: Path):
    whole = encode_video(tmp_path / "whole.ts", 40, codec="libx264", options={"x264-params": "slices=3"})
    path = change_packets(whole, tmp_path / "lost.ts", lose_a_slice)
    with av.open(path) as container:
        context = container.streams.video[0].codec_context
        context.thread_count, context.options = 1, {"err_detect": "explode"}  # as decoding has it
        marks = [frame.is_corrupt for frame in container.decode(video=0)]
    assert (len(marks), sum(marks)) == (40, 1)  # nothing raises: the mark alone tells
    for look in (inspect, lambda path: decode_frames(path, torch.tensor([0]))):
        with pytest.raises(VideoError, match=r"\d+ of .* frames decode; the file is damaged"):
            look(path)


def test_sixteen_wrong_bytes_in_a_picture_are_found(sound_bytes: Callable[[str], bytes], tmp_path: Path):
    path = tmp_path / "a.avi"
    path.write_bytes(put_garbage_in_the_middle(sound_bytes("mjpeg.avi"), 16))
    with pytest.raises(VideoError, match="of 40 frames decode; the file is damaged"):
        decode_frames(path, torch.tensor([0]))


def test_a_hole_in_a_transport_stream_is_found(tmp_path: Path):
    path = noisy_video(tmp_path / "a.ts", codec="libx264")
    path.write_bytes(put_garbage_in_the_middle(path.read_bytes()))
    with pytest.raises(VideoError, match="of an unknown number of frames decode; the file is damaged"):
        inspect(path)


def test_the_last_hundred_bytes_of_a_matroska_file_are_missed(sound_bytes: Callable[[str], bytes], tmp_path: Path):
    path = tmp_path / "a.mkv"
    path.write_bytes(sound_bytes("h264.mkv")[:-100])
    with pytest.raises(VideoError, match="the file is damaged"):
        inspect(path)


def test_sound_after_the_last_frame_is_no_damage(tmp_path: Path):
    path = encode_video(tmp_path / "a.mkv", 5, codec="libx264", audio="aac")  # a second of it
    assert inspect(path).num_frames == 5


def test_a_matroska_file_written_to_a_pipe_states_no_size_and_is_sound(tmp_path: Path):
    path = encode_video(tmp_path / "a.mkv", 20, codec="libx264", container_options={"live": "1"})
    assert inspect(path).num_frames == 20


@pytest.mark.parametrize("num_frames", [1, 5, 12])
def test_a_short_mkv_with_b_frames_is_sound(num_frames: int, tmp_path: Path):
    path = encode_video(tmp_path / "a.mkv", num_frames, codec="libx264")
    assert inspect(path).num_frames == num_frames


# What is left out where key frames allow it


def key_framed(path: Path, num_frames: int = 40, **settings: Any) -> Path:
    """A clip of UCF101's other kind: a key frame every 12 frames, no B-frames."""
    defaults = {"codec_tag": "XVID", "max_b_frames": 0, "gop_size": 12, "size": (320, 240)}
    return encode_video(path, num_frames, **(defaults | settings))


def count_decoded(path: Path, wanted: list[int], monkeypatch: pytest.MonkeyPatch, whole: bool = False) -> int:
    """Return how many pictures went through the decoder."""
    decoded = []
    decode = decoding._decoded

    def decode_and_note(*arguments: Any) -> Iterator[Any]:
        for number, frame in decode(*arguments):
            decoded.append(number)
            yield number, frame

    with monkeypatch.context() as patched:
        patched.setattr(decoding, "_decoded", decode_and_note)
        assert [number for number, _ in decoding.iterate_frames(path, wanted, whole)] == sorted(wanted)
    return len(decoded)


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


B_FRAMES: dict[str, dict[str, Any]] = {
    "one group": {"max_b_frames": 2, "gop_size": 250},
    "groups of 12": {"max_b_frames": 2},
    "one B-frame, 29.97 Hz": {"max_b_frames": 1, "fps": Fraction(30000, 1001)},
}


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


def test_every_frame_of_packed_b_frames_is_the_right_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = key_framed(tmp_path / "clip.avi", max_b_frames=1, gop_size=250)
    path = pack(source, tmp_path / "packed.avi")
    everything = full_decode(path)
    assert [read_frame_number(frame) for frame in everything] == list(range(40))
    for wanted in ([0], [1], [2], [20, 21], [len(everything) - 1], list(range(len(everything)))):
        for whole in (False, True):
            assert torch.equal(decode_frames(path, torch.tensor(wanted), whole), everything[wanted])
    assert count_decoded(path, [20], monkeypatch) == 11


def test_frames_of_real_packed_b_frames_are_the_right_ones(shared: Path, monkeypatch: pytest.MonkeyPatch):
    path = shared / "ucf101/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"  # its last B-frame is cut off
    everything = full_decode(path)
    for wanted in ([0, 25, 50, 75, 100, 125, 150], [7, 8, 9], [162, 163]):
        assert torch.equal(decode_frames(path, torch.tensor(wanted)), everything[wanted])
    assert count_decoded(path, [0, 25, 50, 75, 100, 125, 150], monkeypatch) < 0.7 * len(everything)


@pytest.mark.parametrize("kind", ["late clock", "H.264", "too long to hold"])
def test_all_is_decoded_where_leaving_out_would_not_be_exact(
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


def test_a_packet_that_may_code_no_picture_forbids_to_leave_out_any():
    """XviD writes such packets of a dozen bytes, which would shift every later frame."""
    intra, predicted = (VOP_START + bytes([kind << 6]) + b"\x55" * 100 for kind in (mpeg4.INTRA, mpeg4.PREDICTED))

    def leave_no_doubt(*packets: bytes) -> bool:
        pictures = mpeg4.Pictures(b"")
        return all(pictures.add(av.Packet(packet)) for packet in packets)

    assert leave_no_doubt(b"\x00\x00\x01\xb0\x01" + intra, predicted)
    assert not leave_no_doubt(intra, predicted[:8])
    assert not leave_no_doubt(intra, predicted * 2)  # two pictures in one packet
    assert not leave_no_doubt(predicted)  # of what comes before nothing is known
    assert not leave_no_doubt(b"\x55" * 100)


def test_damage_is_found_in_what_is_decoded_and_by_a_check_of_the_whole(tmp_path: Path):
    path = key_framed(tmp_path / "clip.avi")
    data = bytearray(path.read_bytes())
    start = data.index(b"movi") + 4
    for _ in range(14):  # to the fifteenth picture, in the second group
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


# What is known to be whole


@pytest.mark.parametrize("name", SOURCES)
def test_of_a_whole_file_the_same_frames_are_given_and_none_decoded_behind_them(
    name: str, source: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    expected = full_decode(source(name))
    for wanted in ([0], [3], [11, 12], [5, 17], [39]):
        assert torch.equal(decode_frames(source(name), torch.tensor(wanted), whole=True), expected[wanted])
        assert count_decoded(source(name), wanted, monkeypatch, whole=True) <= wanted[-1] + 1
    assert list(iterate_frames(source(name), [], whole=True)) == []


def test_of_a_whole_file_nothing_is_read_behind_the_last_wanted_frame(
    sound_bytes: Callable[[str], bytes], tmp_path: Path
):
    for name in ("xvid_b_frames.avi", "xvid_key_frames.avi", "h264.mkv"):
        path = tmp_path / name
        path.write_bytes(halve(sound_bytes(name)))
        assert len(decode_frames(path, torch.tensor([0, 5]), whole=True)) == 2
        with pytest.raises(VideoError, match="damaged"):
            decode_frames(path, torch.tensor([0, 5]))


def test_packets_of_b_frames_are_not_numbered_in_order(tmp_path: Path):
    """Packets I P B decode to I B P: the second packet is frame 2 and not frame 1."""
    path = key_framed(tmp_path / "b.avi", 6, max_b_frames=2)
    for index in range(6):
        assert torch.equal(decode_frames(path, torch.tensor(index), whole=True), full_decode(path)[index])


# Streams


def test_a_stream_is_told_from_a_file(tmp_path: Path):
    (tmp_path / "a=b.avi").touch()
    os.mkfifo(tmp_path / "pipe")
    assert all(map(is_stream, ["-", "rtsp://camera/1", "http://host/a.mp4", "/dev/null", str(tmp_path / "pipe")]))
    assert not any(map(is_stream, [str(tmp_path / "a=b.avi"), str(tmp_path), str(tmp_path / "missing.avi")]))


def test_frames_of_a_stream_come_while_it_goes_on(source: Callable[[str], Path], tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=write_without_end, args=(pipe, source("h264.ts").read_bytes()))
    writer.start()
    fps, frames = stream_frames(str(pipe))
    numbers = [read_frame_number(frame) for frame in islice(frames, 100)]
    frames.close()
    writer.join(timeout=10)
    assert fps == 25
    assert numbers[:40] == list(range(40))
    assert len(numbers) == 100
    assert not writer.is_alive()  # reading has ended, so the pipe is broken


def write_without_end(pipe: Path, data: bytes) -> None:
    with pipe.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(data)
            except BrokenPipeError:
                return


def test_standard_input_is_a_stream(source: Callable[[str], Path], monkeypatch):
    with source("h264.ts").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        fps, frames = stream_frames("-")
        assert [read_frame_number(frame) for frame in frames] == list(range(40))
        sys.stdin.detach()
    assert fps == 25


def test_a_stream_that_cannot_be_opened_is_refused():
    with pytest.raises(VideoError, match=r"udpp://nowhere: the stream cannot be opened.*Allowed are"):
        stream_frames("udpp://nowhere")


def test_what_fails_for_another_reason_names_the_video_and_the_line(tmp_path: Path):
    message = r"^a\.avi: the worker that read it failed \(MemoryError: no room, test_decoding\.py line \d+\)"
    with pytest.raises(VideoError, match=message), naming_the_video(Path("a.avi")):
        raise MemoryError("no room")
    with pytest.raises(VidclfError, match=r"^mine$"), naming_the_video(Path("a.avi")):
        raise VidclfError("mine")

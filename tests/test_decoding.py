"""Every frame equals that of a plain full decode, with every codec; every damaged file is an error."""

import csv
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from videos import (
    KEYED_XVID,
    change_packets,
    count_decoded,
    cut_the_start,
    encode_video,
    full_decode,
    key_framed,
    numbered_frame,
    read_frame_number,
)

from vidclf.data.decoding import VideoInfo, decode_frames, errors_name_video, inspect, iterate_frames
from vidclf.errors import VidclfError, VideoError

VOP_START = b"\x00\x00\x01\xb6"  # begins a coded frame in MPEG-4 part 2; two bits of its kind follow
X265 = {"x265-params": "log-level=none:pools=1"}
FAST_VPX = {"deadline": "realtime", "cpu-used": "8"}

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


def test_frames_come_in_the_order_of_the_indices_with_repeats(source: Callable[[str], Path]):
    frames = decode_frames(source("xvid_b_frames.avi"), torch.tensor([7, 0, 7]))
    assert [read_frame_number(frame) for frame in frames] == [7, 0, 7]


def test_frames_before_an_edit_list_starts_do_not_count(source: Callable[[str], Path], tmp_path: Path):
    path = cut_the_start(source("h264.mp4"), tmp_path / "cut_without_encoding.mp4")
    numbers = [read_frame_number(frame) for _, frame in iterate_frames(path)]
    assert numbers == list(range(15, 40))
    assert inspect(path).num_frames == 25


def test_a_video_of_one_frame_has_one(tmp_path: Path):
    path = encode_video(tmp_path / "one.avi", 1)
    assert inspect(path).num_frames == 1
    assert [index for index, _ in iterate_frames(path)] == [0]


def say_as_before(number: int, packet: bytes) -> bytes:
    """Let three packets of an MPEG-4 stream at 25 Hz code no frame (`vop_coded` is 0), as XviD does."""
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


def test_clips_of_three_real_classes_have_their_true_number_of_frames(shared: Path):
    with (shared / "ucf101" / "frame_counts.csv").open() as file:
        counts = {row["video"]: int(row["num_frames"]) for row in csv.DictReader(file)}
    paths = {f"{path.parent.name}/{path.name}": path for path in sorted((shared / "ucf3").rglob("*_c02.avi"))}
    num_frames = {name: inspect(path).num_frames for name, path in paths.items()}
    assert len(num_frames) == 75  # one a group; all 363 take half a minute
    assert num_frames == {name: counts[name] for name in num_frames}


def test_every_foreign_clip_except_the_damaged_one_is_read_and_counted(shared: Path):
    paths = sorted((shared / "clips" / "foreign").iterdir())
    damaged = [path for path in paths if path.name == "corrupted.mp4"]
    assert (len(paths), len(damaged)) == (25, 1)
    for path in paths:
        if path not in damaged:
            info = inspect(path)
            assert (len(info.shown_from) or info.num_frames) == count_frames(path), path
    with pytest.raises(VideoError, match=r"28 of 50 frames decode; the file is damaged\. Re-extract it"):
        inspect(damaged[0])


def count_frames(path: Path) -> int:
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def test_the_rate_is_the_average_of_the_file(tmp_path: Path):
    assert inspect(encode_video(tmp_path / "a.avi", fps=29.97)).fps == pytest.approx(30000 / 1001, rel=1e-4)


def test_only_the_wanted_frames_are_yielded(source: Callable[[str], Path]):
    frames = dict(iterate_frames(source("h264.mp4"), [3, 20, 39]))
    assert {index: read_frame_number(frame) for index, frame in frames.items()} == {3: 3, 20: 20, 39: 39}


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


# Files that are not videos


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
def test_a_file_that_is_not_a_video_is_refused(kind: str, tmp_path: Path):
    path = tmp_path / "a.avi"
    write, message = NO_VIDEOS[kind]
    write(path)
    with pytest.raises(VideoError, match=f"^{path}: .*{message}"):
        inspect(path)
    with pytest.raises(VideoError, match=f"^{path}: .*{message}"):
        decode_frames(path, torch.tensor([0]))


@pytest.mark.parametrize("whole", [False, True])
def test_a_frame_beyond_the_end_is_refused_and_the_file_is_not_called_damaged(
    whole: bool, source: Callable[[str], Path], tmp_path: Path
):
    for path in (source("h264.mp4"), key_framed(tmp_path / "clip.avi")):
        with pytest.raises(VideoError, match=r"frame 40 was asked for, but 40 frames decode"):
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
    """40 frames of which each takes some kilobytes, so that 4 KB of damage hit a frame."""
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
def test_damage_is_found_whichever_frame_is_read(
    name: str, damage: Callable[[bytes], bytes], sound_bytes: Callable[[str], bytes], tmp_path: Path, capfd
):
    path = tmp_path / name
    path.write_bytes(sound_bytes(name))
    assert decode_frames(path, torch.tensor([0])).shape == (1, 3, 96, 128)
    path.write_bytes(damage(sound_bytes(name)))
    with pytest.raises(VideoError, match=r"damaged.*(Re-extract it|Give a video that plays).*on_error=skip"):
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
    """Leave the last slice of an H.264 frame out of packet 20."""
    return packet[: packet.rindex(b"\x00\x00\x01")] if number == 20 else packet


def test_a_frame_with_a_hole_that_the_decoder_conceals_is_refused(tmp_path: Path):
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


def test_sixteen_wrong_bytes_in_a_frame_are_found(sound_bytes: Callable[[str], bytes], tmp_path: Path):
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


def test_sound_after_the_last_frame_is_not_damage(tmp_path: Path):
    path = encode_video(tmp_path / "a.mkv", 5, codec="libx264", audio="aac")  # a second of it
    assert inspect(path).num_frames == 5


def test_a_matroska_file_written_to_a_pipe_states_no_size_and_is_sound(tmp_path: Path):
    path = encode_video(tmp_path / "a.mkv", 20, codec="libx264", container_options={"live": "1"})
    assert inspect(path).num_frames == 20


@pytest.mark.parametrize("num_frames", [1, 5, 12])
def test_a_short_mkv_with_b_frames_is_sound(num_frames: int, tmp_path: Path):
    path = encode_video(tmp_path / "a.mkv", num_frames, codec="libx264")
    assert inspect(path).num_frames == num_frames


# What is known to be whole


@pytest.mark.parametrize("name", SOURCES)
def test_a_whole_file_gives_the_same_frames_and_decodes_none_behind_them(
    name: str, source: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    expected = full_decode(source(name))
    for wanted in ([0], [3], [11, 12], [5, 17], [39]):
        assert torch.equal(decode_frames(source(name), torch.tensor(wanted), whole=True), expected[wanted])
        assert count_decoded(source(name), wanted, monkeypatch, whole=True) <= wanted[-1] + 1
    assert list(iterate_frames(source(name), [], whole=True)) == []


def test_a_whole_file_is_not_read_behind_the_last_wanted_frame(sound_bytes: Callable[[str], bytes], tmp_path: Path):
    for name in ("xvid_b_frames.avi", "xvid_key_frames.avi", "h264.mkv"):
        path = tmp_path / name
        path.write_bytes(halve(sound_bytes(name)))
        assert len(decode_frames(path, torch.tensor([0, 5]), whole=True)) == 2
        with pytest.raises(VideoError, match="damaged"):
            decode_frames(path, torch.tensor([0, 5]))


def test_an_unexpected_error_names_the_video_and_the_line(tmp_path: Path):
    message = r"^a\.avi: the worker that read it failed \(MemoryError: no room, test_decoding\.py line \d+\)"
    with pytest.raises(VideoError, match=message), errors_name_video(Path("a.avi")):
        raise MemoryError("no room")
    with pytest.raises(VidclfError, match=r"^mine$"), errors_name_video(Path("a.avi")):
        raise VidclfError("mine")

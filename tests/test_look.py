"""Real videos as they come: counted, timed and turned as they are shown, and called damaged only where they are."""

import csv
from collections.abc import Callable
from fractions import Fraction
from itertools import groupby, product
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from doubles import stream_frames
from field_coded import write_field_coded
from PIL import Image
from torch import Tensor
from videos import encode_video, read_frame_number

from vidclf.data.catalogue import Catalogue
from vidclf.data.decoding import decode_frames, inspect
from vidclf.data.listing import VIDEO_ENDINGS
from vidclf.errors import VideoError

TURNED = {"video_90.mov": 3, "video_180.mov": 2, "video_270.mov": 1, "nasa_13013_rotated.mp4": 1}  # quarters, as rot90


def stored_frames(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path), metadata_errors="replace") as container:
        return list(container.decode(container.streams.best("video")))


def as_tensor(frame: av.VideoFrame) -> Tensor:
    return torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)


def test_every_foreign_clip_is_read_counted_correctly_and_upright(shared: Path):
    for path in sorted((shared / "clips" / "foreign").iterdir()):
        if path.name in ("corrupted.mp4", "demo_skeleton.mp4"):
            continue
        stored, info = stored_frames(path), inspect(path)
        assert info.num_frames == len(stored), path.name
        indices = torch.tensor([0, len(stored) // 2, len(stored) - 1])
        expected = [as_tensor(stored[index]).rot90(TURNED.get(path.name, 0), (1, 2)) for index in indices]
        assert torch.equal(decode_frames(path, indices, whole=True), torch.stack(expected)), path.name
        assert (info.width, info.height) == (expected[0].shape[2], expected[0].shape[1]), path.name


def test_clips_of_ucf101_have_the_number_of_frames_that_decode(shared: Path):
    with (shared / "ucf101" / "frame_counts.csv").open() as file:
        counts = {row["video"]: int(row["num_frames"]) for row in csv.DictReader(file)}
    root = shared / "ucf3"
    names = sorted(path.relative_to(root).as_posix() for path in root.glob("*/*.avi"))
    for name in [*names[::40], "JumpingJack/v_JumpingJack_g20_c01.avi"]:
        info = inspect(root / name)
        assert (info.num_frames, info.frames_at(torch.arange(counts[name])).max()) == (counts[name], counts[name] - 1)


@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mkv"])
def test_a_title_in_latin_1_is_read(name: str, tmp_path: Path):
    plain, path = encode_video(tmp_path / f"plain_{name}", 12, codec="libx264"), tmp_path / name
    with av.open(plain) as old, av.open(path, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        new.metadata["title"] = "Caféé"
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    path.write_bytes(path.read_bytes().replace("éé".encode(), "éééé".encode("latin-1")))
    with pytest.raises(UnicodeDecodeError):
        av.open(path)
    assert inspect(path).num_frames == 12
    assert read_frame_number(decode_frames(path, torch.tensor([7]))[0]) == 7


@pytest.mark.parametrize(("swapped", "x", "y"), list(product((False, True), (1, -1), (1, -1))))
def test_frames_are_turned_and_mirrored_as_their_display_matrix_says(swapped: bool, x: int, y: int, tmp_path: Path):
    path = encode_video(tmp_path / "a.mp4", 2, codec="libx264")
    plain, unit = as_tensor(stored_frames(path)[1]), 1 << 16
    a, b, c, d = (0, y, x, 0) if swapped else (x, 0, 0, y)  # the pixel (x, y) is shown at (a x + c y, b x + d y)
    matrices = [np.array([p * unit, q * unit, 0, r * unit, s * unit, 0, 0, 0, 1 << 30], ">i4").tobytes()
                for p, q, r, s in ((1, 0, 0, 1), (a, b, c, d))]  # fmt: skip
    data = path.read_bytes()
    start = data.index(b"tkhd")
    path.write_bytes(data[:start] + data[start:].replace(*matrices, 1))
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    to_x, to_y = a * columns + c * rows, b * columns + d * rows
    expected = torch.zeros((3, 64, 48) if swapped else (3, 48, 64), dtype=torch.uint8)
    expected[:, to_y - to_y.min(), to_x - to_x.min()] = plain
    assert torch.equal(decode_frames(path, torch.tensor([1]))[0], expected)
    info = inspect(path)
    assert (info.width, info.height) == (expected.shape[2], expected.shape[1])
    assert torch.equal(list(stream_frames(str(path))[1])[1][1], expected)


def test_raw_dv_has_25_frames_per_second(tmp_path: Path):
    path = encode_video(tmp_path / "a.dv", 12, codec="dvvideo", size=(720, 576))
    with av.open(path) as container:
        assert container.streams.video[0].average_rate == 60_000
    assert (inspect(path).num_frames, inspect(path).fps, stream_frames(str(path))[0]) == (12, 25, 25)


def test_joined_recordings_have_the_rate_that_they_state(tmp_path: Path):
    part = encode_video(tmp_path / "a.mpg", 12, codec="mpeg2video")
    path = tmp_path / "both.mpg"
    path.write_bytes(2 * part.read_bytes())  # as on a DVD, where the clock restarts
    assert (inspect(path).num_frames, inspect(path).fps) == (24, 25)  # not 24 in the half second of one recording


@pytest.mark.parametrize("name", ["a.ts", "a.mp4", "a.mkv", "a.h264"])
def test_two_fields_are_one_frame(name: str, tmp_path: Path):
    path = write_field_coded(tmp_path / name)
    with av.open(path) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 24
    info = inspect(path)
    assert (info.num_frames, info.fps, info.frames_at(torch.arange(12)).tolist()) == (12, 25.0, list(range(12)))
    upper, lower = decode_frames(path, torch.tensor([11]))[0, 0, :2, 0].tolist()
    assert upper == pytest.approx((20 + 110 - 16) * 255 / 219, abs=2)  # luma is from 16 to 235
    assert lower == pytest.approx((25 + 110 - 16) * 255 / 219, abs=2)


def test_positions_of_an_uneven_video_show_the_frame_at_their_time(shared: Path, tmp_path: Path):
    path = shared / "clips" / "foreign" / "demo_skeleton.mp4"
    with av.open(path) as container:
        times = [frame.time for frame in container.decode(video=0)]
    fact = Catalogue(tmp_path).look_up([path])[0]
    assert Catalogue(tmp_path).look_up([path]) == [fact]  # from its file
    info = fact.info
    assert info.num_frames / info.fps == pytest.approx(times[-1] + 1 / 30, abs=0.02)
    frames = info.frames_at(torch.arange(info.num_frames)[:, None])[:, 0].tolist()
    for position, frame in enumerate(frames):
        now = position / info.fps
        assert times[frame] <= now + 0.004  # an eighth of a frame
        assert frame + 1 == len(times) or times[frame + 1] >= now - 0.004


def test_absurd_times_cause_no_error_and_no_additional_frames(tmp_path: Path):
    path = encode_video(tmp_path / "a.mkv", 6, codec="libx264", fps=Fraction(25), pts=[0, 1, 2, 3, 4, 10**9])
    info = inspect(path)
    frames = info.frames_at(torch.arange(info.num_frames))
    assert (frames.min() >= 0, frames.max() <= 5, info.num_frames < 1000) == (True, True, True)


@pytest.mark.parametrize("num_frames", [1, 2, 5, 12])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libvpx-vp9"])
def test_a_short_matroska_is_whole(codec: str, num_frames: int, tmp_path: Path):
    path = encode_video(tmp_path / "a.mkv", num_frames, codec=codec)
    assert inspect(path).num_frames == num_frames


def test_the_streams_that_players_show_are_read_to_their_own_end(shared: Path):
    info = inspect(shared / "cases" / "two_video_streams" / "two.mkv")
    assert (info.num_frames, info.width, info.height) == (50, 160, 120)  # not the black preview of 64x48
    assert inspect(shared / "cases" / "mkv_long_subtitle" / "withsubs.mkv").num_frames == 50
    assert inspect(shared / "cases" / "nvop" / "nvop.avi").num_frames == 46


def test_an_empty_file_is_refused_whatever_its_extension(tmp_path: Path, capfd: pytest.CaptureFixture):
    for ending in sorted(VIDEO_ENDINGS):
        (path := tmp_path / f"a{ending}").touch()
        with pytest.raises(VideoError, match=r"the file is empty \(0 bytes\)"):
            inspect(path)
    assert capfd.readouterr() == ("", "")  # PyAV prints a stack trace of some


@pytest.mark.parametrize("place", [51, 201])
def test_damage_that_points_before_the_file_is_not_an_error_of_the_machine(
    place: int, tmp_path: Path, capfd: pytest.CaptureFixture
):
    path = encode_video(tmp_path / "a.wmv", 4, codec="wmv2", gop_size=12)
    content = bytearray(path.read_bytes())
    content[place] = 0xFF  # the highest byte of a length in its header
    path.write_bytes(content)
    assert inspect(path).num_frames == 4  # FFmpeg goes on without what it sought
    assert capfd.readouterr() == ("", "")  # PyAV prints a stack trace of a seek that raises


def animated_webp(path: Path) -> None:
    first, *others = (Image.new("RGB", (64, 48), (50 * number, 0, 0)) for number in range(4))
    first.save(path, save_all=True, append_images=others, duration=100)


@pytest.mark.parametrize("write", [animated_webp, lambda path: path.write_text("a list of videos\n" * 9)])
def test_a_file_that_ffmpeg_cannot_read_is_not_called_damaged(write: Callable[[Path], None], tmp_path: Path):
    write(path := tmp_path / "a.webp")
    with pytest.raises(VideoError, match=r"another kind of file|cannot decode") as error:
        inspect(path)
    assert "Re-extract it" not in str(error.value)


def test_a_change_of_size_is_an_error_in_a_file_and_allowed_in_a_stream(tmp_path: Path):
    parts = [encode_video(tmp_path / f"{size[0]}.h264", 12, codec="libx264", size=size)
             for size in ((64, 48), (96, 64))]  # fmt: skip
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(VideoError, match=r"frame \d+ is 96x64, those before 64x48"):
        inspect(path)
    shapes = [
        (shape, len(list(run))) for shape, run in groupby(frame.shape for _, frame in stream_frames(str(path))[1])
    ]
    assert shapes == [((3, 48, 64), 12), ((3, 64, 96), 12)]

"""Frames as their container says: upright, at their times, from the stream that players show."""

import json
from collections.abc import Callable
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import av
import pytest
import torch
from doubles import stream_frames
from verbs import Outcome
from videos import encode_video, read_frame_number

from vidclf.data.decoding import decode_frames, inspect
from vidclf.data.timing import are_even, fitting_rate, time_line
from vidclf.errors import VideoError


def test_real_phones_are_upright(shared: Path):
    foreign, cases = shared / "clips" / "foreign", shared / "cases" / "rotation"
    sizes = {
        name: inspect(foreign / name) for name in ("video_0.mov", "video_90.mov", "video_180.mov", "video_270.mov")
    }
    assert [(info.width, info.height) for info in sizes.values()] == [(568, 320), (320, 568), (568, 320), (320, 568)]
    info = inspect(foreign / "nasa_13013_rotated.mp4")
    assert (info.width, info.height) == (270, 480)
    middle = torch.tensor([38])
    turned, same = (decode_frames(cases / name, middle).float() for name in ("phone.mp4", "phone_upright.mp4"))
    assert (turned - same).abs().mean() < 4 < (turned - turned.rot90(1, (2, 3))).abs().mean()


def test_a_real_video_of_variable_rate_is_seen_on_an_even_time_line(shared: Path):
    """72 frames, of which one is shown for six thirtieths of a second."""
    path = shared / "clips" / "foreign" / "demo_skeleton.mp4"
    info = inspect(path)
    assert (info.num_frames, info.fps, len(info.shown_from)) == (77, 30.0, 72)
    positions = torch.tensor([[0, 66], [67, 71], [72, 76]])
    assert info.frames_at(positions).tolist() == [[0, 66], [66, 66], [67, 71]]
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    for position, frame in enumerate(info.frames_at(torch.arange(77)).tolist()):
        assert times[frame] <= position / 30 + 0.004
        assert frame == 71 or times[frame + 1] > position / 30 + 0.003


def test_frames_of_a_variable_rate_are_those_shown_at_their_times(tmp_path: Path):
    """One second at 25 a second, then one at 5: a view a fifth of a second."""
    pts = [*range(25), *range(25, 50, 5)]
    info = inspect(path := encode_video(tmp_path / "slow.mp4", 30, pts=pts, codec="libx264"))
    assert (info.num_frames, info.fps) == (pytest.approx(50, abs=4), 25.0)
    shown = decode_frames(path, info.frames_at(torch.arange(0, 50, 5)))
    assert [read_frame_number(frame) for frame in shown] == [0, 5, 10, 15, 20, 25, 26, 27, 28, 29]


@pytest.mark.parametrize(
    ("times_s", "even"),
    [
        ([0.0, 0.033, 0.067, 0.1, 0.133], True),  # Matroska's milliseconds
        ([index / 30 for index in range(20_000)], True),  # whatever rate is stated
        ([0.0, 1 / 30, 2 / 30, 8 / 30, 9 / 30], False),
        ([0.0, 3.0], True),
        ([], True),
    ],
)
def test_times_are_even_if_each_frame_is_at_its_place(times_s: list[float], even: bool):
    assert are_even(times_s) is even


def test_a_time_line_keeps_the_times_across_any_gap():
    assert time_line([0.0, 0.04, 0.08, 36000.0], 0.04, [Fraction(25)]) == (900_001, 25, (0, 1, 2, 900_000))
    assert time_line([0.0, 0.1, 0.2, 0.7], 0.1, [Fraction(25), None]) == (8, pytest.approx(10), (0, 1, 2, 7))


@pytest.mark.parametrize(
    ("num_frames", "duration_s", "stated", "fps"),
    [
        (250, 10.0, (25,), 25),
        (72, 73 / 30, (30,), 30),  # HMDB51's clips: one packet more than frames
        (250, 10.0, (60_000, 25), 25),  # raw DV
        (250, 10.0, (50, 50, 50), 25),  # in fields
        (46, 2.0, (25,), 23),  # four packets show nothing
        (46, None, (None, 25), 25),
        (46, None, (), None),
    ],
)
def test_the_rate_is_frames_over_duration_if_no_stated_rate_fits(
    num_frames: int, duration_s: float | None, stated: tuple, fps: float | None
):
    assert fitting_rate(num_frames, duration_s, [rate and Fraction(rate) for rate in stated]) == fps


def test_packets_that_show_nothing_are_no_frames(shared: Path):
    info = inspect(path := shared / "cases" / "nvop" / "nvop.avi")
    assert (info.num_frames, info.fps) == (46, 23.0)
    assert len(decode_frames(path, torch.arange(46))) == 46


def test_the_stream_that_players_show_is_read(shared: Path):
    path = shared / "cases" / "two_video_streams" / "two.mkv"
    assert inspect(path).num_frames == 50
    assert decode_frames(path, torch.tensor([25])).float().mean() > 30  # the preview before it is black


def test_a_container_may_be_longer_than_its_frames(shared: Path):
    path = shared / "cases" / "mkv_long_subtitle" / "withsubs.mkv"
    assert (inspect(path).num_frames, inspect(path).fps) == (50, 25.0)


def test_a_new_frame_size_begins_a_window_of_a_stream(tmp_path: Path):
    sizes = [(64, 48)] * 5 + [(96, 64)] * 4
    parts = [
        encode_video(tmp_path / f"{size[0]}.mjpeg", 1, size=size, codec="mjpeg", pix_fmt="yuvj420p") for size in sizes
    ]
    path = tmp_path / "camera.mjpeg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    _, frames = stream_frames(f"file://{path}")
    shapes = [(tuple(shape[1:]), len(list(run))) for shape, run in groupby(frame.shape for _, frame in frames)]
    assert shapes == [((48, 64), 5), ((64, 96), 4)]
    with pytest.raises(VideoError, match="frame 5 is 96x64, those before 64x48"):
        inspect(path)


def test_a_turned_video_is_labelled_as_the_upright_one(shared: Path, run: Path, vidclf: Callable[..., Outcome]):
    def probabilities(name: str) -> list[float]:
        outcome = vidclf("predict", f"run={run}", f"source={shared / 'cases' / 'rotation' / name}")
        assert outcome.status == 0, outcome.err
        return [row["probability"] for row in json.loads(outcome.out)["top5"]]

    assert probabilities("phone.mp4") == pytest.approx(probabilities("phone_upright.mp4"), abs=0.02)

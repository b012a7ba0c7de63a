"""Lines of a stream: their time, smoothing, threshold and end; a recording of them."""

import json
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from doubles import Images
from PIL import Image
from servers import jpegs, send_mjpeg, serving
from test_live import predictor_of
from videos import encode_video

from vidclf.data.addresses import Source
from vidclf.data.sampling import Rate
from vidclf.errors import VidclfError, VideoError
from vidclf.evaluation.timeline import average_windows
from vidclf.prediction.drawing import Recorder, draw_label
from vidclf.prediction.live import WindowLabel
from vidclf.prediction.watch import Line, Smoothing, label_stream
from vidclf.prediction.windows import Windows


def window_of(start_s: float, end_s: float, probability: float) -> WindowLabel:
    """Return a window whose first class has this probability."""
    rows = torch.tensor([probability, 1 - probability]).log()
    return WindowLabel(start_s, end_s, rows, ["left", "right"], 0.0, 0)


def watch(address: str, **settings: Any) -> list[Line]:
    source = Source(address, timeout_s=2, realtime=settings.pop("realtime", False))
    windows = settings.pop("windows", Windows(0.4, 0.4, 10))
    return list(label_stream(predictor_of(Images(), Rate(10)), source, windows, **settings))


def test_the_lines_of_a_file_have_its_own_time_and_those_of_a_server_the_clocks(tmp_path: Path):
    path = encode_video(tmp_path / "a.avi", 30)
    lines = watch(f"file://{path}")
    assert [line.time for line in lines] == [0.4, 0.8, 1.2]
    assert list(lines[0].as_json("name")) == [
        *("path", "time", "start_s", "end_s", "label", "probability", "top5", "delay_ms", "dropped")
    ]
    before_s = time.time()
    with serving(lambda connection, _: send_mjpeg(connection, jpegs(range(300)), fps=100)) as server:
        lines = watch(server.url, until_s=1.5)
    (first, *_, last) = lines
    assert before_s < first.clock_s < last.clock_s < time.time()
    assert last.clock_s - first.clock_s == pytest.approx(last.window.end_s - first.window.end_s, abs=0.2)
    assert len(str(first.time)) == len("2026-01-31T12:00:00.000Z")
    assert str(first.time).endswith("Z")
    assert first.as_row("name")["end_s"] == pytest.approx(first.clock_s, abs=0.001)


def test_until_is_the_time_of_a_file_also_at_its_own_speed(tmp_path: Path):
    path = encode_video(tmp_path / "a.avi", 100)
    for realtime in (False, True):
        lines = watch(f"file://{path}" if not realtime else str(path), until_s=0.8, realtime=realtime)
        assert [line.window.end_s for line in lines] == [0.4, 0.8]


def test_an_error_comes_after_the_lines_before_it(tmp_path: Path):
    content = encode_video(tmp_path / "a.avi", 30).read_bytes()
    (tmp_path / "a.avi").write_bytes(content[: len(content) // 30])
    with pytest.raises(VideoError, match=r"a\.avi"):
        watch(f"file://{tmp_path / 'a.avi'}")
    silent = encode_video(tmp_path / "b.mkv", 12, pts=range(12))
    assert len(watch(f"file://{silent}", windows=Windows(10.0, 10.0))) == 1


def test_smoothing_averages_the_instants_before_the_end_from_windows_so_far():
    smoothing = Smoothing(smooth_s=2.0, step_s=0.1)
    windows = [window_of(float(start), start + 2.0, probability) for start, probability in enumerate([0.9, 0.5, 0.1])]
    smoothed = [smoothing.smooth(window, 1.0).log_probabilities.exp()[0].item() for window in windows]
    times_s = np.arange(2.05, 4.0, 0.1)
    rows = np.asarray([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    expected = average_windows(rows, np.asarray([0.0, 1.0, 2.0]), np.asarray([2.0, 3.0, 4.0]), times_s).mean(0)[0]
    assert smoothed == [pytest.approx(0.9), pytest.approx(0.6), pytest.approx(expected)]
    assert Smoothing(smooth_s=1.0).smooth(windows[0], 1.0) is windows[0]
    for start in range(3, 30):
        smoothing.smooth(window_of(float(start), start + 2.0, 0.5), 1.0)
    assert len(smoothing._windows) == 2  # those that end in the last two seconds


@pytest.mark.parametrize(
    ("threshold", "temperature", "label"), [(None, None, "left"), (0.8, None, None), (0.8, 0.5, "left")]
)
def test_a_window_below_the_threshold_has_no_label(
    threshold: float | None, temperature: float | None, label: str | None
):
    window = window_of(0.0, 1.0, 0.7)
    line = Line(window, Smoothing(threshold=threshold, temperature=temperature).is_sure(window), None, 12)
    assert line.label == label
    assert json.loads(json.dumps(line.as_json("-")))["probability"] == (pytest.approx(0.7) if label else None)


def test_a_line_on_a_terminal_fits_80_columns_and_moves_no_cursor():
    names = ["left\x1b[2J" * 30, "right"]
    for probability, clock_s in ((1.0, 0.0), (0.02, None)):
        window = window_of(86_390.0, 86_400.0, probability)
        window = WindowLabel(
            *(getattr(window, key) for key in ("start_s", "end_s", "log_probabilities")), names, 0.0, 9_999_999
        )
        text = Line(window, True, clock_s, 12_345).as_text()
        assert len(text) < 80
        assert "\x1b" not in text


def test_a_recording_shows_the_label_of_the_window_before_and_is_whole(tmp_path: Path):
    path, saved = encode_video(tmp_path / "a.avi", 30, size=(160, 121)), tmp_path / "out.mp4"
    lines = watch(f"file://{path}", recorder=Recorder(saved))
    with av.open(saved) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 30
    assert frames[0].shape == (120, 160, 3)
    bars = [int((np.abs(frame[-1].astype(int) - (90, 200, 120)).sum(-1) < 60).sum()) for frame in frames]
    assert bars[8] == 0  # no window is whole yet
    expected = [round(line.probability * 160) for line in lines]
    assert [bars[n] for n in (12, 22)] == [pytest.approx(length, abs=4) for length in expected[:2]]


def test_a_recording_that_is_cut_off_is_playable_and_takes_other_sizes(tmp_path: Path):
    saved, recorder = tmp_path / "out.mkv", Recorder(tmp_path / "out.mkv")
    frames = [av.VideoFrame.from_ndarray(np.zeros((h, w, 3), np.uint8), "rgb24") for h, w in ((48, 64), (80, 64))]

    def write() -> None:
        with recorder:
            for number in range(10):
                recorder.write(number / 25, frames[number % 2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    recorder.write(1.0, frames[0])  # by the reader's thread, which has not ended yet
    with av.open(saved) as container:
        assert [(frame.width, frame.height) for frame in container.decode(video=0)] == [(64, 48)] * 10


def test_a_recording_overwrites_no_file_that_was_made_meanwhile(tmp_path: Path):
    recorder = Recorder(tmp_path / "out.mp4")
    (tmp_path / "out.mp4").write_text("mine")
    with pytest.raises(VidclfError, match="cannot write"), recorder:
        pass
    assert (tmp_path / "out.mp4").read_text() == "mine"


def test_a_recording_without_a_picture_is_no_file(tmp_path: Path):
    with Recorder(tmp_path / "out.mp4"):
        pass
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("a.avi", "must end in .mp4 or .mkv"), ("there.mp4", "the file exists"), ("no/a.mp4", "there is no folder")],
)
def test_a_recording_that_cannot_be_written_is_refused_at_once(name: str, sentence: str, tmp_path: Path):
    (tmp_path / "there.mp4").touch()
    with pytest.raises(VidclfError, match=sentence):
        Recorder(tmp_path / name)


def test_a_label_is_drawn_with_a_bar_as_long_as_its_probability():
    drawn = np.asarray(draw_label(Image.new("RGB", (200, 100), "white"), "left", 0.25))
    assert (drawn[0] == 255).all()
    assert [tuple(drawn[-1, x]) for x in (0, 49)] == [(90, 200, 120)] * 2
    assert tuple(drawn[-1, 50]) != (90, 200, 120)

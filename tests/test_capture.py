"""The thread that reads a stream: it waits, reconnects, and ends on request."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from av.video.frame import VideoFrame
from servers import OK, answering, jpegs, send_mjpeg, serving, silent
from videos import encode_video

from vidclf.data import capture
from vidclf.data.addresses import Source
from vidclf.data.capture import Capture
from vidclf.data.streams import Stream
from vidclf.errors import VideoError

SECRETS = ("admin", "hunter2", "s3cret")


class Notes:
    """Notes what a capture hands on."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []  # of each beginning
        self.frames: list[tuple[float, float]] = []  # when each is shown, and when it came
        self.has_finished = threading.Event()
        self._begins = False

    def begin(self, stream: Stream) -> None:
        self._begins = True

    def take(self, time_s: float, frame: VideoFrame, arrived_s: float) -> None:
        if self._begins:
            self.sizes.append((frame.width, frame.height))
            self._begins = False
        self.frames.append((time_s, arrived_s))

    def finish(self) -> None:
        self.has_finished.set()


@contextmanager
def capturing(address: str, **settings: Any) -> Iterator[tuple[Capture, Notes]]:
    notes = Notes()
    with Capture(Source(address, **({"timeout_s": 0.3} | settings)), notes) as reader:
        yield reader, notes


def wait_until(condition: Callable[[], object], timeout_s: float = 5) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "SHORTEST_DELAY_S", 0.05)
    monkeypatch.setattr(capture, "LONGEST_DELAY_S", 0.2)


def test_a_live_stream_that_dies_is_connected_again_with_delays_that_double_and_time_goes_on(
    capsys: pytest.CaptureFixture[str],
):
    def die_often(connection: socket.socket, number: int) -> None:
        if number in (0, 5):
            send_mjpeg(connection, jpegs(range(20)), fps=200)
        if number > 5:
            send_mjpeg(connection, jpegs(range(500)), fps=100)

    with serving(die_often) as server, capturing(server.url) as (reader, notes):
        wait_until(lambda: len(notes.sizes) == 3 and len(notes.frames) > 60)
    told = [line.rpartition(" in ")[2] for line in capsys.readouterr().err.splitlines() if "Trying again" in line]
    assert told == ["0.05 s.", "0.1 s.", "0.2 s.", "0.2 s.", "0.2 s.", "0.05 s."]  # and from the start, after a picture
    times_s = [time_s for time_s, _ in notes.frames]
    assert times_s == sorted(times_s)
    assert times_s[20] > 0.7  # the delays
    assert reader.error is None


def test_reconnecting_is_told_without_secrets(capsys: pytest.CaptureFixture[str]):
    def die_once(connection: socket.socket, number: int) -> None:
        if number == 1:
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        else:
            send_mjpeg(connection, jpegs(range(20 + 500 * number)), fps=100)

    with serving(die_once) as server:
        address = server.url.replace("//", "//admin:hunter2@") + "?token=s3cret"
        with capturing(address) as (_, notes):
            wait_until(lambda: len(notes.sizes) == 2)
    error = capsys.readouterr().err
    where = f"http://***@127.0.0.1:{server.port}/live?***"
    assert (
        f"{where}: the stream broke off (Input/output error). See whether it still runs. Trying again in 0.05" in error
    )
    assert f"{where}: the stream cannot be opened (Server returned 404 Not Found)" in error
    assert f"{where}: connected again after 0 s." in error
    assert not any(secret in error for secret in SECRETS)


def test_a_change_of_size_is_a_new_beginning():
    images = [*jpegs(range(20)), *jpegs(range(20), (80, 64)), *jpegs(range(200))]
    with (
        serving(lambda connection, _: send_mjpeg(connection, images, fps=200)) as server,
        capturing(server.url) as (_, notes),
    ):
        wait_until(lambda: len(notes.sizes) == 3)
    assert notes.sizes == [(64, 48), (80, 64), (64, 48)]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (silent, "no picture came within"),
        (answering(OK + b"Content-Type: text/html\r\n", b"<p>"), "a page and no video"),
    ],
)
def test_what_never_had_a_picture_is_an_error_and_not_tried_again(answer: Any, sentence: str):
    with serving(answer) as server, capturing(server.url) as (reader, notes):
        assert notes.has_finished.wait(5)
    assert isinstance(reader.error, VideoError)
    assert sentence in str(reader.error)


def test_a_file_ends_and_is_not_read_again(tmp_path: Path):
    with capturing(f"file://{encode_video(tmp_path / 'a.avi', 30)}") as (reader, notes):
        assert notes.has_finished.wait(5)
    assert (len(notes.frames), notes.sizes, reader.error) == (30, [(64, 48)], None)


def test_a_file_comes_at_its_own_speed(tmp_path: Path):
    path = encode_video(tmp_path / "a.avi", 10, fps=20)
    with capturing(str(path), realtime=True) as (_, notes):
        assert notes.has_finished.wait(5)
    assert notes.frames[-1][1] - notes.frames[0][1] == pytest.approx(9 / 20, abs=0.1)
    assert notes.frames[-1][0] == pytest.approx(9 / 20)


@pytest.mark.parametrize("state", ["before its answer", "after pictures", "between two connections"])
def test_the_end_waits_for_no_silent_server(state: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(capture, "SHORTEST_DELAY_S", 30.0)

    def fall_silent(connection: socket.socket, number: int) -> None:
        if state != "before its answer":
            send_mjpeg(connection, jpegs(range(20)), fps=200)
        if state != "between two connections":
            silent(connection, number)

    with serving(fall_silent) as server:
        with capturing(server.url, timeout_s=2) as (_, notes):
            wait_until(lambda: server.num_connections and (state == "before its answer" or len(notes.frames) == 20))
            time.sleep(0.1)
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 0.5
    assert notes.has_finished.wait(5)  # the thread is not left behind in this process


def test_a_camera_that_shows_nothing_is_told(monkeypatch: pytest.MonkeyPatch):
    freed = threading.Event()
    monkeypatch.setattr(capture, "Stream", lambda *_: freed.wait(5))
    with capturing("camera:0", timeout_s=0.1) as (reader, notes):
        reader.check_camera()
        time.sleep(0.15)
        with pytest.raises(VideoError, match=r"camera:0: no picture for 0\.1 s"):
            reader.check_camera()
        freed.set()
        assert notes.has_finished.wait(5)

"""Frames of standard input, pipes, cameras and servers, as they arrive, and what is said where none do."""

import errno
import io
import itertools
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from av.video.reformatter import VideoReformatter
from servers import OK, answering, jpegs, send_mjpeg, send_paced, serve_rtsp, serving, silent
from videos import encode_video, read_frame_number

from vidclf.data import streams
from vidclf.data.addresses import Source, is_stream, limits_of
from vidclf.data.decoding import to_tensor
from vidclf.data.streams import Stream, StreamFrame
from vidclf.errors import VidclfError, VideoError

TS = {"codec": "libx264", "gop_size": 12, "options": {"preset": "ultrafast", "tune": "zerolatency"}}


def open_stream(address: str, **settings: Any) -> Stream:
    return Stream(Source(address, **settings), threading.Event())


def numbers_of(frames: Iterator[StreamFrame]) -> list[int]:
    """Return the numbers that frames show."""
    reformatter = VideoReformatter()
    return [read_frame_number(to_tensor(frame, reformatter)) for _, frame, _ in frames]


def refusal_of(url: str, **settings: Any) -> str:
    """Return the sentence for a stream that cannot be opened."""
    with pytest.raises(VideoError) as refused:
        open_stream(url, **({"timeout_s": 1} | settings))
    return str(refused.value).removeprefix(f"{url}: ")


def test_streams_and_files_are_distinguished(tmp_path: Path):
    (tmp_path / "a=b.avi").touch()
    os.mkfifo(tmp_path / "pipe")
    urls = ["rtsp://camera/1", "http://host/a.mp4", "HTTPS://host/a"]
    assert all(map(is_stream, ["-", *urls, "/dev/null", "/dev/video9", "camera:0", str(tmp_path / "pipe")]))
    assert not any(map(is_stream, [str(tmp_path / "a=b.avi"), str(tmp_path), str(tmp_path / "missing.avi")]))


def test_frames_of_a_pipe_come_while_it_continues(tmp_path: Path):
    data = encode_video(tmp_path / "a.ts", 40, codec="libx264").read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=write_without_end, args=(pipe, data))
    writer.start()
    stream = open_stream(str(pipe))
    frames = stream.frames()
    numbers = numbers_of(itertools.islice(frames, 100))
    frames.close()
    writer.join(timeout=10)
    assert (stream.fps, stream.is_live) == (25, False)
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


def test_a_pipe_that_is_silent_is_waited_for_told_once_and_left_when_the_reader_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    os.mkfifo(tmp_path / "pipe")
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(VideoError, match="holds no video"):
        Stream(Source(str(tmp_path / "pipe"), timeout_s=0.1), stop)
    assert capsys.readouterr().err == f"{tmp_path}/pipe: nothing has come for 0.1 s; waiting.\n"


@pytest.mark.parametrize("is_file", [True, False])
def test_standard_input_is_a_stream(is_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = encode_video(tmp_path / "a.mp4", 40, codec="libx264")  # its index is at the end: seeking finds it
    with path.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file if is_file else io.BytesIO(file.read())))
        stream = open_stream("-")
        assert [round(25 * frame.time_s, 3) for frame in stream.frames()] == list(range(40))
        if is_file:
            sys.stdin.detach()
    assert stream.fps == 25


@pytest.mark.parametrize("num_b_frames", [0, 2])
def test_an_mpeg_4_stream_that_is_joined_in_a_group_begins_with_its_next_key_frame(
    num_b_frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = encode_video(tmp_path / "a.ts", 60, codec="mpeg4", gop_size=12, max_b_frames=num_b_frames)
    content = path.read_bytes()
    middle = io.BytesIO(content[len(content) // 3 // 188 * 188 :])  # from a packet of the transport on
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(middle))
    numbers = numbers_of(open_stream("-").frames())
    assert numbers == [*range(numbers[0], 60)]
    assert numbers[0] in (24, 36)


def test_mjpeg_of_a_server_is_live_and_has_the_time_at_which_it_comes():
    with serving(lambda connection, _: send_mjpeg(connection, jpegs(range(200)), fps=50)) as server:
        stream = open_stream(server.url)
        frames = list(itertools.islice(stream.frames(), 60))
    assert stream.is_live
    assert numbers_of(iter(frames)) == list(range(60))
    assert frames[-1].time_s - frames[20].time_s == pytest.approx(39 / 50, abs=0.15)  # not 39 / 25, its stated rate


def test_an_mpeg_ts_server_that_goes_on_is_live_and_one_that_knows_the_size_is_a_file(tmp_path: Path):
    content = encode_video(tmp_path / "a.ts", 40, **TS).read_bytes()
    with serving(lambda connection, _: send_paced(connection, content, 0.4)) as server:
        stream = open_stream(server.url)
        frames = stream.frames()
        assert numbers_of(itertools.islice(frames, 40)) == list(range(40))
        with pytest.raises(VideoError, match=r"the stream (broke off|has ended)"):
            next(frames)
    with serving(answering(OK + b"Content-Length: %d\r\n" % len(content), content)) as server:
        file = open_stream(server.url)
        assert numbers_of(file.frames()) == list(range(40))
    assert (stream.is_live, file.is_live) == (True, False)


def test_an_rtsp_camera_is_read_through_its_own_connection(tmp_path: Path):
    content = encode_video(tmp_path / "a.ts", 60, **TS).read_bytes()

    def answer(connection: socket.socket, number: int) -> None:
        serve_rtsp(connection, content, 0.6)
        silent(connection, number)

    with serving(answer) as server:
        stream = open_stream(server.url.replace("http", "rtsp"), timeout_s=0.5)
        frames = stream.frames()
        assert numbers_of(itertools.islice(frames, 50)) == list(range(50))
        assert stream.is_live
        with pytest.raises(VideoError, match=r"silent for 0\.5 s|broke off"):
            list(frames)
    with serving(answering(b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n")) as server:
        assert "401 Unauthorized" in refusal_of(server.url.replace("http", "rtsp"))


@pytest.mark.parametrize(
    ("head", "body", "sentence"),
    [
        (
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n",
            b"",
            "the stream cannot be opened (Server returned 404",
        ),
        (OK + b"Content-Type: text/html\r\n", b"<html>no video", "the server sends text/html, a page and no video."),
        (OK, bytes(range(256)) * 99, "what the server sends is no video, or damaged."),
        (OK + b"Content-Length: 25344\r\n", bytes(range(256)) * 99, "what the server sends is no video, or damaged."),
        (OK, b"", "what the server sends is no video, or damaged."),
        (b"\x00\x01", b"\x02", "the answer of the server is none of HTTP."),
    ],
)
def test_a_server_without_a_video_is_a_sentence(head: bytes, body: bytes, sentence: str):
    with serving(answering(head, body)) as server:
        assert refusal_of(server.url).startswith(sentence)


def test_a_server_that_never_answers_and_one_that_sends_no_picture_are_given_up():
    with serving(silent) as server:
        assert refusal_of(server.url, timeout_s=0.3).startswith("no picture came within 0.3 s.")
    with serving(lambda connection, _: send_mjpeg(connection, jpegs(range(30)), fps=200)) as server:
        frames = open_stream(server.url, timeout_s=0.3).frames()
        with pytest.raises(VideoError, match="the stream broke off"):
            list(frames)


def test_a_server_that_falls_silent_and_one_whose_pictures_stop_are_told_apart():
    def stall(connection: socket.socket, number: int) -> None:
        send_mjpeg(connection, jpegs(range(30)), fps=200)
        silent(connection, number)

    def send_sound_only(connection: socket.socket, _: int) -> None:
        images = itertools.chain(jpegs(range(30)), itertools.repeat(b"damaged" * 20, 200))
        send_mjpeg(connection, images, fps=100)

    with serving(stall) as server, pytest.raises(VideoError, match=r"silent for 0\.3 s"):
        list(open_stream(server.url, timeout_s=0.3).frames())
    with serving(send_sound_only) as server, pytest.raises(VideoError, match=r"sends data, but no picture for 0\.3 s"):
        list(open_stream(server.url, timeout_s=0.3).frames())


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{url}\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "concat": "ffconcat version 1.0\nfile {url}\n",
}


@pytest.mark.parametrize("kind", [*PLAYLISTS, "redirection", "redirection to a file", "redirection to concat"])
def test_what_a_server_names_is_never_opened(kind: str, tmp_path: Path):
    clip = encode_video(tmp_path / "a.ts", 40, **TS)
    with serving(answering(OK, clip.read_bytes())) as secret:
        if kind in PLAYLISTS:
            text = PLAYLISTS[kind].format(url=f"{secret.url}.ts", port=secret.port)
            answer = answering(OK + b"Content-Type: application/vnd.apple.mpegurl\r\n", text.encode())
        else:
            targets = {"redirection": f"{secret.url}?token=s3cret", "redirection to a file": f"file://{clip}"}
            target = targets.get(kind, f"concat:{clip}|{clip}")
            answer = answering(b"HTTP/1.0 302 Found\r\nLocation: " + target.encode() + b"\r\n")
        with serving(answer) as server:
            ending = {"hls": ".m3u8", "sdp": ".sdp"}.get(kind, "")
            sentence = refusal_of(server.url + ending)
        assert sentence.startswith(("a playlist", "the server leads to", "what the server sends"))
        assert "s3cret" not in sentence
        assert secret.num_connections == 0


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_in_a_pipe_opens_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with serving(silent) as server:
        text = PLAYLISTS[kind].format(url=f"{server.url}.ts", port=server.port)
        (tmp_path / "a.m3u8").write_text(text)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        for address in ("-", f"file://{tmp_path}/a.m3u8"):
            assert refusal_of(address).startswith(("a playlist", "the stream cannot be opened (it holds no video)"))
        assert server.num_connections == 0


def test_a_playlist_is_read_where_that_is_asked_for_and_opens_no_file(tmp_path: Path):
    clip = encode_video(tmp_path / "a.ts", 40, **TS)
    content = clip.read_bytes()
    with serving(answering(OK + b"Content-Length: %d\r\n" % len(content), content)) as segment:
        for url, is_read in ((f"{segment.url}.ts", True), (f"file://{clip}", False)):
            text = PLAYLISTS["hls"].format(url=url).encode()
            head = OK + b"Content-Type: application/vnd.apple.mpegurl\r\nContent-Length: %d\r\n" % len(text)
            with serving(answering(head, text)) as server:
                address = f"{server.url}.m3u8"
                if is_read:
                    assert numbers_of(open_stream(address, protocols=("hls",)).frames()) == list(range(40))
                else:
                    refusal_of(address, protocols=("hls",))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"address": "udpp://nowhere"},
            "source=udpp://nowhere: the protocol udpp is not allowed. Give http, https",
        ),
        ({"address": "ftp://host/a"}, "source=ftp://host/a: the protocol ftp is not allowed. Pass protocols=ftp."),
        ({"address": "concat://a|b"}, "the protocol concat is not allowed."),
        ({"address": "subfile,,start,1,end,2,,:http://a"}, "is not allowed."),
        ({"address": "hls://a", "protocols": ("hls",)}, "the protocol hls is not allowed."),
        ({"address": "http://a", "protocols": ("file",)}, "protocols=file: must be among rtmp"),
        ({"address": "camera:front"}, "source=camera:front: must be camera: and a number. The first is camera:0."),
        ({"address": "http://a", "timeout_s": 0}, "timeout_s=0: must be above 0"),
        (
            {"address": "http://a", "realtime": True},
            "realtime=true: is for files, and http://a has a speed",
        ),
    ],
)
def test_an_address_that_is_not_allowed_is_refused_before_anything_is_opened(settings: dict[str, Any], sentence: str):
    with pytest.raises(VidclfError) as refused:
        Source(**settings).check()
    assert sentence in str(refused.value)


def test_a_protocol_opens_its_own_host_only_and_rtsp_opens_no_port():
    options = limits_of(Source("rtsp://camera/1"))
    assert (options["protocol_whitelist"], options["rtsp_transport"], options["max_redirects"]) == ("tcp", "tcp", "0")
    assert "rtsp" in options["format_whitelist"].split(",")
    formats = limits_of(Source("https://host/live"))["format_whitelist"].split(",")
    assert not {"hls", "dash", "rtsp", "rtp", "sdp", "concat", "image2"} & {*formats}
    assert "mpegts" in formats
    assert "rtsp_transport" not in limits_of(Source("rtsp://camera/1", ("udp",)))


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.EBUSY, "another program uses this camera. Close it."),
        (errno.EACCES, "no permission to use this camera."),
        (errno.ENOENT, "there is no such camera."),
        (errno.ENOTTY, "there is no such camera."),
    ],
)
def test_a_camera_that_cannot_be_used_is_a_sentence(code: int, sentence: str, monkeypatch: pytest.MonkeyPatch):
    def refuse(address: str, *_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), address)

    monkeypatch.setattr(av, "open", refuse)
    assert refusal_of("camera:0").startswith(sentence)


def test_a_camera_that_is_not_there_is_a_sentence():
    assert refusal_of("camera:99").startswith("there is no such camera. On Linux, cameras are /dev/video*; here: ")


def test_a_clock_that_jumps_goes_on_where_it_was():
    live, file = (streams._Clock(25.0, is_live) for is_live in (True, False))
    shown = [7.0, 7.04, 7.08, 90_000.0, 90_000.04, 3.0, 3.04]  # ahead by a day, then back
    assert [round(25 * live.time_of(time_s, 0.04 * n)) for n, time_s in enumerate(shown)] == list(range(7))
    assert [round(file.time_of(time_s, 0.0), 2) for time_s in (0.0, 60.0, 60.04, 1.0)] == [0.0, 60.0, 60.04, 60.08]
    slow = streams._Clock(25.0, True)
    assert [slow.time_of(time_s, time_s) for time_s in (0.0, 5.0, 25.0)] == [0.0, 5.0, 25.0]  # as our clock: a pause

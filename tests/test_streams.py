"""Frames of standard input, pipes and URLs, as they arrive."""

import io
import os
import sys
import threading
from itertools import islice
from pathlib import Path

import pytest
from videos import encode_video, read_frame_number

from vidclf.data.streams import is_stream, stream_frames
from vidclf.errors import VideoError


def test_streams_and_files_are_distinguished(tmp_path: Path):
    (tmp_path / "a=b.avi").touch()
    os.mkfifo(tmp_path / "pipe")
    assert all(map(is_stream, ["-", "rtsp://camera/1", "http://host/a.mp4", "/dev/null", str(tmp_path / "pipe")]))
    assert not any(map(is_stream, [str(tmp_path / "a=b.avi"), str(tmp_path), str(tmp_path / "missing.avi")]))


def test_frames_of_a_stream_come_while_it_continues(tmp_path: Path):
    data = encode_video(tmp_path / "a.ts", 40, codec="libx264").read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=write_without_end, args=(pipe, data))
    writer.start()
    fps, frames = stream_frames(str(pipe))
    numbers = [read_frame_number(frame) for _, frame in islice(frames, 100)]
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


def test_standard_input_is_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with encode_video(tmp_path / "a.ts", 40, codec="libx264").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        fps, frames = stream_frames("-")
        assert [(read_frame_number(frame), round(25 * time_s, 3)) for time_s, frame in frames] == [
            (number, number) for number in range(40)
        ]
        sys.stdin.detach()
    assert fps == 25


@pytest.mark.parametrize("num_b_frames", [0, 2])
def test_an_mpeg_4_stream_that_is_joined_in_a_group_begins_with_its_next_key_frame(
    num_b_frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = encode_video(tmp_path / "a.ts", 60, codec="mpeg4", gop_size=12, max_b_frames=num_b_frames)
    content = path.read_bytes()
    middle = io.BytesIO(content[len(content) // 3 // 188 * 188 :])  # from a packet of the transport on
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(middle))
    numbers = [read_frame_number(frame) for _, frame in stream_frames("-")[1]]
    assert numbers == [*range(numbers[0], 60)]
    assert numbers[0] in (24, 36)


def test_a_stream_that_cannot_be_opened_is_refused():
    with pytest.raises(VideoError, match=r"udpp://nowhere: the stream cannot be opened.*Allowed are"):
        stream_frames("udpp://nowhere")

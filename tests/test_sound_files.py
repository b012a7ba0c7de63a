"""Sound files that a strict decoder refuses, and what is left out of files that begin between two key frames."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
import torch
from doubles import stream_frames
from videos import change_packets, encode_video, full_decode, read_frame_number

from vidclf.data.catalogue import Catalogue
from vidclf.data.decoding import decode_frames, inspect, iterate_frames
from vidclf.data.packets import FILE_PROPERTIES, read_packets
from vidclf.errors import VideoError

H264: dict[str, Any] = {"codec": "libx264", "gop_size": 12}
H265: dict[str, Any] = {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=1:keyint=12"}}
# Messages (SEI) that state 162 bytes and hold fewer, as cameras write them before each image.
MESSAGES = {
    "libx264": b"\0\0\1\x06\x05\xa2" + 123 * b"\x55" + b"\x80",
    "libx265": b"\0\0\1\x4e\x01\x05\xa2" + 123 * b"\x55" + b"\x80",
}
CUT: dict[str, dict[str, Any]] = {
    "h264.ts": H264 | {"options": {"x264-params": "open-gop=1:bframes=2"}},
    "h265.mkv": H265,
    "vp8.webm": {"codec": "libvpx", "gop_size": 12, "options": {"deadline": "realtime", "cpu-used": "8"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "gop_size": 12, "max_b_frames": 2},
    "xvid.mkv": {"codec": "mpeg4", "gop_size": 12, "max_b_frames": 2},
    "wmv2.wmv": {"codec": "wmv2", "gop_size": 12},
}


@pytest.mark.parametrize("settings", [H264, H265], ids=["H.264", "H.265"])
def test_malformed_messages_beside_the_images_do_not_matter(settings: dict[str, Any], tmp_path: Path):
    clean = encode_video(tmp_path / "clean.ts", 30, **settings)
    path = tmp_path / "camera.ts"
    change_packets(clean, path, lambda number, packet: MESSAGES[settings["codec"]] + packet)
    assert (inspect(path).num_frames, inspect(path).fps) == (30, 25)
    assert torch.equal(decode_frames(path, torch.arange(30)), full_decode(clean))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 600] = bytes(600)
    path.write_bytes(content)
    with pytest.raises(VideoError, match="the file is damaged"):
        inspect(path)


def test_real_kinds_of_malformed_messages_and_open_groups_are_read(shared: Path):
    camera, cut = shared / "cases" / "camera_sei", shared / "cases" / "open_gop_cut"
    everything = torch.arange(60)
    assert torch.equal(decode_frames(camera / "cam_sei.mp4", everything), full_decode(camera / "cam_clean.mp4"))
    assert inspect(cut / "cut1.mp4").num_frames == 37
    assert torch.equal(decode_frames(cut / "cut1.mp4", torch.arange(37)), full_decode(cut / "whole.ts")[40:77])


@pytest.mark.parametrize("name", CUT)
def test_what_a_recording_shows_before_its_first_key_frame_is_left_out_and_counted(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    source, path = encode_video(tmp_path / f"whole_{name}", 40, **CUT[name]), tmp_path / name
    with av.open(source) as old, av.open(path, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.size and number >= 5:
                packet.stream = stream
                new.mux(packet)
    info = inspect(path)
    said = capsys.readouterr().err
    frames = [frame for _, frame in iterate_frames(path)]
    first = 40 - len(frames)
    assert 5 < first < 20
    assert [read_frame_number(frame) for frame in frames] == list(range(first, 40))
    assert torch.equal(torch.stack(frames), full_decode(source)[first:])
    assert (info.num_frames, info.fps) == (40 - first, 25)
    assert f"{path}: {first - 5} images" in said or first - 9 <= int(said.split(": ")[1].split()[0]) <= first


def test_tiff_with_tags_that_ffmpeg_does_not_know_is_read(tmp_path: Path):
    path = encode_video(tmp_path / "a.mov", 5, codec="tiff", pix_fmt="rgb24")
    assert [read_frame_number(frame) for _, frame in iterate_frames(path)] == list(range(5))
    assert (inspect(path).num_frames, inspect(path).width) == (5, 64)


def test_a_still_screen_of_a_minute_is_seen_at_its_times(shared: Path):
    info = inspect(shared / "cases" / "screen_recording_gap" / "screen_gap.mp4")
    assert (info.num_frames, info.fps, len(info.shown_from)) == (1840, 30, 40)
    seconds = info.frames_at(torch.arange(0, 1840, 30)).tolist()
    assert (seconds[0], set(seconds[1:61]), seconds[61]) == (0, {19}, 30)


class Streams(list):
    """The streams of a container, without sound and text."""

    audio = subtitles = ()


def test_a_packet_of_no_bytes_shows_the_frame_before_it_where_the_codec_says_so(tmp_path: Path):
    def packets_of(codec: str) -> list[int]:
        stream = SimpleNamespace(index=0, time_base=1, codec_context=SimpleNamespace(name=codec))
        sizes = [(21, 0), (0, 1), (0, 2), (9, 3), (0, None)]  # bytes, time; the last one drains the decoder
        common = {"duration": 1, "is_corrupt": False, "stream": stream, "stream_index": 0}
        packets = [SimpleNamespace(size=size, pts=pts, **common) for size, pts in sizes]
        container: Any = SimpleNamespace(
            format=SimpleNamespace(name="ogg"), streams=Streams([stream]), demux=lambda *_: packets
        )
        read: Any = read_packets
        return [packet.size for packet in getattr(read, "__wrapped__", read)(tmp_path, container, stream, True)]

    assert packets_of("theora") == [21, 9, 0]
    assert packets_of("mpeg4") == [21, 0, 0, 9, 0]


def test_an_mp4_that_is_cut_between_two_packets_is_damaged(tmp_path: Path):
    path = encode_video(tmp_path / "a.mp4", 40, **H264, container_options={"movflags": "faststart"})
    with av.open(path) as container:
        entry = container.streams.video[0].index_entries[20]
    path.write_bytes(path.read_bytes()[: entry.pos])
    with pytest.raises(VideoError, match="of 40 frames decode; the file is damaged"):
        inspect(path)


@pytest.mark.parametrize("change", ["live", "late"])
def test_a_wmv_that_states_no_size_is_sound(change: str, tmp_path: Path):
    content = encode_video(tmp_path / "a.wmv", 60, codec="wmv2", gop_size=12).read_bytes()
    start = content.index(FILE_PROPERTIES)
    if change == "live":
        changed = content[: start + 88] + b"\1" + content[start + 89 :]
    else:  # behind a large object
        header = content[:30]
        filler = bytes.fromhex("74d40618dfca0945a4ba9aabcb96aae8") + (5000).to_bytes(8, "little") + bytes(4976)
        size, count = (int.from_bytes(header[at : at + n], "little") for at, n in ((16, 8), (24, 4)))
        header = header[:16] + (size + 5000).to_bytes(8, "little") + (count + 1).to_bytes(4, "little") + header[28:]
        changed = header + filler + content[30:]
    (tmp_path / "b.wmv").write_bytes(changed)
    assert inspect(tmp_path / "b.wmv").num_frames == 60


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.flv", {"codec": "flv"}),
        ("h264.flv", H264),
        ("a.wmv", {"codec": "wmv2", "size": (640, 480)}),
        ("fragments.mp4", {**H264, "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    ],
)
def test_other_files_that_are_cut_between_two_packets_are_damaged(name: str, settings: dict, tmp_path: Path):
    path = encode_video(tmp_path / name, 60, **{"gop_size": 12} | settings)
    assert inspect(path).num_frames == 60
    with av.open(path) as container:
        places = [packet.pos for packet in container.demux(container.streams.video[0]) if packet.size]
    for place in (places[50], places[20]):
        path.write_bytes(path.read_bytes()[:place])
        with pytest.raises(VideoError, match="frames decode; the file is damaged"):
            inspect(path)


# What is opened


def test_pipes_and_devices_are_no_files(tmp_path: Path):
    os.mkfifo(pipe := tmp_path / "pipe.avi")
    (device := tmp_path / "device.avi").symlink_to("/dev/zero")
    for path in (pipe, device):
        with pytest.raises(VideoError, match=r"\.avi: it is a pipe, a device or a socket\. Give a regular file"):
            inspect(path)
    errors = Catalogue(tmp_path).look_up([pipe, device])
    assert all("it is a pipe" in str(error) for error in errors)


@pytest.mark.parametrize("content", ["ffconcat version 1.0\nfile '{}'\n", "#EXTM3U\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"])
def test_a_stream_that_lists_files_opens_none_of_them(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    video = encode_video(tmp_path / "a.ts", 12, codec="libx264")
    path = tmp_path / "list"
    path.write_text(content.format(video))
    with path.open() as stdin, monkeypatch.context() as patched:
        patched.setattr("sys.stdin", stdin)
        for source in ("-", f"file://{path}"):
            with pytest.raises(VideoError, match=r"a playlist, which may name any address or file|it holds no video"):
                stream_frames(source)

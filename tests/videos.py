"""Small real videos whose frames show their number in black and white blocks; changed copies; a UCF101 tree."""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

BLOCK = 8  # pixels: large enough that no lossy codec turns a block over
NUM_BITS = 16

KEYED_XVID: dict[str, Any] = {"codec_tag": "XVID", "max_b_frames": 0, "gop_size": 12}
UCF101_SETTINGS = {"codec_tag": "XVID", "max_b_frames": 2, "gop_size": 250}


def numbered_frame(number: int, size: tuple[int, int] = (64, 48), seed: int = 0) -> np.ndarray:
    """Return an image (H, W, 3) uint8 that shows `number` (below 65,536) over a background drawn from `seed`.

    The background moves with the number, so that inter-coded frames hold motion. `size` is (width, height), at
    least 32x32 or as many blocks of 8x8 as there are bits.
    """
    width, height = size
    colours = np.random.default_rng(seed).uniform(0, 255, (4, 4, 3))
    rows = np.linspace(0, 3, height).round().astype(int)
    columns = np.linspace(0, 3, width).round().astype(int)
    image = np.roll(colours[rows][:, columns], number, axis=1).astype(np.uint8)
    for bit, (top, left) in enumerate(_block_corners(width)):
        image[top : top + BLOCK, left : left + BLOCK] = 255 * (number >> bit & 1)
    return image


def read_frame_number(frame: Tensor) -> int:
    """Return the number that `numbered_frame` painted on a decoded frame (3, H, W)."""
    grey = frame.float().mean(0)
    middle = slice(BLOCK // 4, -BLOCK // 4)
    blocks = [grey[t : t + BLOCK, x : x + BLOCK][middle, middle] for t, x in _block_corners(grey.shape[1])]
    return sum(int(block.mean() > 127) << bit for bit, block in enumerate(blocks))


def _block_corners(width: int) -> list[tuple[int, int]]:
    columns = width // BLOCK
    return [(bit // columns * BLOCK, bit % columns * BLOCK) for bit in range(NUM_BITS)]


def encode_video(
    path: Path,
    num_frames: int = 12,
    *,
    fps: float | Fraction = 25,
    size: tuple[int, int] = (64, 48),
    frames: Iterable[np.ndarray] | None = None,
    seed: int = 0,
    pts: Iterable[int] | None = None,
    audio: str | None = None,
    codec: str = "mpeg4",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    **codec_settings: Any,
) -> Path:
    """Write a video of `num_frames` numbered frames, the same bytes every time, and return `path`.

    Args:
        path: its suffix names the container.
        frames: images (H, W, 3) uint8 of `size` (width, height) to write instead of the numbered ones.
        seed: draws the background; another seed gives another file.
        pts: presentation times in frames, increasing, for a variable frame rate.
        audio: an audio codec: a second of silence stands before the video's stream.
        codec: FFmpeg's name of the encoder; `options` are its private options.
        metadata: of the container, such as a title.
        container_options: the muxer's, such as `{"movflags": "faststart"}`.
        codec_settings: attributes of the codec context, such as `max_b_frames=2`, `gop_size=12`, `pix_fmt="yuv444p"`.
            Without any, `mpeg4` is written as UCF101 is: XVID, two B-frames, one key frame.
    """
    if codec == "mpeg4" and not codec_settings:
        codec_settings = UCF101_SETTINGS
    images = frames if frames is not None else (numbered_frame(i, size, seed) for i in range(num_frames))
    with av.open(str(path), "w", container_options={"fflags": "+bitexact"} | (container_options or {})) as container:
        container.metadata.update(metadata or {})
        sound = container.add_stream(audio, rate=48000) if audio else None
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream(codec, rate=rate, options=options or {})
        _set_up(stream.codec_context, size, codec_settings)
        if sound:
            _write_silence(container, sound)
        times = iter(pts) if pts is not None else None
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = next(times) if times else i, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _set_up(context: av.VideoCodecContext, size: tuple[int, int], settings: dict[str, Any]) -> None:
    context.width, context.height = size
    context.pix_fmt, context.thread_count = "yuv420p", 1
    context.flags |= av.codec.context.Flags.bitexact
    for name, value in settings.items():
        setattr(context, name, value)


def _write_silence(container: av.container.OutputContainer, stream: av.AudioStream) -> None:
    silence = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
    silence.sample_rate = 48000
    container.mux(stream.encode(silence))
    container.mux(stream.encode(None))


@cache
def encoded_bytes(num_frames: int, fps: float, size: tuple[int, int], seed: int) -> bytes:
    """Return the bytes of an XVID clip as UCF101 has them; written once a session."""
    with TemporaryDirectory() as folder:
        return encode_video(Path(folder) / "clip.avi", num_frames, fps=fps, size=size, seed=seed).read_bytes()


def write_ucf101_tree(
    root: Path,
    classes: Iterable[str] = ("ApplyEyeMakeup", "Archery"),
    groups: Iterable[int] = (1, 2, 8, 9),
    clips_per_group: int = 2,
    num_frames: int = 12,
    *,
    fps: float = 25,
    size: tuple[int, int] = (64, 48),
) -> Path:
    """Write `root/<class>/v_<class>_gNN_cNN.avi`, no two clips alike, and return `root`."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for group in groups:
            for clip in range(1, clips_per_group + 1):
                seed = (label * 100 + group) * 100 + clip
                path = root / name / f"v_{name}_g{group:02d}_c{clip:02d}.avi"
                path.write_bytes(encoded_bytes(num_frames, fps, size, seed))
    return root


def full_decode(path: Path) -> Tensor:
    """The reference: PyAV alone."""
    with av.open(f"file:{path}") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


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


def count_decoded(path: Path, wanted: list[int], monkeypatch: pytest.MonkeyPatch, whole: bool = False) -> int:
    """Return how many frames the decoder returned."""
    from vidclf.data import decoding  # not above: vidclf must be imported after jaxtyping's hook is set

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


def key_framed(path: Path, num_frames: int = 40, **settings: Any) -> Path:
    """A clip of UCF101's other kind: a key frame every 12 frames, no B-frames."""
    return encode_video(path, num_frames, **(KEYED_XVID | {"size": (320, 240)} | settings))

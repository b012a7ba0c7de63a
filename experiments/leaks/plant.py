"""Write twins of real videos (encoded again, cropped, mirrored, shifted in time) and a table of all videos.

A twin is in the other part of the split, under a separate group, as a careless copy would be.
"""

import csv
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop

from vidclf.contracts import Video
from vidclf.data.decoding import decode_frames, inspect

CROP = 0.7  # of each side that is kept
SHIFT_S = 1.0
Frames = UInt8[Tensor, "T 3 H W"]


def encode_again(frames: Frames, fps: float) -> Frames:
    """Return the frames as they are: only the codec changes."""
    return frames


def crop(frames: Frames, fps: float) -> Frames:
    """Return the middle, 0.7 of the width and the height."""
    return center_crop(frames, [int(CROP * side) for side in frames.shape[-2:]])


def crop_corner(frames: Frames, fps: float) -> Frames:
    """Return the lower right corner, 0.7 of the width and the height: half of the image."""
    height, width = (int(CROP * side) for side in frames.shape[-2:])
    return frames[..., -height:, -width:]


def mirror(frames: Frames, fps: float) -> Frames:
    """Return the frames mirrored."""
    return frames.flip(-1)


def shift(frames: Frames, fps: float) -> Frames:
    """Return the frames after the first second; of shorter clips, the second half."""
    return frames[min(round(SHIFT_S * fps), len(frames) // 2) :]


TWINS: dict[str, Callable[[Frames, float], Frames]] = {
    change.__name__: change for change in (encode_again, crop, mirror, shift, crop_corner)
}


def plant(videos: Sequence[Video], sides: Sequence[str], folder: Path, each: int, seed: int) -> dict[str, str]:
    """Write `each` twins of every kind and `folder/videos.csv`; return the original of each twin by the twin's name.

    All but the plain copies are encoded again, in H.264 at a low quality.
    """
    chance = random.Random(seed)
    chosen = [index for index, side in enumerate(sides) if side in ("train", "test")]
    rows = [
        [os.path.abspath(video.path), str(video.label), f"{video.label} {video.group}", side]
        for video, side in zip(videos, sides, strict=True)
    ]
    twins: dict[str, str] = {}
    for kind, change in TWINS.items():
        for index in sorted(chance.sample(chosen, each)):
            video, twin = videos[index], folder / f"{kind}-{videos[index].path.stem}.mp4"
            write(twin, change, video.path)
            side = "test" if sides[index] == "train" else "train"
            rows.append([str(twin), str(video.label), twin.stem, side])
            twins[str(twin)] = str(os.path.abspath(video.path))
    with (folder / "videos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "group", "split"], *rows])
    return twins


def write(path: Path, change: Callable[[Frames, float], Frames], source: Path) -> None:
    """Write a changed video, unless it is there already."""
    if path.exists():
        return
    info = inspect(source)
    frames = change(decode_frames(source, torch.arange(info.num_frames)), info.fps)
    frames = frames[..., : frames.shape[-2] // 2 * 2, : frames.shape[-1] // 2 * 2].permute(0, 2, 3, 1).contiguous()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=round(info.fps), options={"crf": "32", "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())

"""Measure the limits of this machine: matrix products, memory, the disk, the backbone alone, decoding alone."""

import os
import statistics
from pathlib import Path
from tempfile import NamedTemporaryFile

import cv2
import lightning as L
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmark.setting import Setting, device, median_s, timed
from experiments.benchmark.twin import KINDS, Clip
from vidclf.data.decoding import decode_frames, inspect
from vidclf.data.sampling import Rate
from vidclf.models.backbones.torchvision_models import ImageBackbone
from vidclf.models.backbones.wrap import FrozenBackbone, fixed_batch

FRAMES = fixed_batch(device(), 1)
SIDE = 4096  # of the matrices
COPIED_BYTES = 2**29  # far more than any cache holds
FILE_BYTES = 2**28
NUM_DECODINGS = 15


def matrix_product(setting: Setting) -> dict[str, float]:
    """Return the TFLOP/s of a matrix product into an existing output, by number format."""
    return {name: 2 * SIDE**3 / product_s(getattr(torch, name)) / 1e12 for name in ("bfloat16", "float32")}


def product_s(dtype: torch.dtype) -> float:
    """Return the seconds that one product takes."""
    left, right, output = (torch.rand(SIDE, SIDE, device=device()).to(dtype) for _ in range(3))
    return median_s(lambda: torch.mm(left, right, out=output), runs=7)


def memory(setting: Setting) -> dict[str, float]:
    """Return GB/s: copying in memory (read and written), reading a file from the page cache, and from the disk."""
    source, target = torch.ones(COPIED_BYTES, dtype=torch.uint8), torch.ones(COPIED_BYTES, dtype=torch.uint8)
    copied = 2 * COPIED_BYTES / median_s(lambda: target.copy_(source)) / 1e9
    with NamedTemporaryFile(dir=setting.work) as file:
        file.write(os.urandom(FILE_BYTES))
        file.flush()
        os.fsync(file.fileno())
        buffer = torch.empty(FILE_BYTES, dtype=torch.uint8)
        cached = FILE_BYTES / median_s(lambda: read_file(file.name, buffer)) / 1e9
        from_disk = FILE_BYTES / statistics.median(read_from_disk_s(file.name, buffer) for _ in range(3)) / 1e9
    return {"copy_gb_per_s": copied, "page_cache_gb_per_s": cached, "disk_gb_per_s": from_disk}


def read_file(path: str | Path, buffer: Tensor) -> int:
    """Read a file into `buffer` and return its size."""
    with open(path, "rb", buffering=0) as file:
        return file.readinto(buffer.numpy().data)


def read_from_disk_s(path: str, buffer: Tensor) -> float:
    """Return the seconds that reading takes after the system drops the file from its cache; the host may keep it."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return timed(lambda: read_file(path, buffer))[0]


def backbone(setting: Setting) -> dict[str, float | str]:
    """Return frames a second of VGG16's convolutions on ready images: as ours runs, compiled, and in float32."""
    ours, plain = vgg16("auto"), vgg16("float32")
    with FlopCounterMode(display=False) as counter:
        plain(torch.zeros(FRAMES, 1, 3, 224, 224, device=device()))
    rates = {"float32_frames_per_s": frames_per_s(plain), "eager_frames_per_s": frames_per_s(ours)}
    compile_s, _ = timed(lambda: ours.compile_layers(ready_images(ours)))
    compiled = frames_per_s(ours)
    return {
        **rates,
        "frames_per_s": max(compiled, rates["eager_frames_per_s"]),
        "compiled_frames_per_s": compiled,
        "compile_s": compile_s,
        "flop_per_frame": counter.get_total_flops() / FRAMES,
        "precision": str(ours.backbone.precision),
    }


def vgg16(precision: str) -> FrozenBackbone:
    """Return VGG16's convolutions, the same random weights every time."""
    L.seed_everything(0, verbose=False)
    return FrozenBackbone(ImageBackbone(name="vgg16", layer="conv", weights=None, precision=precision)).to(device())


def ready_images(network: FrozenBackbone) -> Tensor:
    """Return a batch in the backbone's number format and layout, (N, 1, 3, 224, 224)."""
    images = torch.rand(FRAMES, 3, 224, 224, device=device())
    images = images.to(getattr(torch, str(network.backbone.precision)), memory_format=torch.channels_last)
    return images.unsqueeze(1)


def frames_per_s(network: FrozenBackbone) -> float:
    images = ready_images(network)
    return FRAMES / median_s(lambda: network(images), runs=7)


def decoding(setting: Setting) -> dict[str, dict[str, float]]:
    """Return the frames a second of reading a clip and keeping one frame of each second; one thread a side."""
    torch.set_num_threads(1)
    clips = {kind: typical_clip(setting.clips, kind) for kind in KINDS}
    real = Path(os.environ.get("VIDCLF_SHARED", "../shared")) / "ucf101/UCF-101/ApplyEyeMakeup"
    clips |= {f"real ({path.stem})": path for path in sorted(real.glob("*.avi"))}
    return {name: decode(path) for name, path in clips.items()}


def typical_clip(clips: list[Path], kind: str) -> Path:
    """Return the clip of that kind, at 25 fps, of the median length."""
    infos = {path: inspect(path) for path in clips if Clip(f"{path.parent.name}/{path.name}", 0).kind == kind}
    same = sorted((info.num_frames, path) for path, info in infos.items() if info.fps == 25)
    return same[len(same) // 2][1]


def decode(path: Path) -> dict[str, float]:
    """Return each side's frames a second; the sides take turns, so that both see the same machine."""
    info = inspect(path)
    indices = Rate(1.0)(info.num_frames, info.fps)
    wanted = {*indices.flatten().tolist()}
    sides = {
        "ours": lambda: len(decode_frames(path, indices)),
        "opencv": lambda: len(read_with_opencv(path, wanted)),
        "opencv_grabbing": lambda: len(grab_with_opencv(path, wanted)),
    }
    assert {side() for side in sides.values()} == {len(wanted)}
    times = [{name: timed(side)[0] for name, side in sides.items()} for _ in range(NUM_DECODINGS)]
    return {name: info.num_frames / statistics.median(run[name] for run in times) for name in sides}


def read_with_opencv(path: Path, wanted: set[int]) -> list:
    """Return the wanted frames; every frame is read, as the tutorial does."""
    video = open_with_opencv(path)
    frames, number = [], 0
    while (read := video.read())[0]:
        if number in wanted:
            frames.append(read[1])
        number += 1
    return frames


def grab_with_opencv(path: Path, wanted: set[int]) -> list:
    """Return the wanted frames; the others are decoded, and their colours not converted."""
    video = open_with_opencv(path)
    frames, number = [], 0
    while video.grab():
        if number in wanted:
            frames.append(video.retrieve()[1])
        number += 1
    return frames


def open_with_opencv(path: Path) -> cv2.VideoCapture:
    return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])

"""Measure live prediction from a loopback server at 25 fps: delays and memory, and a model that is too slow.

    python -m experiments.live.live seconds=60 only=vgg16,tiny,slow

The server, a process of its own, sends MPEG-TS (H.264, 320 x 240) at its own speed, as often as needed. Each measure is
a process, too. Weights are random where none are shipped: they do not change the time. Prints a Markdown table.
"""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from multiprocessing import get_context
from typing import Any

import av
import numpy as np
import psutil
import torch
from torch import Tensor, nn

from vidclf.data.addresses import Source
from vidclf.data.sampling import Rate
from vidclf.data.transforms import BackboneTransform
from vidclf.models.aggregation import mean
from vidclf.models.backbones.tiny import Tiny
from vidclf.models.backbones.torchvision_models import ImageBackbone
from vidclf.models.backbones.wrap import wrap
from vidclf.models.classifier import Classifier
from vidclf.models.heads.linear import Linear
from vidclf.models.scaling import Scaling
from vidclf.prediction.files import Predictor
from vidclf.prediction.watch import label_stream
from vidclf.prediction.windows import Windows
from vidclf.system.machine import keep_memory, limit_threads

FPS, SIZE = 25, (320, 240)
LEVEL_FROM_S = 10  # from when delay and memory must not grow
PERIOD_S = 20  # of the video, which is repeated


class Slow(nn.Module):
    """The demo's `tiny`, which takes two seconds for a frame: ten times as long as frames come."""

    picture_format, feature_dim = Tiny.picture_format, Tiny().feature_dim

    def __init__(self) -> None:
        super().__init__()
        self.network = Tiny()

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(2.0 * len(images))
        return self.network(images)


# The backbone, frames a second, seconds of a window, and from one window to the next.
MEASURES: dict[str, tuple[Any, float, float, float]] = {
    "vgg16": (lambda: ImageBackbone("vgg16", "conv", None), 1.0, 5.0, 1.0),
    "tiny": (Tiny, 5.0, 2.0, 0.2),
    "slow": (Slow, 5.0, 1.0, 1.0),
}


def encode(seconds: int) -> bytes:
    """Return a video of moving noise as MPEG-TS."""
    file, generator = BytesIO(), np.random.default_rng(0)
    noise = generator.integers(0, 255, (SIZE[1] // 8, SIZE[0] // 8 + seconds * FPS, 3), np.uint8)
    with av.open(file, "w", format="mpegts") as container:
        options = {"preset": "veryfast", "tune": "zerolatency"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.codec_context.gop_size = "yuv420p", FPS
        for number in range(seconds * FPS):
            part = noise[:, number : number + SIZE[0] // 8].repeat(8, axis=0).repeat(8, axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(part), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def serve(listener: socket.socket) -> None:
    """Send the video to each client in turn, at its own speed, again and again: its clock restarts each time."""
    content, step = encode(PERIOD_S), 7 * 188
    while True:
        connection, _ = listener.accept()
        try:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
            began_s, num_sent = time.monotonic(), 0
            while True:
                at = num_sent % len(content)
                due_s = began_s + num_sent / len(content) * PERIOD_S
                time.sleep(max(0.0, due_s - time.monotonic()))
                num_sent += connection.send(content[at : at + step])
        except OSError:
            connection.close()


@contextmanager
def serving() -> Iterator[str]:
    """Run the server in a process of its own; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = get_context("fork").Process(target=serve, args=(listener,), daemon=True)
        process.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/live"
        finally:
            process.terminate()


def measure(name: str, url: str, seconds: float) -> str:
    """Return a row of the table."""
    keep_memory()
    limit_threads()
    build, rate_hz, window_s, stride_s = MEASURES[name]
    torch.manual_seed(0)
    backbone = wrap(build())
    classifier = Classifier(backbone, Scaling(backbone.feature_dim, "none"), Linear(backbone.feature_dim, 8), mean)
    transform = BackboneTransform(backbone.picture_format)
    names = [f"class {number}" for number in range(8)]
    predictor = Predictor(classifier, Rate(rate_hz), transform, names, torch.device("cpu"))
    windows, process, stop = Windows(window_s, stride_s, rate_hz), psutil.Process(), threading.Event()
    began_s, memory, lines = time.monotonic(), [], []

    def watch_memory() -> None:
        while not stop.wait(0.5):
            memory.append((time.monotonic() - began_s, process.memory_info().rss / 2**20))

    threading.Thread(target=watch_memory, daemon=True).start()
    for line in label_stream(predictor, Source(url), windows, until_s=seconds):
        lines.append((time.monotonic() - began_s, line.delay_ms, line.window.dropped))
    stop.set()
    if not lines:
        return f"| {name} | no label in {seconds:g} s |"
    level_from_s = min(LEVEL_FROM_S, seconds / 2)
    middle_s = (level_from_s + seconds) / 2
    halves = [
        [row for row in lines if level_from_s <= row[0] < middle_s],
        [row for row in lines if row[0] >= middle_s],
    ]
    delays = [np.median([row[1] for row in half]) if half else np.nan for half in halves]
    megabytes = [size for at_s, size in memory if at_s >= level_from_s]
    p95 = np.quantile([row[1] for row in lines], 0.95)
    return (
        f"| {name} | {rate_hz:g} | {window_s:g}, {stride_s:g} | {len(lines)} | {p95:.0f} | {max(r[1] for r in lines)} "
        f"| {delays[0]:.0f}, {delays[1]:.0f} | {megabytes[0]:.0f}, {megabytes[-1]:.0f} | {lines[-1][2]} |"
    )


def main() -> None:
    settings = dict(word.split("=") for word in sys.argv[1:])
    seconds, names = float(settings.get("seconds", 60)), settings.get("only", ",".join(MEASURES)).split(",")
    columns = ["model", "frames/s", "window, stride, s", "labels", "p95 delay, ms", "longest, ms"]
    columns += ["median, each half", "MB at 10 s, at the end", "dropped"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)
    with serving() as url:
        for name in names:
            with get_context("spawn").Pool(1) as pool:
                print(pool.apply(measure, (name, url, seconds)), flush=True)


if __name__ == "__main__":
    main()

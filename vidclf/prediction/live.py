"""Labels a stream, window by window."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from vidclf.data.decoding import VideoInfo
from vidclf.data.streams import stream_frames
from vidclf.data.timing import line_of
from vidclf.prediction.files import Predictor

TimedFrame = tuple[float, UInt8[Tensor, "3 H W"]]  # seconds since the first frame
TOLERANCE_S = 1e-6  # of sums of times


def label_stream(predictor: Predictor, source: str, window_s: float | int) -> Iterator[dict[str, Any]]:
    """Yield a label for the frames of every `window_s` seconds, and for the remaining frames at the end.

    A window's frames are held in memory. They have one size; a new size begins a new window. A window without frames
    has no label.
    """
    fps, frames = stream_frames(source)
    for start_s, window in windows_of(frames, window_s):
        num_frames, rate_hz, shown_from = line_of([time_s for time_s, _ in window], 1 / fps, [fps])
        height, width = window[0][1].shape[1:]
        info = VideoInfo(num_frames, rate_hz or fps, width, height, shown_from)
        indices = info.frames_at(predictor.sampling(info.num_frames, info.fps))
        views = torch.stack([window[index][1] for index in indices.flatten().tolist()])
        images = predictor.transform(views.unflatten(0, indices.shape))
        features = predictor.classifier.backbone(images.to(predictor.device)).cpu()
        yield {"start_s": start_s, **predictor.label(features, source)}


def windows_of(frames: Iterable[TimedFrame], window_s: float | int) -> Iterator[tuple[float, list[TimedFrame]]]:
    """Yield where each window of `window_s` seconds begins, and its frames, once a frame behind it has arrived."""
    start_s, window = 0.0, list[TimedFrame]()
    for time_s, frame in frames:
        has_new_size = bool(window) and frame.shape != window[0][1].shape
        num_windows = math.floor((time_s - start_s + TOLERANCE_S) / window_s)
        if window and (has_new_size or num_windows):
            yield start_s, window
            window = []
        start_s = time_s if has_new_size else start_s + num_windows * window_s
        window.append((time_s, frame))
    if window:
        yield start_s, window

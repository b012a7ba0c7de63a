"""Labels a stream, window by window."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from vidclf.data.streams import stream_frames
from vidclf.prediction.files import Predictor


def label_stream(predictor: Predictor, source: str, window_s: float | int) -> Iterator[dict[str, Any]]:
    """Yield a label for every `window_s` seconds of frames, and for the remaining frames at the end.

    A window's frames are held in memory. They have one size; a new size begins a new window.
    """
    fps, frames = stream_frames(source)
    num_seen = 0
    for window in windows_of(frames, max(1, round(window_s * fps))):
        indices = predictor.sampling(len(window), fps)
        views = torch.stack([window[index] for index in indices.flatten().tolist()])
        images = predictor.transform(views.unflatten(0, indices.shape))
        features = predictor.classifier.backbone(images.to(predictor.device)).cpu()
        yield {"start_s": num_seen / fps, **predictor.label(features, source)}
        num_seen += len(window)


def windows_of(frames: Iterable[Tensor], length: int) -> Iterator[list[Tensor]]:
    """Yield `length` frames (3, H, W) of one size as soon as they arrive; fewer before a new size and at the end."""
    window: list[Tensor] = []
    for frame in frames:
        if window and frame.shape != window[0].shape:
            yield window
            window = []
        window.append(frame)
        if len(window) == length:
            yield window
            window = []
    if window:
        yield window

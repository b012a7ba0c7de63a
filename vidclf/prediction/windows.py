"""Embeds and scores windows of a long video in one pass; frames and features that they share are computed once."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vidclf.contracts import Video, VideoViews
from vidclf.data.catalogue import VideoFacts
from vidclf.data.corpus import window_of
from vidclf.data.decoding import VideoInfo
from vidclf.data.timelines import TIME_DIGITS, duration_of, window_starts
from vidclf.errors import VideoError
from vidclf.features.extract import Extractor, units_of, views_of
from vidclf.prediction.files import Predictor


@dataclass(frozen=True)
class Windows:
    """Windows of `window_s` seconds, one every `stride_s` seconds, placed as `dataset=events` places them.

    With `rate_hz`, each begins at a frame that sampling=rate takes of the whole file; see `window_starts`.
    """

    window_s: float | int
    stride_s: float | int
    rate_hz: float | int | None = None

    def times_of(self, path: Path, info: VideoInfo) -> tuple[Float[np.ndarray, " W"], Float[np.ndarray, " W"]]:
        """Return when the windows of a video begin and end, in seconds.

        Raises:
            VideoError: the video is shorter than a window.
        """
        starts_s = window_starts(info, self.window_s, self.stride_s, self.rate_hz)
        if not len(starts_s):
            raise VideoError(
                f"{path}: it is {duration_of(info):.2f} s long, and a window {self.window_s:g} s. Choose a shorter "
                "window_s, or pass dataset.on_error=skip."
            )
        return starts_s, np.round(starts_s + self.window_s, TIME_DIGITS)


def score_windows(
    predictor: Predictor,
    path: Path,
    info: VideoInfo,
    starts_s: Float[np.ndarray, " W"],
    ends_s: Float[np.ndarray, " W"],
) -> Iterator[Float[Tensor, " K"]]:
    """Yield the log-probabilities of each window in order, with the same bits as evaluation; see `embed_windows`."""
    for features in embed_windows(predictor, path, info, starts_s, ends_s):
        yield predictor.score(features, str(path))


def embed_windows(
    predictor: Predictor,
    path: Path,
    info: VideoInfo,
    starts_s: Float[np.ndarray, " W"],
    ends_s: Float[np.ndarray, " W"],
) -> Iterator[Float[Tensor, "views S D"]]:
    """Yield the features of each window's views in order, with the same bits as evaluation.

    Features are held until the last window that shares them is yielded.

    Raises:
        VideoError: the file is damaged.
    """
    backbone = predictor.classifier.backbone
    sampled = []
    for start_s, end_s in zip(starts_s.tolist(), ends_s.tolist(), strict=True):
        window = Video(path, 0, "", start_s=start_s, end_s=end_s)
        first, num_frames = window_of(window, VideoFacts("", info))
        sampled.append(first + predictor.sampling(num_frames, info.fps))
    frames = info.frames_at(torch.cat(sampled))  # (views of all windows, T)
    every = units_of(VideoViews(0, -1, torch.arange(len(frames)), frames), backbone.picture_format.clip_length).frames
    units, positions = every.unique(dim=0, return_inverse=True)
    units_per_view = len(every) // len(frames)
    waiting = deque(positions.split([len(views) * units_per_view for views in sampled]))
    num_uses = positions.bincount()
    extractor = Extractor([path], predictor.transform, backbone, predictor.device)
    held: dict[int, Tensor] = {}
    for computed, features in extractor.follow(VideoViews(0, -1, torch.arange(len(units)), units)):
        held.update(zip(computed.tolist(), features.unbind(), strict=True))
        while waiting and held.keys() >= {*waiting[0].tolist()}:
            needed = waiting.popleft()
            rows = torch.stack([held[position] for position in needed.tolist()])
            yield views_of(rows, len(needed) // units_per_view)
            num_uses -= needed.bincount(minlength=len(units))
            for position in {*needed.tolist()}:
                if not num_uses[position]:
                    del held[position]

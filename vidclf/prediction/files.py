"""Labels videos that are in no data set: files, one line each, or a stream, window by window."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vidclf.contracts import Sampling, Transform, VideoViews, Views
from vidclf.data.decoding import VideoInfo, errors_name_video, inspect
from vidclf.data.files import VIDEO_ENDINGS, find_videos, names_below
from vidclf.data.prefetch import run_ahead
from vidclf.data.streams import stream_frames
from vidclf.errors import VidclfError, VideoError
from vidclf.features.extract import Extractor, units_of, views_of
from vidclf.models.classifier import Classifier, most_probable
from vidclf.system.terminal import say


class Predictor:
    """A classifier and the stages before it: video -> {"label", "probability", "top5"}.

    The backbone runs at its fixed batch and the head one video at a time, as in evaluation, so both give the
    same bits.
    """

    def __init__(
        self,
        classifier: Classifier,
        sampling: Sampling,
        transform: Transform,
        class_names: list[str],
        device: torch.device,
    ) -> None:
        self.classifier = classifier.to(device).eval()
        self.sampling, self.transform = sampling, transform
        self.class_names, self.device = class_names, device

    def label_files(
        self, paths: Sequence[Path], num_threads: int
    ) -> Iterator[tuple[Path, dict[str, Any] | VideoError]]:
        """Yield each file and its label, or its error, in order; looking and decoding run ahead."""
        for path, features in self.embed_files(paths, num_threads):
            yield path, features if isinstance(features, VideoError) else self._label(features, str(path))

    def embed_files(
        self, paths: Sequence[Path], num_threads: int
    ) -> Iterator[tuple[Path, Float[Tensor, "V S D"] | VideoError]]:
        """Yield each file and the features of its views, or its error, in order."""
        num_views: dict[int, int] = {}
        errors: dict[int, VideoError] = {}

        def views() -> Iterator[VideoViews]:
            for number, info in run_ahead(lambda number: [_look(paths[number])], range(len(paths)), num_threads):
                if isinstance(info, VideoError):
                    errors[number] = info
                    continue
                frames = info.frames_at(self.sampling(info.num_frames, info.fps))
                num_views[number] = len(frames)
                yield units_of(VideoViews(number, -1, torch.arange(len(frames)), frames), clip_length)

        clip_length = self.classifier.backbone.picture_format.clip_length
        extractor = Extractor(paths, self.transform, self.classifier.backbone, self.device, num_threads)
        remaining = iter(range(len(paths)))
        for video, features in extractor.compute(views()):
            while (number := next(remaining)) != video.video:
                yield paths[number], errors[number]
            if isinstance(features, VideoError):
                yield paths[number], features
            else:
                yield paths[number], views_of(features, num_views[number])
        yield from ((paths[number], errors[number]) for number in remaining)

    def label_stream(self, source: str, window_s: float | int) -> Iterator[dict[str, Any]]:
        """Yield a label for every `window_s` seconds of frames, and for what is left at the end.

        A window's frames are held in memory; they are of one size, and a new size begins a window.
        """
        fps, frames = stream_frames(source)
        num_seen = 0
        for window in windows_of(frames, max(1, round(window_s * fps))):
            indices = self.sampling(len(window), fps)
            views = torch.stack([window[index] for index in indices.flatten().tolist()])
            images = self.transform(views.unflatten(0, indices.shape))
            features = self.classifier.backbone(images.to(self.device)).cpu()
            yield {"start_s": num_seen / fps, **self._label(features, source)}
            num_seen += len(window)

    @torch.no_grad()
    def _label(self, features: Float[Tensor, "V S D"], name: str) -> dict[str, Any]:
        whose = torch.zeros(len(features), dtype=torch.int64)  # one video's, whose label is not known
        batch = Views(features.to(self.device), whose, whose, whose)
        logits = self.classifier.predict_logits(batch.inputs).cpu()
        self.classifier.check_finite(logits, name, [batch])
        top5 = most_probable(self.classifier.aggregation(logits), self.class_names)
        label, probability = top5[0]
        return {
            "label": label,
            "probability": probability,
            "top5": [{"label": name, "probability": value} for name, value in top5],
        }


def windows_of(frames: Iterable[Tensor], length: int) -> Iterator[list[Tensor]]:
    """Yield `length` frames (3, H, W) of one size as soon as they are there; fewer before a new size and at the end."""
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


def _look(path: Path) -> VideoInfo | VideoError:
    try:
        with errors_name_video(path):
            return inspect(path)
    except VideoError as error:
        return error


def skip_damaged(labelled: Iterable[tuple[Path, dict[str, Any] | VideoError]], skip: bool) -> Iterator[dict[str, Any]]:
    """Yield what to print of each video; raise at a damaged one, or say so and go on."""
    for path, label in labelled:
        if not isinstance(label, VideoError):
            yield {"path": str(path), **label}
        elif skip:
            say(f"left out: {label}")
        else:
            raise label


def list_videos(source: Path) -> list[Path]:
    """Return the file itself, or every video file below the folder, sorted; say which files there are passed over.

    Raises:
        VidclfError: there is nothing to label.
    """
    if not source.is_dir():
        return [source]  # whatever it is called: decoding says what is wrong with it
    found, others = find_videos(source)
    if others:
        named = names_below(others, source)
        say(f"{source}: {len(others)} file(s) are passed over, for their endings are of no video: {named}.")
    if not found:
        endings = ", ".join(sorted(VIDEO_ENDINGS))
        raise VidclfError(f"source={source}: no video below this folder; looked for {endings}.")
    return found

"""Labels videos that are in no data set: files, one line each, or a stream, window by window."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vidclf.contracts import Sampling, Transform, VideoError, Views
from vidclf.data.decoding import probe, stream_frames
from vidclf.errors import VidclfError
from vidclf.evaluation.report import most_probable
from vidclf.features.extract import compute_features
from vidclf.features.store import Request, units_of, views_of
from vidclf.models.classifier import Classifier
from vidclf.system.terminal import say

SUFFIXES = {".avi", ".mp4", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".ogv", ".3gp"}


class Labeller:
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
        """Yield each file and its label, or what is wrong with it, in order; decoding runs ahead."""
        num_views: dict[Path, int] = {}
        broken: dict[Path, VideoError] = {}

        def requests() -> Iterator[Request]:
            for path in paths:
                try:
                    info = probe(path)
                except VideoError as error:
                    broken[path] = error
                    continue
                frames = self.sampling(info.num_frames, info.fps)
                num_views[path] = len(frames)
                yield Request(path, units_of(frames, self.classifier.backbone.picture_format))

        backbone = self.classifier.backbone
        todo = iter(paths)
        for request, features in compute_features(requests(), self.transform, backbone, self.device, num_threads):
            while (path := next(todo)) != request.path:
                yield path, broken[path]
            if isinstance(features, VideoError):
                yield request.path, features
            else:
                yield request.path, self._label(views_of(features, num_views[request.path]))
        yield from ((path, broken[path]) for path in todo)

    def label_stream(self, source: str, window_s: float | int) -> Iterator[dict[str, Any]]:
        """Yield a label for every `window_s` seconds of frames, and for what is left at the end.

        A window's frames are held in memory.
        """
        fps, frames = stream_frames(source)
        length = max(1, round(window_s * fps))
        for number in itertools.count():
            window = list(itertools.islice(frames, length))
            if not window:
                return
            indices = self.sampling(len(window), fps)
            views = torch.stack([window[index] for index in indices.flatten().tolist()])
            pictures = self.transform(views.unflatten(0, indices.shape))
            features = self.classifier.backbone(pictures.to(self.device)).cpu()
            yield {"start_s": number * length / fps, **self._label(features)}

    @torch.no_grad()
    def _label(self, features: Float[Tensor, "V S D"]) -> dict[str, Any]:
        whose = torch.zeros(len(features), dtype=torch.int64)  # one video's, whose label is not known
        logits, _ = self.classifier.predict_step(Views(features.to(self.device), whose, whose, whose))
        top5 = most_probable(self.classifier.aggregation(logits), self.class_names)
        label, probability = top5[0]
        return {
            "label": label,
            "probability": probability,
            "top5": [{"label": name, "probability": value} for name, value in top5],
        }


def leave_out_damaged(
    labelled: Iterable[tuple[Path, dict[str, Any] | VideoError]], skip: bool
) -> Iterator[dict[str, Any]]:
    """Yield what to print of each video; raise at a damaged one, or say so and go on."""
    for path, label in labelled:
        if not isinstance(label, VideoError):
            yield {"path": str(path), **label}
        elif skip:
            say(f"left out: {label}")
        else:
            raise label


def find_videos(source: Path) -> list[Path]:
    """Return the file itself, or every video file below the folder, sorted.

    Raises:
        VidclfError: there is nothing to label.
    """
    if not source.is_dir():
        return [source]  # whatever it is called: decoding says what is wrong with it
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise VidclfError(f"source={source}: no video below this folder; looked for {', '.join(sorted(SUFFIXES))}.")
    return found

"""Labels video files that are in no data set."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vidclf.contracts import Sampling, Transform, VideoViews, Views
from vidclf.data.decoding import VideoInfo, errors_name_video, inspect
from vidclf.data.listing import VIDEO_ENDINGS, find_videos, names_below
from vidclf.data.prefetch import run_ahead
from vidclf.errors import VidclfError, VideoError
from vidclf.features.extract import Extractor, units_of, views_of
from vidclf.models.classifier import Classifier, most_probable
from vidclf.system.terminal import say


class Predictor:
    """A classifier with the stages before it: video -> {"label", "probability", "top5"}.

    The backbone runs on batches of a fixed size and the head on one video at a time, as in evaluation, so both give the
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

    @torch.no_grad()
    def score(self, features: Float[Tensor, "V S D"], name: str) -> Float[Tensor, " K"]:
        """Return the log-probabilities of a video from the features of its views; `name` is for error messages."""
        zeros = torch.zeros(len(features), dtype=torch.int64)  # a single video without a label
        batch = Views(features.to(self.device), zeros, zeros, zeros)
        logits = self.classifier.predict_logits(batch.inputs).cpu()
        self.classifier.check_finite(logits, name, [batch])
        return self.classifier.aggregation(logits)

    def label(self, features: Float[Tensor, "V S D"], name: str) -> dict[str, Any]:
        """Return the label of a video, and the five most probable."""
        top5 = most_probable(self.score(features, name), self.class_names)
        lines = [{"label": label, "probability": probability} for label, probability in top5]
        return {**lines[0], "top5": lines}

    def label_files(
        self, paths: Sequence[Path], num_threads: int
    ) -> Iterator[tuple[Path, dict[str, Any] | VideoError]]:
        """Yield each file in order with its label, or with what is wrong with it; decoding runs ahead."""
        for path, features in self.embed_files(paths, num_threads):
            yield path, features if isinstance(features, VideoError) else self.label(features, str(path))

    def embed_files(
        self, paths: Sequence[Path], num_threads: int
    ) -> Iterator[tuple[Path, Float[Tensor, "V S D"] | VideoError]]:
        """Yield each file in order with the features of its views, or with what is wrong with it."""
        num_views: dict[int, int] = {}
        errors: dict[int, VideoError] = {}
        backbone = self.classifier.backbone

        def views() -> Iterator[VideoViews]:
            for number, (_, info) in enumerate(inspect_files(paths, num_threads)):
                if isinstance(info, VideoError):
                    errors[number] = info
                    continue
                frames = info.frames_at(self.sampling(info.num_frames, info.fps))
                num_views[number] = len(frames)
                video = VideoViews(number, -1, torch.arange(len(frames)), frames)
                yield units_of(video, backbone.picture_format.clip_length)

        extractor = Extractor(paths, self.transform, backbone, self.device, num_threads)
        numbers = iter(range(len(paths)))
        for video, features in extractor.compute(views()):
            while (number := next(numbers)) != video.video:
                yield paths[number], errors[number]
            if isinstance(features, VideoError):
                yield paths[number], features
            else:
                yield paths[number], views_of(features, num_views[number])
        yield from ((paths[number], errors[number]) for number in numbers)


def inspect_files(paths: Sequence[Path], num_threads: int) -> Iterator[tuple[Path, VideoInfo | VideoError]]:
    """Yield each file in order with its facts, or with what is wrong with it; decoding runs ahead."""

    def look(path: Path) -> Iterator[VideoInfo | VideoError]:
        try:
            with errors_name_video(path):
                yield inspect(path)
        except VideoError as error:
            yield error

    return run_ahead(look, paths, num_threads)


def skip_damaged(labels: Iterable[tuple[Path, dict[str, Any] | VideoError]], skip: bool) -> Iterator[dict[str, Any]]:
    """Yield a line for each video; a damaged one is skipped with a notice, or raises its error."""
    for path, label in labels:
        if not isinstance(label, VideoError):
            yield {"path": str(path), **label}
        elif skip:
            say(f"left out: {label}")
        else:
            raise label


def list_videos(source: Path) -> list[Path]:
    """Return the file itself, or all video files below a folder, sorted; other files are ignored with a notice.

    Raises:
        VidclfError: the folder has no video.
    """
    if not source.is_dir():
        return [source]  # with any ending: decoding reports what is wrong with it
    videos, ignored = find_videos(source)
    if ignored:
        names = names_below(ignored, source)
        say(f"{source}: {len(ignored)} file(s) are ignored, because their endings are not those of videos: {names}.")
    if not videos:
        endings = ", ".join(sorted(VIDEO_ENDINGS))
        raise VidclfError(f"source={source}: no video below this folder; looked for {endings}.")
    return videos

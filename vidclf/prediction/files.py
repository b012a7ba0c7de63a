"""Labels video files that are in no data set."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidclf.contracts import Sampling, Transform, VideoViews, Views
from vidclf.data.catalogue import Catalogue, VideoFacts, hash_file
from vidclf.data.decoding import VideoInfo, errors_name_video, inspect
from vidclf.data.prefetch import run_ahead
from vidclf.errors import VidclfError, VideoError
from vidclf.features.extract import Extractor, units_of, views_of
from vidclf.features.store import FeatureStore
from vidclf.models.classifier import Classifier, most_probable
from vidclf.prediction.rows import RowFile
from vidclf.system.terminal import say

Features = Float[Tensor, "views S D"]
Looked = VideoFacts | VideoError | str  # what is known of a file; text: only its content, because its label is there

NO_UNITS = torch.empty(0, 1, dtype=torch.int64)


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
        self, looked: Iterable[tuple[Path, Looked]], num_threads: int, store: FeatureStore | None = None
    ) -> Iterator[tuple[Path, dict[str, Any] | VideoError]]:
        """Yield each file in order with its label, or with what is wrong with it; see `embed`."""
        for path, _, features in self.embed(looked, num_threads, store):
            assert features is not None
            yield path, features if isinstance(features, VideoError) else self.label(features, str(path))

    def embed(
        self, looked: Iterable[tuple[Path, Looked]], num_threads: int, store: FeatureStore | None = None
    ) -> Iterator[tuple[Path, Looked, Features | VideoError | None]]:
        """Yield each file in order with the features of its views, or with what is wrong with it.

        Args:
            looked: the files and their facts, as `look_at` yields them; for a content alone, the features are None.
            num_threads: files decoded at once.
            store: has features, which are not computed again, and keeps those that are computed.
        """
        paths: dict[int, Path] = {}
        in_work: dict[int, tuple[Looked, int, Tensor | None]] = {}  # with the number of views, and stored features

        def missing() -> Iterator[VideoViews]:
            for number, (path, facts) in enumerate(looked):
                units, num_views, stored = NO_UNITS, 0, None
                if isinstance(facts, VideoFacts):
                    units, num_views = self._units_of(facts.info)
                    stored = store.find(facts.content, units) if store else None
                paths[number], in_work[number] = path, (facts, num_views, stored)
                units = units if stored is None else NO_UNITS
                yield VideoViews(number, -1, torch.arange(len(units)), units)

        extractor = Extractor(paths, self.transform, self.classifier.backbone, self.device, num_threads)
        for video, computed in extractor.compute(missing()):
            path, (facts, num_views, stored) = paths.pop(video.video), in_work.pop(video.video)
            if not isinstance(facts, VideoFacts):
                yield path, facts, facts if isinstance(facts, VideoError) else None
                continue
            result = computed if stored is None else stored
            try:
                facts.check_unchanged(path)
            except VideoError as error:
                result = error
            if store and isinstance(result, Tensor) and result is not stored:
                store.add(facts.content, video.frames, result)
            yield path, facts, result if isinstance(result, VideoError) else views_of(result, num_views)

    def _units_of(self, info: VideoInfo) -> tuple[Int[Tensor, "R t"], int]:
        """Return what the backbone computes of a video, frames or clips, and the number of its views."""
        frames = info.frames_at(self.sampling(info.num_frames, info.fps))
        views = VideoViews(-1, -1, torch.arange(len(frames)), frames)
        return units_of(views, self.classifier.backbone.picture_format.clip_length).frames, len(frames)


def look_at(
    paths: Sequence[Path],
    num_threads: int,
    is_known: Callable[[str], bool] | None = None,
    catalogue: Catalogue | None = None,
) -> Iterator[tuple[Path, Looked]]:
    """Yield each file in order with its facts, or with what is wrong with it; decoding runs ahead.

    Args:
        paths: of the files.
        num_threads: files decoded at once.
        is_known: whether a label is there for a content; such a file comes with its content alone, and is not decoded.
        catalogue: has facts, and keeps new ones; without it and `is_known`, files are not hashed.
    """

    def look(path: Path) -> Iterator[Looked]:
        try:
            with errors_name_video(path):
                content, stamp = hash_file(path) if is_known else ("", None)
                yield content if is_known and is_known(content) else VideoFacts(content, inspect(path), stamp)
        except VideoError as error:
            yield error

    if catalogue is None:
        yield from run_ahead(look, paths, num_threads)
        return
    for path, facts in catalogue.examine(paths, num_threads):
        if isinstance(facts, VideoFacts) and is_known and is_known(facts.content):
            yield path, facts.content
        else:
            yield path, facts


def append_labels(
    rows: RowFile,
    predictor: Predictor,
    looked: Iterable[tuple[Path, Looked]],
    num_threads: int,
    store: FeatureStore | None = None,
) -> Iterator[tuple[Path, VideoError | None]]:
    """Append or keep the row of each file that can be labelled; yield each in order with what is wrong with it."""
    for path, facts, features in predictor.embed(looked, num_threads, store):
        if isinstance(features, VideoError):
            yield path, features
            continue
        if isinstance(facts, str):
            rows.keep(path, facts)
        elif isinstance(facts, VideoFacts) and features is not None:
            scores = predictor.score(features, str(path))
            ((label, probability),) = most_probable(scores, predictor.class_names, top=1)
            names = (f"p_{name}" for name in predictor.class_names)
            probabilities = dict(zip(names, scores.exp().tolist(), strict=True))
            row = {"path": path, "label": label, "probability": probability, **probabilities}
            rows.append({**row, "content": facts.content})
        yield path, None


@dataclass
class Failures:
    """Collects what is wrong with files, so that the others are labelled first.

    Args:
        num_files: of the job.
        skip: whether files that fail are left out with a notice, and are no error.
        num_failed: so far.
    """

    num_files: int
    skip: bool
    num_failed: int = 0

    def line(self, path: Path, error: VideoError) -> dict[str, Any] | None:
        """Return what is printed or kept of a file that fails, or None; raise the error of an only file."""
        if self.num_files == 1 and not self.skip:
            raise error
        self.num_failed += 1
        say(f"{'left out' if self.skip else 'failed'}: {error}")
        return None if self.skip else {"path": str(path), "error": str(error).removeprefix(f"{path}: ")}

    def check(self) -> None:
        """Raise VidclfError if a file failed and is not to be skipped."""
        if self.num_failed and not self.skip:
            raise VidclfError(
                f"{self.num_failed} of {self.num_files} videos failed, for the reasons above; the others are done. "
                "Replace them and call again, or pass dataset.on_error=skip."
            )

"""Videos, or windows of long videos, that have no label yet: what a model says of each, and its features."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vidclf.audit.lookalikes import project
from vidclf.contracts import Video
from vidclf.data.catalogue import Catalogue, VideoFacts
from vidclf.errors import VidclfError, VideoError
from vidclf.features.store import FeatureStore
from vidclf.models.classifier import most_probable
from vidclf.prediction.files import Failures, Predictor, look_at
from vidclf.prediction.windows import Windows, embed_windows
from vidclf.reporting.videos import MAX_FILMS, LocalVideo, draw
from vidclf.system.terminal import say, track
from vidclf.system.text import plural

DIM = 1024  # of the features that are compared


class Candidate(NamedTuple):
    """A video or window without a label; `features` (D,) are the mean over its views and steps, see `mean_of`."""

    video: Video
    facts: VideoFacts
    log_probabilities: Float[Tensor, " K"]
    features: Float[Tensor, " D"]


def find_candidates(
    predictor: Predictor,
    paths: Sequence[Path],
    windows: Windows | None,
    num_threads: int,
    store: FeatureStore | None,
    catalogue: Catalogue,
    failures: Failures,
) -> Iterator[Candidate]:
    """Yield each readable video, or with `windows` each window of it; what is wrong with others goes to `failures`."""
    looked = look_at(paths, num_threads, catalogue=catalogue)
    if windows is None:
        for path, facts, features in track(
            predictor.embed(looked, num_threads, store), len(paths), "Scoring", "videos"
        ):
            if isinstance(features, VideoError):
                failures.line(path, features)
            elif features is not None and isinstance(facts, VideoFacts):
                yield _candidate(predictor, Video(path, 0, ""), facts, features)
        return
    for path, facts in track(looked, len(paths), "Scoring", "videos"):
        try:
            if isinstance(facts, VideoError):
                raise facts
            assert isinstance(facts, VideoFacts)
            starts_s, ends_s = windows.times_of(path, facts.info)
            embedded = embed_windows(predictor, path, facts.info, starts_s, ends_s)
            for start_s, end_s, features in zip(starts_s.tolist(), ends_s.tolist(), embedded, strict=True):
                yield _candidate(predictor, Video(path, 0, "", start_s=start_s, end_s=end_s), facts, features)
        except VideoError as error:
            failures.line(path, error)


def _candidate(predictor: Predictor, video: Video, facts: VideoFacts, features: Float[Tensor, "V S D"]) -> Candidate:
    log_probabilities = predictor.score(features, str(video.path))
    return Candidate(video, facts, log_probabilities.to(torch.float64), mean_of(features))


def mean_of(features: Float[Tensor, "*rows D"]) -> Float[Tensor, " d"]:
    """Return the mean of the rows; wide ones are projected, so that thousands of videos fit into memory."""
    return project(features.float().flatten(0, -2).mean(0), DIM)


def check_named(paths: Sequence[Path]) -> list[Path]:
    """Return the files whose names a page can carry; others, which are no Unicode, are left out with a notice."""
    named = [path for path in paths if path.as_posix() == path.as_posix().encode(errors="replace").decode()]
    if len(named) < len(paths):
        say(f"left out: {plural(len(paths) - len(named), 'file')} with names that are not Unicode. Rename them.")
    if not named:
        raise VidclfError("source: no file has a name that a page can carry. Rename them.")
    return named


def describe(chosen: Sequence[Candidate], class_names: Sequence[str]) -> tuple[dict[str, Any], Mapping[int, Any]]:
    """Return what a page says of the chosen videos, and their films.

    Paths are as the table of answers needs them: below the folder that all videos have in common, which is named.
    """
    folder = Path(os.path.commonpath([os.path.abspath(one.video.path.parent) for one in chosen]))
    rows = []
    for one in chosen:
        top = most_probable(one.log_probabilities, list(class_names), 3)
        path = Path(os.path.abspath(one.video.path)).relative_to(folder).as_posix()
        rows.append({"path": path, "start_s": one.video.start_s, "end_s": one.video.end_s, "guesses": top})
    pictures = draw({position: LocalVideo(one.video, one.facts) for position, one in enumerate(chosen)}, MAX_FILMS)
    return {"folder": str(folder), "names": list(class_names), "rows": rows}, pictures.images

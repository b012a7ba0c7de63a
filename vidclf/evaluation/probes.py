"""Does a network use time? Scores of a run after the order of each view's frames is removed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import lightning as L
import numpy as np
import torch
from jaxtyping import Int
from torch import Generator, Tensor

from vidclf.contracts import Source, VideoViews
from vidclf.data.corpus import Corpus
from vidclf.errors import VidclfError
from vidclf.evaluation.intervals import bootstrap_mean
from vidclf.evaluation.logits import ViewLogits, score_part
from vidclf.evaluation.scores import VideoPredictions, score_videos
from vidclf.models.classifier import Classifier
from vidclf.system.seeds import generator_for
from vidclf.system.terminal import say

Frames = Int[Tensor, "V T"]
NUM_DRAWS = {"shuffle": 5}  # whose scores are averaged; the other probes are not random
ALL = "all"


def shuffle(frames: Frames, generator: Generator) -> Frames:
    """Return the frames of each view in random order."""
    return torch.stack([view[torch.randperm(len(view), generator=generator)] for view in frames])


def reverse(frames: Frames, generator: Generator) -> Frames:
    """Return the frames of each view from the last to the first."""
    return frames.flip(1)


def single_frame(frames: Frames, generator: Generator) -> Int[Tensor, "V 1"]:
    """Return only the middle frame of each view."""
    middle = frames.shape[1] // 2
    return frames[:, middle : middle + 1]


def static(frames: Frames, generator: Generator) -> Frames:
    """Return the middle frame of each view, repeated in place of all its frames."""
    return single_frame(frames, generator).expand_as(frames)


PROBES: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "shuffle": shuffle,
    "reverse": reverse,
    "single_frame": single_frame,
    "static": static,
}


def parse_probes(probe: str) -> list[str]:
    """Return the names of the probes that `probe` selects: a single one, or `all`.

    Raises:
        VidclfError: there is no such probe.
    """
    if probe != ALL and probe not in PROBES:
        raise VidclfError(f"probe={probe}: there is no such probe; use one of {', '.join(PROBES)}, or {ALL}.")
    return list(PROBES) if probe == ALL else [probe]


@dataclass
class Prober:
    """Scores a part after the order of each view's frames is removed; `ordered` are the predictions in order."""

    trainer: L.Trainer
    classifier: Classifier
    source: Source
    corpus: Corpus
    part: str
    ordered: VideoPredictions

    def score(self, probes: Sequence[str]) -> Iterator[tuple[str, dict[str, float | int]]]:
        """Yield each probe and the content of its metrics.json: the means over its draws, and the temporal gain.

        If there are several probes, one that the network cannot take is skipped with a notice.

        Raises:
            VidclfError: the views have one frame, or the network cannot take the views of the only probe.
        """
        views = self.corpus.views(self.part)
        if any(video.frames.shape[1] < 2 for video in views):
            raise VidclfError(
                f"probe={', '.join(probes)}: the run's views have one frame, so there is no order to remove. "
                "Probe a run whose views have several, such as one with sampling=uniform."
            )
        for probe in probes:
            try:
                draws = [self._score_draw(views, probe, draw) for draw in range(NUM_DRAWS.get(probe, 1))]
            except VidclfError as error:
                if len(probes) == 1:
                    raise
                say(f"left out: probe={probe}: {error}")
                continue
            predictions = [draw.aggregate(self.classifier.aggregation, self.corpus.videos) for draw in draws]
            scores = [score_videos(draw.log_probabilities, draw.labels) for draw in predictions]
            means: dict[str, float] = {key: fmean(score[key] for score in scores) for key in scores[0]}
            yield probe, means | draws[0].counts | self._temporal_gain(predictions)

    def _score_draw(self, views: Sequence[VideoViews], probe: str, draw: int) -> ViewLogits:
        change = PROBES[probe]
        views = [
            replace(video, frames=change(video.frames, generator_for(draw, "probe", video.video))) for video in views
        ]
        self.source.prepare(views)
        try:
            return score_part(self.trainer, self.classifier, self.source, self.corpus, self.part, views)
        except Exception as error:  # a user's network may raise anything
            if probe != "single_frame" or isinstance(error, VidclfError):
                raise
            raise VidclfError(f"probe={probe}: the network takes no view of one frame ({error}).") from error

    def _temporal_gain(self, draws: Sequence[VideoPredictions]) -> dict[str, float]:
        """Return the top1 in order, by how much it exceeds the probe's mean top1, and the gain's 95 % interval."""
        in_order = self.ordered.is_correct
        gains = in_order - np.mean([draw.is_correct for draw in draws], axis=0)
        scores = {"top1_in_order": float(in_order.mean()), "temporal_gain": float(gains.mean())}
        if interval := bootstrap_mean(gains, self.ordered.clusters):  # over groups; None for a single group
            scores |= {"temporal_gain_low": interval.low, "temporal_gain_high": interval.high}
        return scores

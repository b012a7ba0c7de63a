"""Does a network use time? The same run, scored with the order of each view's frames taken away."""

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
NUM_DRAWS = {"shuffle": 5}  # averaged; the others have nothing to draw
ALL = "all"


class NoOrderError(VidclfError):
    """The views have one frame."""


def shuffle(frames: Frames, generator: Generator) -> Frames:
    """Return each view's frames in an order of its own."""
    return torch.stack([view[torch.randperm(len(view), generator=generator)] for view in frames])


def reverse(frames: Frames, generator: Generator) -> Frames:
    """Return each view's frames from the last to the first."""
    return frames.flip(1)


def single_frame(frames: Frames, generator: Generator) -> Int[Tensor, "V 1"]:
    """Return the middle frame of each view alone."""
    middle = frames.shape[1] // 2
    return frames[:, middle : middle + 1]


def static(frames: Frames, generator: Generator) -> Frames:
    """Return each view's middle frame in place of all its frames."""
    return single_frame(frames, generator).expand_as(frames)


PROBES: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "shuffle": shuffle,
    "reverse": reverse,
    "single_frame": single_frame,
    "static": static,
}


def parse_probes(probe: str) -> list[str]:
    """Return the probes that `probe` asks for: one, or `all`.

    Raises:
        VidclfError: there is no such probe.
    """
    if probe != ALL and probe not in PROBES:
        raise VidclfError(f"probe={probe}: there is no such probe; use one of {', '.join(PROBES)}, or {ALL}.")
    return list(PROBES) if probe == ALL else [probe]


@dataclass
class Prober:
    """Scores a part of the data with the order of each view's frames taken away.

    Args:
        trainer: runs the classifier.
        classifier: of the run.
        source: of the batches.
        corpus: whose part it is.
        part: train, val or test.
        ordered: what the run says of that part when no frame is moved.
    """

    trainer: L.Trainer
    classifier: Classifier
    source: Source
    corpus: Corpus
    part: str
    ordered: VideoPredictions

    def score(self, names: Sequence[str]) -> Iterator[tuple[str, dict[str, float | int]]]:
        """Yield each probe and the content of its metrics.json: the means over its draws, and the temporal gain.

        One of several that the network cannot take is left out, and that is said.

        Raises:
            VidclfError: the views have one frame, or the network cannot take what the only probe leaves.
        """
        for name in names:
            try:
                draws = [self._judge(name, draw) for draw in range(NUM_DRAWS.get(name, 1))]
            except VidclfError as error:
                if len(names) == 1 or isinstance(error, NoOrderError):
                    raise
                say(f"left out: probe={name}: {error}")
                continue
            judged = [draw.aggregate(self.classifier.aggregation, self.corpus.videos) for draw in draws]
            scores = [score_videos(one.log_probabilities, one.labels) for one in judged]
            means: dict[str, float] = {key: fmean(score[key] for score in scores) for key in scores[0]}
            yield name, means | draws[0].counts | self._temporal_gain(judged)

    def _judge(self, name: str, draw: int) -> ViewLogits:
        views = [apply_probe(one, name, draw) for one in self.corpus.views(self.part)]
        self.source.prepare(views)
        try:
            return score_part(self.trainer, self.classifier, self.source, self.corpus, self.part, views)
        except Exception as error:  # whatever a network of one's own has to say
            if name != "single_frame" or isinstance(error, VidclfError):
                raise
            raise VidclfError(f"probe={name}: the network takes no view of one frame ({error}).") from error

    def _temporal_gain(self, draws: Sequence[VideoPredictions]) -> dict[str, float]:
        """Return the top1 in order, and how far the probe's (the mean of its draws) lies below it.

        The 95 % interval is by bootstrap over groups: clips of a group are not independent. Over one there is none.
        """
        in_order = self.ordered.is_correct
        gains = in_order - np.mean([draw.is_correct for draw in draws], axis=0)
        gain = {"top1_in_order": float(in_order.mean()), "temporal_gain": float(gains.mean())}
        if interval := bootstrap_mean(gains, self.ordered.clusters):
            gain |= {"temporal_gain_low": interval.low, "temporal_gain_high": interval.high}
        return gain


def apply_probe(one: VideoViews, name: str, draw: int) -> VideoViews:
    """Return the views of a video as a probe leaves them; `draw` is a number of its chance."""
    if one.frames.shape[1] < 2:
        raise NoOrderError(
            f"probe={name}: the run's views have one frame, so there is no order to take away. "
            "Probe a run whose views have several, e.g. sampling=uniform."
        )
    return replace(one, frames=PROBES[name](one.frames, generator_for(draw, "probe", one.video)))

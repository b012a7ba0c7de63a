"""Does a network use time? Its views, with their order taken away."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from vidclf.data.loaders import Drawn, generator_for
from vidclf.errors import VidclfError

Frames = Int[Tensor, "V T"]
NUM_DRAWS = {"shuffle": 5}  # averaged; the others have nothing to draw


def shuffle(frames: Frames, generator: Generator) -> Frames:
    """Return each view's frames in an order of its own."""
    return torch.stack([view[torch.randperm(len(view), generator=generator)] for view in frames])


def reverse(frames: Frames, generator: Generator) -> Frames:
    """Return each view's frames from the last to the first."""
    return frames.flip(1)


def single_frame(frames: Frames, generator: Generator) -> Frames:
    """Return the middle frame of each view alone."""
    middle = frames.shape[1] // 2
    return frames[:, middle : middle + 1]


def static(frames: Frames, generator: Generator) -> Frames:
    """Return each view's middle frame in place of all its frames."""
    return single_frame(frames, generator).expand_as(frames)


PROBES: dict[str, Callable[[Frames, Generator], Frames]] = {
    "shuffle": shuffle,
    "reverse": reverse,
    "single_frame": single_frame,
    "static": static,
}


def apply_probe(name: str, drawn: Drawn, draw: int) -> Drawn:
    """Return the views of a video as the probe shows them; `draw` counts the draws of chance.

    Raises:
        VidclfError: there is no such probe, or the views have one frame and so no order.
    """
    if name not in PROBES:
        raise VidclfError(f"probe={name}: there is no such probe; use one of {', '.join(PROBES)}.")
    if drawn.frames.shape[1] < 2:
        raise VidclfError(
            f"probe={name}: the run's views have one frame, so there is no order to take away. "
            "Probe a run whose views have several, e.g. sampling=uniform."
        )
    frames = PROBES[name](drawn.frames, generator_for(draw, drawn.video))
    return replace(drawn, frames=frames)

"""What the measures are compared with: every ratio, how it follows from the measures, and what it must reach."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, inf

Results = Mapping[str, Mapping]  # of each measure that gave one
BATCH_SIZE, TRAIN_SHARE = 128, 0.8  # of the tutorial


@dataclass(frozen=True)
class Ratio:
    """`of(*results of needs)` must lie from `low` to `high`."""

    name: str
    needs: tuple[str, ...]
    of: Callable[..., float]
    low: float = -inf
    high: float = inf

    @property
    def target(self) -> str:
        """Say what it must reach."""
        if self.low == self.high:
            return f"exactly {self.low:g}"
        if self.high < inf:
            return f"{self.low:g} to {self.high:g}" if self.low > -inf else f"at most {self.high:g}"
        return f"at least {self.low:g}" if self.low > -inf else "none"

    def value(self, results: Results) -> float | None:
        """Return the ratio, or None where a measure that it needs is not there."""
        there = all(name in results for name in self.needs)
        return self.of(*(results[name] for name in self.needs)) if there else None

    def reached(self, results: Results) -> bool | None:
        """Whether it lies where it must; None where it is not there, or nothing is asked."""
        value = self.value(results)
        return None if value is None or self.target == "none" else self.low <= value <= self.high


def tutorial_s(extraction: Mapping, training: Mapping, end_to_end: Mapping) -> float:
    """Return the seconds that the tutorial's way would take end to end, from its measured parts.

    Every frame once through its extraction, and every epoch's steps. Its imports, its validation and its dense network
    on the test frames are left out, in its favour.
    """
    num_frames = end_to_end["train_frames"] + end_to_end["test_frames"]
    num_steps = end_to_end["epochs"] * ceil(TRAIN_SHARE * end_to_end["train_frames"] / BATCH_SIZE)
    return num_frames / extraction["frames_per_s"] + num_steps * training["step_s"]


def ours_s(end_to_end: Mapping) -> float:
    """Return the seconds of train and evaluate, start-up and all."""
    return end_to_end["train_s"] + end_to_end["evaluate_s"]


RATIOS = (
    Ratio(
        "extraction, ours over the tutorial's way, VGG16 conv",
        ("extraction", "tutorial_extraction"),
        lambda ours, tutorial: ours["frames_per_s"] / tutorial["frames_per_s"],
        low=10,
    ),
    Ratio(
        "extraction over the backbone alone at the same precision",
        ("extraction", "backbone"),
        lambda ours, backbone: ours["frames_per_s"] / backbone["frames_per_s"],
        low=0.85,
    ),
    Ratio(
        "backbone alone, in FLOP/s over the matrix product's",
        ("backbone", "matrix_product"),
        lambda alone, product: alone["frames_per_s"] * alone["flop_per_frame"] / 1e12 / product[alone["precision"]],
        low=1,
    ),
    Ratio(
        "training step of the dense network at batch 128, ours over the tutorial's way",
        ("training", "tutorial_training"),
        lambda ours, tutorial: tutorial["step_s"] / ours["step_s"],
        low=3,
    ),
    Ratio(
        "training loop under Lightning over a bare loop doing the same arithmetic",
        ("training",),
        lambda ours: ours["bare_step_s"] / ours["step_s"],
        low=0.9,
    ),
    Ratio(
        "decoding at 1 frame/s, B-frame clip, ours over OpenCV",
        ("decoding",),
        lambda clips: clips["B-frame"]["ours"] / clips["B-frame"]["opencv"],
        low=1.1,
    ),
    Ratio(
        "decoding at 1 frame/s, key-framed clip, ours over OpenCV",
        ("decoding",),
        lambda clips: clips["key-framed"]["ours"] / clips["key-framed"]["opencv"],
        low=1.8,
    ),
    Ratio(
        "frames through the backbone over distinct frames, sweep of 12 jobs in one process",
        ("sweep",),
        lambda sweep: sweep["ratio"],
        low=1,
        high=1,
    ),
    Ratio(
        "frames through the backbone over distinct frames, 12 jobs in parallel",
        ("sweep_parallel",),
        lambda sweep: sweep["ratio"],
        low=1,
        high=1,
    ),
    Ratio(
        "steady-state cost per video, twin 10 % over 1 %",
        ("growth",),
        lambda growth: growth["video_s_10%"] / growth["video_s_1%"],
        low=0.9,
        high=1.1,
    ),
    Ratio(
        "peak memory of extraction, twin 10 % over 1 %",
        ("growth",),
        lambda growth: growth["peak_gb_10%"] / growth["peak_gb_1%"],
        high=1.1,
    ),
    Ratio(
        "20 linear heads, 20 runs one after another over all at once, demo, 50 epochs, wall",
        ("heads",),
        lambda heads: heads["alone_s"] / heads["at_once_s"],
        low=8,
    ),
    *(
        Ratio(
            f"step of 20 linear heads at once over one's, {name} wide x classes",
            ("heads_step",),
            lambda steps, name=name: steps[name]["all_s"] / steps[name]["one_s"],
            high=most,
        )
        for name, most in (("1280 x 8", 3.5), ("25088 x 8", 6), ("1280 x 101", inf), ("25088 x 101", inf))
    ),
    Ratio(
        "end to end, the tutorial's way (extrapolated from its measured parts) over ours",
        ("tutorial_extraction", "tutorial_training", "end_to_end"),
        lambda extraction, training, ours: tutorial_s(extraction, training, ours) / ours_s(ours),
    ),
)

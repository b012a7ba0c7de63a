"""List every ratio, how it follows from the measures, and its target."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

Results = Mapping[str, Mapping]  # of each measure that gave one

STEPS = {  # of `many_files`
    "first_look": "looking at it",
    "look": "looking it up",
    "store": "storing its features",
    "missing": "finding what is missing",
    "read": "reading its features",
    "split": "splitting",
    "check": "comparing it",
}


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
        """Return the target as text."""
        if self.low == self.high:
            return f"exactly {self.low:g}"
        if self.high < inf:
            return f"{self.low:g} to {self.high:g}" if self.low > -inf else f"at most {self.high:g}"
        return f"at least {self.low:g}" if self.low > -inf else "none"

    def value(self, results: Results) -> float | None:
        """Return the ratio, or None if a measure that it needs is missing."""
        there = all(name in results for name in self.needs)
        return self.of(*(results[name] for name in self.needs)) if there else None

    def reached(self, results: Results) -> bool | None:
        """Return whether the ratio reaches its target; None without a ratio or a target."""
        value = self.value(results)
        return None if value is None or self.target == "none" else self.low <= value <= self.high


def ours_s(end_to_end: Mapping) -> float:
    """Return the seconds of train and evaluate, start-up included."""
    return end_to_end["train_s"] + end_to_end["evaluate_s"]


RATIOS = (
    Ratio(
        "extraction by VGG16, ours over Keras",
        ("extraction", "keras_extraction"),
        lambda ours, keras: ours["frames_per_s"] / keras["frames_per_s"],
        low=1.7,
    ),
    Ratio(
        "extraction by VGG16 in int8, ours over Keras",
        ("int8", "keras_extraction"),
        lambda ours, keras: ours["vgg16"]["int8_frames_per_s"] / keras["frames_per_s"],
        low=3,
    ),
    Ratio(
        "extraction by VGG16 in int8, over the int8 network alone",
        ("int8",),
        lambda ours: ours["vgg16"]["int8_frames_per_s"] / ours["vgg16"]["int8_alone_frames_per_s"],
        low=0.9,
    ),
    *(
        Ratio(
            f"frames a second of {name} in float32, exported to ONNX over the run itself",
            ("exported",),
            lambda sides, name=name: sides[name]["exported"] / sides[name]["run"],
        )
        for name in ("vgg16", "resnet50")
    ),
    Ratio(
        "training step of the dense network at batch 128, ours over Keras",
        ("training", "keras_training"),
        lambda ours, keras: keras["step_s"] / ours["step_s"],
        low=2.4,
    ),
    Ratio(
        "end to end, start-up and all, ours over Keras",
        ("end_to_end", "keras_end_to_end"),
        lambda ours, keras: keras["seconds"] / ours_s(ours),
    ),
    Ratio(
        "end to end, start-up and all, ours in int8 over Keras",
        ("end_to_end_int8", "keras_end_to_end"),
        lambda ours, keras: keras["seconds"] / ours_s(ours),
        low=2,
    ),
    Ratio(
        "extraction by VGG16, ours over torch float32, plain layout",
        ("extraction", "plain_extraction"),
        lambda ours, plain: ours["frames_per_s"] / plain["frames_per_s"],
    ),
    Ratio(
        "training step of the dense network, ours over torch float32",
        ("training", "plain_training"),
        lambda ours, plain: plain["step_s"] / ours["step_s"],
    ),
    Ratio(
        "extraction over the backbone alone at the same precision",
        ("extraction", "backbone"),
        lambda ours, backbone: ours["frames_per_s"] / backbone["frames_per_s"],
        low=0.85,
    ),
    *(
        Ratio(
            f"extraction by {name}, ours over the library's own loop",
            ("encoders",),
            lambda sides, name=name: sides[name]["ours"] / sides[name]["library"],
            low=1,
        )
        for name in ("timm, ViT-S/16", "transformers, VideoMAE-S")
    ),
    Ratio(
        "backbone alone, in FLOP/s over the matrix product's",
        ("backbone", "matrix_product"),
        lambda alone, product: alone["frames_per_s"] * alone["flop_per_frame"] / 1e12 / product[alone["precision"]],
        low=1,
    ),
    Ratio(
        "training loop under Lightning over a bare loop doing the same arithmetic",
        ("training",),
        lambda ours: ours["bare_step_s"] / ours["step_s"],
        low=0.9,
    ),
    *(
        Ratio(
            f"decoding at 1 frame/s, {kind} clip, ours over OpenCV's {call}()",
            ("decoding",),
            lambda clips, kind=kind, side=side: clips[kind]["ours"] / clips[kind][side],
            low=least,
        )
        for kind, call, side, least in (
            ("B-frame", "read", "opencv", 1.15),
            ("B-frame", "grab", "opencv_grabbing", 1),
            ("key-framed", "read", "opencv", 1.8),
        )
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
    *(
        Ratio(
            f"CPU time a file, 100,000 files over 5,000: {doing}",
            ("many_files",),
            lambda sizes, step=step: sizes["100000"][f"{step}_us"] / sizes["5000"][f"{step}_us"],
            high=1.2,
        )
        for step, doing in STEPS.items()
    ),
    Ratio(
        "memory a file needs at 100,000 files, looking them up, storing and finding what is missing, bytes",
        ("many_files",),
        lambda sizes: sum(sizes["100000"][f"{step}_bytes"] for step in ("first_look", "look", "store", "missing")),
        high=1000,
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
        "labelling a film of 10 minutes along its time over decoding it once and the backbone alone, the worse network",
        ("timeline",),
        lambda films: max(film["predict_s"] / film["decoding_and_backbone_s"] for film in films.values()),
        high=1.15,
    ),
)

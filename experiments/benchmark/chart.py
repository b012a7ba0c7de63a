"""Draw one chart of the results: the speed of each side, and the limit."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

from experiments.benchmark.targets import Results, ours_s

KERAS, PLAIN, OURS, LIMIT = "#9aa0a6", "#d5d8dc", "#1a66c2", "#cfe0f5"
Bar = tuple[str, float, str]  # label, length, colour


def draw(results: Results, path: Path) -> None:
    """Write a chart of the measures; nothing if there are none."""
    panels = [(title, bars) for title, bars in panels_of(results) if bars]
    if not panels:
        return
    matplotlib.use("Agg")
    heights = [len(bars) + 1.2 for _, bars in panels]
    figure, axes = plt.subplots(
        len(panels), figsize=(9, 0.42 * sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for axis, (title, bars) in zip(axes[:, 0], panels, strict=True):
        draw_panel(axis, title, bars)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_panel(axis: plt.Axes, title: str, bars: list[Bar]) -> None:
    labels, lengths, colours = zip(*bars, strict=True)
    drawn = axis.barh(range(len(bars)), lengths, color=colours, height=0.7)
    axis.bar_label(drawn, [f"{length:,.3g}" if length < 1000 else f"{length:,.0f}" for length in lengths], padding=4)
    axis.set_yticks(range(len(bars)), labels)
    axis.invert_yaxis()
    axis.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axis.set_xlim(0, 1.15 * max(lengths))
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def panels_of(results: Results) -> Iterable[tuple[str, list[Bar]]]:
    """Yield the title and the bars of each panel that has results."""
    yield (
        "Extraction by VGG16, frames a second",
        bars_of(
            results,
            ("Keras", "keras_extraction", "frames_per_s", KERAS),
            ("torch float32, plain layout", "plain_extraction", "frames_per_s", PLAIN),
            ("ours", "extraction", "frames_per_s", OURS),
            ("limit: the backbone alone", "backbone", "frames_per_s", LIMIT),
        )
        + bars_of(
            results.get("int8", {}),
            ("ours, int8", "vgg16", "int8_frames_per_s", OURS),
            ("limit: the backbone alone, int8", "vgg16", "int8_alone_frames_per_s", LIMIT),
        ),
    )
    yield (
        "Training step of the dense network, ms (less is better)",
        [
            (label, 1000 * seconds, colour)
            for label, seconds, colour in bars_of(
                results,
                ("Keras", "keras_training", "step_s", KERAS),
                ("torch float32", "plain_training", "step_s", PLAIN),
                ("ours", "training", "step_s", OURS),
                ("limit: a bare loop", "training", "bare_step_s", LIMIT),
            )
        ],
    )
    yield (
        "Decoding to keep one frame a second, frames a second, one thread",
        [
            (f"{clip.partition(' ')[0]} clip: {side}", rates[key], colour)
            for clip, rates in results.get("decoding", {}).items()
            for side, key, colour in (
                ("OpenCV's read()", "opencv", KERAS),
                ("OpenCV's grab()", "opencv_grabbing", PLAIN),
                ("ours", "ours", OURS),
            )
        ],
    )
    if theirs := results.get("keras_end_to_end"):
        sides = (("ours", "end_to_end"), ("ours, int8", "end_to_end_int8"))
        ours = [(label, ours_s(results[name]), OURS) for label, name in sides if name in results]
        title = "Training and evaluation end to end, start-up and all, seconds (less is better)"
        yield title, [("Keras", theirs["seconds"], KERAS), *ours]


def bars_of(results: Results, *wanted: tuple[str, str, str, str]) -> list[Bar]:
    return [(label, results[name][key], colour) for label, name, key, colour in wanted if name in results]

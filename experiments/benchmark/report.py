"""Print the results as three Markdown tables: ratios, rates, and the times before the steady state."""

from collections.abc import Iterable, Sequence
from itertools import chain

from experiments.benchmark.targets import RATIOS, STEPS, Results, ours_s

REACHED = {True: "yes", False: "NO", None: ""}


def report(results: Results) -> str:
    """Return the tables, without the measures that did not run."""
    ratios = [
        (ratio.name, f"{value:.3g}", ratio.target, REACHED[ratio.reached(results)])
        for ratio in RATIOS
        if (value := ratio.value(results)) is not None
    ]
    tables: list[tuple[Sequence[str], Sequence[Sequence[str]]]] = [
        (("measure", "got", "target", "reached"), ratios),
        (("rate", "value"), list(rates(results))),
        (("before the steady state", "seconds"), list(start_up(results))),
    ]
    return "\n\n".join(markdown(header, rows) for header, rows in tables if rows)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns line up."""
    lines = [header, ["---"] * len(header), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def rates(results: Results) -> Iterable[tuple[str, str]]:
    """Yield the measures with their units."""
    parts = (extraction, limits, training, decoding_and_store, sweeps, networks, whole)
    return chain.from_iterable(part(results) for part in parts)


def extraction(results: Results) -> Iterable[tuple[str, str]]:
    """Yield the rates of extraction: of each side, and of the network alone."""
    for side, measure in (("Keras", "keras_extraction"), ("torch float32, plain layout", "plain_extraction")):
        if theirs := results.get(measure):
            parts = ", ".join(
                f"{name} {1000 * theirs[key]:.1f} ms"
                for name, key in (
                    ("decoding and writing JPEGs", "decode_and_write_s"),
                    ("reading them", "read_s"),
                    ("network", "network_s"),
                )
            )
            yield f"extraction, {side}", f"{theirs['frames_per_s']:.1f} frames/s (of a frame: {parts})"
    if ours := results.get("extraction"):
        slowest = f"slowest fifth {ours['slowest_part_frames_per_s']:.1f}"
        rate = f"{ours['frames_per_s']:.1f} frames/s ({slowest}), {ours['videos_per_s']:.1f} videos/s"
        yield f"extraction, ours, {ours['precision']}, compiled", rate
    if backbone := results.get("backbone"):
        for name, key in (
            (f"{backbone['precision']}, compiled", "compiled_frames_per_s"),
            (f"{backbone['precision']}, eager", "eager_frames_per_s"),
            ("float32, eager", "float32_frames_per_s"),
        ):
            tflops = backbone[key] * backbone["flop_per_frame"] / 1e12
            yield f"backbone alone, {name}", f"{backbone[key]:.1f} frames/s, {tflops:.2f} TFLOP/s"


def limits(results: Results) -> Iterable[tuple[str, str]]:
    """Yield the limits of the machine."""
    if product := results.get("matrix_product"):
        for name, tflops in product.items():
            yield f"matrix product, {name}", f"{tflops:.2f} TFLOP/s"
    if memory := results.get("memory"):
        yield "memory, copying (read and written)", f"{memory['copy_gb_per_s']:.1f} GB/s"
        yield "a file in the page cache", f"{memory['page_cache_gb_per_s']:.1f} GB/s"
        yield "a file on the disk", f"{memory['disk_gb_per_s']:.1f} GB/s"


def training(results: Results) -> Iterable[tuple[str, str]]:
    """Yield the times of a training step."""
    for side, measure in (("Keras", "keras_training"), ("torch float32", "plain_training")):
        if theirs := results.get(measure):
            yield f"training step, {side}", f"{1000 * theirs['step_s']:.1f} ms"
    if ours := results.get("training"):
        yield f"training step, ours, {ours['precision']}, under Lightning", f"{1000 * ours['step_s']:.1f} ms"
        yield f"training step, ours, {ours['precision']}, in a bare loop", f"{1000 * ours['bare_step_s']:.1f} ms"


def decoding_and_store(results: Results) -> Iterable[tuple[str, str]]:
    """Yield the rates of decoding and of the store."""
    for name, clip in results.get("decoding", {}).items():
        sides = f"ours {clip['ours']:,.0f}, OpenCV {clip['opencv']:,.0f}, by grab() {clip['opencv_grabbing']:,.0f}"
        yield f"decoding at 1 frame/s, {name}", f"{sides} frames/s, one thread each"
    if missing := results.get("missing"):
        seconds = f"{missing['first_s']:.2f} s at the first look, {missing['later_s']:.2f} s later"
        yield "what is missing of 13,320 videos", seconds
    if gathered := results.get("gathering"):
        size = f"{gathered['rows']:,} x 25,088 {gathered['format']}, {gathered['gb']:.2f} GB"
        rate = f"{gathered['gb_per_s']:.1f} GB/s; their files from the page cache {gathered['files_gb_per_s']:.1f} GB/s"
        yield f"reading features into training, {size}", rate
    for size, cost in results.get("many_files", {}).items():
        times = ", ".join(f"{doing} {cost[f'{step}_us']:.0f}" for step, doing in STEPS.items())
        yield f"CPU time a file of {int(size):,}, microseconds", times
    if growth := results.get("growth"):
        for size in ("1%", "10%"):
            cost = f"{1000 * growth[f'video_s_{size}']:.1f} ms a video, {growth[f'peak_gb_{size}']:.2f} GB at most"
            yield f"extraction of twin {size}, not compiled", cost


def sweeps(results: Results) -> Iterable[tuple[str, str]]:
    """Yield the measures of sweeps and of many heads."""
    for name, key in (("one process", "sweep"), ("parallel jobs", "sweep_parallel")):
        if sweep := results.get(key):
            frames = f"{sweep['given']:,} frames computed, {sweep['distinct']:,} asked for, {sweep['seconds']:.0f} s"
            yield f"sweep of 12 jobs, {name}", frames
    if heads := results.get("heads"):
        times = f"{heads['at_once_s']:.0f} s at once, {heads['alone_s']:.0f} s one after another"
        yield f"{heads['heads']} linear heads on the demo, 50 epochs", times
    for name, steps in results.get("heads_step", {}).items():
        one, many = ([1000 * steps[f"{whose}{where}_s"] for where in ("", "_lightning")] for whose in ("one", "all"))
        shown = f"{one[0]:.2f} and {many[0]:.2f} ms bare, {one[1]:.2f} and {many[1]:.2f} ms under Lightning"
        yield f"step of one linear head and of 20, {name}, float32", shown


def networks(results: Results) -> Iterable[tuple[str, str]]:
    """Yield the measures of number formats and other encoders."""
    if error := results.get("bfloat16_error"):
        largest = f"largest {error['largest']:.2g} where features reach {error['largest_feature']:.2g}"
        yield "bfloat16's error of VGG16's features", f"{error['relative']:.2%} ({largest})"
    for name, scores in results.get("precision", {}).items():
        yield f"demo's test top1, {name}, seeds 0, 1, 2", ", ".join(f"{score:.3f}" for score in scores)
    for name, sides in results.get("encoders", {}).items():
        yield (
            f"extraction by {name}",
            f"ours {sides['ours']:.1f}, the library's own loop {sides['library']:.1f} a second",
        )
    for name, both in results.get("int8", {}).items():
        sides = (
            f"{both[f'{side}_frames_per_s']:.1f} frames/s (alone {both[f'{side}_alone_frames_per_s']:.1f}), "
            f"error {both[f'{side}_error']:.1%}"
            for side in ("int8", "bfloat16")
        )
        yield f"extraction in int8 and in bfloat16, {name}", "; ".join(sides)
    for name, film in results.get("timeline", {}).items():
        yield (
            f"labelling a film of 10 minutes along its time, {name}",
            f"{film['predict_s']:.1f} s; decoding it once and the backbone {film['decoding_and_backbone_s']:.1f} s; "
            f"looking at it {film['looking_s']:.1f} s",
        )


def whole(results: Results) -> Iterable[tuple[str, str]]:
    """Yield the end-to-end times, start-up included."""
    for side, measure in (("ours", "end_to_end"), ("ours in int8", "end_to_end_int8")):
        if ours := results.get(measure):
            frames = f"{ours['train_frames'] + ours['test_frames']:,} frames, {ours['epochs']} epochs"
            parts = f"{ours_s(ours):.0f} s (train {ours['train_s']:.0f}, evaluate {ours['evaluate_s']:.0f})"
            yield f"end to end, {side}, start-up and all, {frames}", parts
    if theirs := results.get("keras_end_to_end"):
        frames = f"{theirs['train_frames'] + theirs['test_frames']:,} frames, {theirs['epochs']} epochs"
        yield f"end to end, Keras, start-up and all, {frames}", f"{theirs['seconds']:.0f} s"


def start_up(results: Results) -> Iterable[tuple[str, str]]:
    """Yield the times before a run's steady state."""
    if ours := results.get("extraction"):
        yield "building VGG16 with random weights", f"{ours['build_s']:.1f}"
        yield "compiling it", f"{ours['compile_s']:.1f}"
        yield "from the first request to the first video's features", f"{ours['first_video_s']:.1f}"
    if commands := results.get("start_up"):
        for name, seconds in commands.items():
            yield name, f"{seconds:.2f}"

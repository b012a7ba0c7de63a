"""The embedded long videos: clips of the demo joined into films, with a table of their events, written on first use."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from vidclf.data.datasets.demo import ensure_filled
from vidclf.data.datasets.demo.clips import CREDIT, FPS, PAIRS, TEST_GROUPS, scenes
from vidclf.data.datasets.events import Events, check_above_0
from vidclf.data.events import Event, write_events
from vidclf.system.terminal import track

ABOUT = f"""The long videos of vidclf's demo, edition 1: its clips joined into a film for each group, and events.csv.

Delete this folder and it is written again.
{CREDIT}
"""  # raise the edition when a pixel changes
NUM_BYTES = 40_000_000
NUM_EVENTS = 16  # of a film, with a clip of background before each
RARER = 0.75  # the share of a class's events that the next class has
CLASSES = [name for _, *names in PAIRS for name in names]
Piece = tuple[str, UInt8[np.ndarray, "T H W 3"]]  # a label, and frames


class DemoEvents(Events):
    """Windows of the demo's films, which are written to `root` first if they are missing.

    Six classes happen between clips that show no event. They are three pairs that differ in the order of their frames.

    Args:
        root: a folder that does not exist yet, is empty, or holds the films.
        window_s: as in `Events`, like all that follows.
        stride_s: of windows.
        min_cover: of a window.
        rate_hz: of sampling=rate.
        on_error: for a damaged film.
    """

    credit = CREDIT

    def __init__(
        self,
        root: str | Path,
        window_s: float | int = 2.0,
        stride_s: float | int = 1.0,
        min_cover: float | int = 0.5,
        rate_hz: float | int | None = None,
        on_error: str = "raise",
    ) -> None:
        check_above_0(window_s=window_s, stride_s=stride_s, min_cover=min_cover)  # before films are written
        folder = Path(root).expanduser().resolve()
        ensure_filled(folder, ABOUT, NUM_BYTES, _write_films)
        settings = {"window_s": window_s, "stride_s": stride_s, "min_cover": min_cover, "rate_hz": rate_hz}
        super().__init__(folder / "events.csv", folder, on_error=on_error, **settings)  # type: ignore[arg-type]


def write_film(path: Path, codec: str, fps: Fraction, pieces: Iterable[Piece]) -> Iterator[tuple[str, int, int]]:
    """Encode pieces one after the other; yield the label of each, its first frame, and the frame after its last."""
    with av.open(path, "w") as container:
        stream: Any = None
        count = 0
        for label, frames in pieces:
            if stream is None:
                stream = container.add_stream(codec, rate=fps)
                stream.height, stream.width = frames.shape[1:3]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.max_b_frames = 2
                if codec == "mpeg4":
                    stream.codec_context.codec_tag = "XVID"
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            yield label, count, count + len(frames)
            count += len(frames)
        if stream is not None:
            container.mux(stream.encode())


def _write_films(folder: Path) -> None:
    events: list[Event] = []
    groups = sorted({scene.group for scene in scenes()})
    for group in track(groups, len(groups), "Writing the films of the demo:", "films"):
        path, part = folder / f"g{group:02d}.avi", "test" if group in TEST_GROUPS else "train"
        for label, start, stop in write_film(path, "mpeg4", Fraction(FPS), _pieces(group)):
            if label in CLASSES:
                events.append(Event(path.name, start / FPS, stop / FPS, label, group=path.stem, part=part))
    write_events(folder / "events.csv", events, {})


def _pieces(group: int) -> Iterator[Piece]:
    """Yield the pieces of a group's film: by turns a clip without an event and one with, rarer classes less often."""
    clips: dict[str, list[np.ndarray]] = {}
    for scene in scenes():
        for name, frames in scene.clips() if scene.group == group else ():
            clips.setdefault(name.partition("/")[0], []).append(frames.permute(0, 2, 3, 1).contiguous().numpy())
    random = np.random.default_rng([NUM_EVENTS, group])
    weights = np.array([RARER**rank for rank in range(len(CLASSES))])
    between = sorted({*clips} - {*CLASSES})
    for label in random.choice(CLASSES, NUM_EVENTS, p=weights / weights.sum()).tolist():
        for name in (random.choice(between), label):
            yield str(name), _one_of(clips[str(name)], random)


def _one_of(clips: Sequence[np.ndarray], random: np.random.Generator) -> np.ndarray:
    return clips[int(random.integers(len(clips)))]

"""Labels a stream while it runs: a line for each window."""

import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from vidclf.data.addresses import Source
from vidclf.data.capture import Capture
from vidclf.data.decoding import to_tensor
from vidclf.data.streams import Stream
from vidclf.errors import VideoError
from vidclf.prediction.drawing import Recorder
from vidclf.prediction.files import Predictor
from vidclf.prediction.live import LiveLabeller, WindowLabel
from vidclf.prediction.windows import Windows
from vidclf.system.text import sanitize

WAIT_S = 0.2  # how often the main thread looks for Ctrl-C, errors and the end while nothing comes
BAR_CHARS = 10
TOLERANCE_S = 1e-3  # of the end of a file's window


@dataclass
class Smoothing:
    """Smooths the labels of a stream as those of a file's timeline, from the past alone.

    Args:
        smooth_s: over which seconds before a window's end the instants are averaged; each has the mean of the windows
            so far that cover it. Up to the stride, the newest window counts alone.
        step_s: from one instant to the next.
        threshold: a calibrated probability below it is no label; None: all have one.
        temperature: that calibrates; None: 1.
    """

    smooth_s: float | int = 0.0
    step_s: float | int = 0.1
    threshold: float | int | None = None
    temperature: float | None = None
    _windows: list[WindowLabel] = field(default_factory=list)

    def smooth(self, window: WindowLabel, stride_s: float | int) -> WindowLabel:
        """Return the window with smoothed probabilities."""
        if self.smooth_s <= stride_s:
            return window
        from vidclf.evaluation.timeline import average_windows  # imports scipy, others need not

        since_s = window.end_s - self.smooth_s
        self._windows = [*(one for one in self._windows if since_s < one.end_s <= window.end_s), window]
        first_s = max(since_s, min(one.start_s for one in self._windows))
        times_s = np.arange(window.end_s - self.step_s / 2, first_s, -self.step_s)[::-1]
        rows = np.stack([one.log_probabilities.exp().numpy() for one in self._windows])
        starts_s, ends_s = (np.asarray([getattr(one, key) for one in self._windows]) for key in ("start_s", "end_s"))
        mean = average_windows(rows, starts_s, ends_s, times_s).mean(0)
        return replace(window, log_probabilities=torch.from_numpy(np.log(mean)).float())

    def is_sure(self, window: WindowLabel) -> bool:
        """Return whether a window has a label."""
        if self.threshold is None:
            return True
        from vidclf.evaluation.calibration import confidence

        return bool(confidence(window.log_probabilities, self.temperature) >= self.threshold)


@dataclass(frozen=True, eq=False)
class Line:
    """A label of a stream, to be printed, kept or drawn.

    Attributes:
        window: the window that ends now, smoothed.
        is_sure: whether it has a label.
        clock_s: when its last frame came, in seconds since 1970; None: the stream is a file and has a time of its own.
        delay_ms: from its last frame to its label.
    """

    window: WindowLabel
    is_sure: bool
    clock_s: float | None
    delay_ms: int

    @property
    def label(self) -> str | None:
        """The label; None: the probability is below the threshold."""
        return self.window.top5[0]["label"] if self.is_sure else None

    @property
    def probability(self) -> float | None:
        """The probability of the label; None where there is none."""
        return self.window.top5[0]["probability"] if self.is_sure else None

    @property
    def time(self) -> str | float:
        """The clock's time (ISO 8601, UTC), or that of the file in seconds."""
        if self.clock_s is None:
            return self.window.end_s
        return datetime.fromtimestamp(self.clock_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def as_json(self, name: str) -> dict[str, Any]:
        """Return what is printed into a pipe."""
        window = self.window
        return {
            **{"path": name, "time": self.time, "start_s": window.start_s, "end_s": window.end_s},
            **{"label": self.label, "probability": self.probability, "top5": window.top5},
            **{"delay_ms": self.delay_ms, "dropped": window.dropped},
        }

    def as_row(self, name: str) -> dict[str, Any]:
        """Return the row of a table; its times are those of the clock, in seconds since 1970, or of the file."""
        window = self.window
        shift_s = 0.0 if self.clock_s is None else self.clock_s - window.end_s
        probabilities = window.log_probabilities.exp().tolist()
        return {
            **{"path": name, "start_s": round(window.start_s + shift_s, 3), "end_s": round(window.end_s + shift_s, 3)},
            **{"label": self.label, "probability": self.probability},
            **{f"p_{one}": value for one, value in zip(window.class_names, probabilities, strict=True)},
        }

    def as_text(self) -> str:
        """Return what is printed on a terminal, in up to 79 columns."""
        if self.clock_s is None:
            when = f"{self.window.end_s:.1f} s"
        else:
            when = f"{datetime.fromtimestamp(self.clock_s):%H:%M:%S}"
        label = sanitize(self.label or "-")
        label = label if len(label) <= 24 else f"{label[:23]}…"
        probability = self.window.top5[0]["probability"]
        bar = "█" * round(probability * BAR_CHARS)
        dropped = f", {self.window.dropped} dropped" if self.window.dropped else ""
        return f"{when:>9}  {label:24}  {probability:.2f} {bar:{BAR_CHARS}}  {self.delay_ms} ms{dropped}"


def label_stream(
    predictor: Predictor,
    source: Source,
    windows: Windows,
    smoothing: Smoothing | None = None,
    until_s: float | int | None = None,
    recorder: Recorder | None = None,
) -> Iterator[Line]:
    """Yield a line for each window of a stream, as soon as it has its label; see `LiveLabeller`.

    Args:
        predictor: of the run.
        source: the stream.
        windows: their length, and the time from one to the next.
        smoothing: of the labels; None: none.
        until_s: when to end: in seconds of the clock for live streams, of the file for others; None: with the stream.
        recorder: draws the labels into a video.

    Raises:
        VideoError: the stream cannot be opened, shows no picture, or breaks off and is not connected again.
    """
    smoothing = smoothing or Smoothing()
    receiver = _Receiver(predictor, windows, source.name, recorder)
    capture, began_s = Capture(source, receiver), time.monotonic()
    with recorder or nullcontext(), capture, receiver:
        while not receiver.is_done:
            window = receiver.work(WAIT_S)
            has_clock = receiver.is_live and not source.realtime
            now_s = time.monotonic() - began_s if has_clock else window.end_s - TOLERANCE_S if window else 0.0
            if until_s is not None and now_s >= until_s:
                return
            if window is not None:
                window = smoothing.smooth(window, windows.stride_s)
                delay_s = time.monotonic() - window.arrived_s
                line = Line(window, smoothing.is_sure(window), time.time() - delay_s if has_clock else None, 0)
                line = replace(line, delay_ms=round(1000 * delay_s))
                if recorder:
                    recorder.show(line.label, line.probability)
                yield line
            capture.check_camera()
        if capture.error:
            raise capture.error
        if receiver.labeller is None:
            raise VideoError(f"{source.name}: it ended without a picture. Give a video that plays.")


class _Receiver:
    """Hands the frames of a stream to a labeller, which is made when the stream's rate is known."""

    def __init__(self, predictor: Predictor, windows: Windows, name: str, recorder: Recorder | None) -> None:
        self.predictor, self.windows, self.name, self.recorder = predictor, windows, name, recorder
        self.labeller: LiveLabeller | None = None
        self.is_live = False
        self._reformatter = VideoReformatter()
        self._has_begun = threading.Event()

    def __enter__(self) -> "_Receiver":
        return self

    def __exit__(self, *_: object) -> None:
        if self.labeller is not None:
            self.labeller.close()

    @property
    def is_done(self) -> bool:
        """True once there is nothing more to label."""
        return self._has_begun.is_set() and (self.labeller is None or self.labeller.is_done)

    def work(self, timeout_s: float) -> WindowLabel | None:
        """See `LiveLabeller.work`."""
        if not self._has_begun.wait(timeout_s) or self.labeller is None:
            return None
        return self.labeller.work(timeout_s)

    def begin(self, stream: Stream) -> None:
        if self.labeller is not None:
            self.labeller.restart(stream.fps)
            return
        self.is_live = stream.is_live
        name, loses_nothing = self.name, not stream.is_live
        self.labeller = LiveLabeller(self.predictor, self.windows, stream.fps, loses_nothing=loses_nothing, name=name)
        self._has_begun.set()

    def take(self, time_s: float, frame: VideoFrame, arrived_s: float) -> None:
        assert self.labeller is not None
        self.labeller.push(time_s, lambda: to_tensor(frame, self._reformatter), arrived_s)
        if self.recorder:
            if not self.is_live:
                self.labeller.wait_for_labels()
            self.recorder.write(time_s, frame)

    def finish(self) -> None:
        if self.labeller is not None:
            self.labeller.finish()
        self._has_begun.set()

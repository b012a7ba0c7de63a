"""Labels the newest window of frames that keep coming, in memory that does not grow."""

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vidclf.data.timelines import ROUNDING, TIME_DIGITS
from vidclf.errors import VidclfError
from vidclf.features.extract import views_of
from vidclf.models.classifier import most_probable
from vidclf.prediction.encoding import UnitEncoder
from vidclf.prediction.files import Predictor
from vidclf.prediction.plan import Plan, PlannedWindow, Unit
from vidclf.prediction.windows import Windows
from vidclf.system.terminal import say

HELD_BYTES = 2**30  # of frames, at most
NUM_WAITING = 2  # whole windows that a file's reader may be ahead of the model
EARLY = 0.1  # of a frame: a time that is nearer to the frame before has been rounded, see vidclf.data.timing

Frame = UInt8[Tensor, "3 H W"] | Callable[[], UInt8[Tensor, "3 H W"]]  # a function is called if the frame is needed


@dataclass(frozen=True, eq=False)
class WindowLabel:
    """The log-probabilities of a window, and when it was seen.

    Attributes:
        start_s: where the window begins, in the stream's seconds.
        end_s: where it ends.
        log_probabilities: of the classes.
        class_names: in label order.
        arrived_s: when its last frame came, by `time.monotonic`.
        dropped: how many frames that windows wanted have been dropped so far, because newer ones came first.
    """

    start_s: float
    end_s: float
    log_probabilities: Float[Tensor, " K"]
    class_names: list[str]
    arrived_s: float
    dropped: int

    @property
    def top5(self) -> list[dict[str, Any]]:
        """The five most probable classes, as `vidclf predict` prints them."""
        top = most_probable(self.log_probabilities, self.class_names)
        return [{"label": label, "probability": probability} for label, probability in top]


class _Shown(NamedTuple):
    """The newest frame, not yet converted."""

    position: int
    frame: Frame
    arrived_s: float


class LiveLabeller:
    """Labels windows of frames that are pushed by one thread, in another thread.

    ```python
    labeller = LiveLabeller(run.predictor, Windows(window_s=2, stride_s=0.5), fps=25)
    labeller.push(time_s, frame)        # the thread that has the frames: seconds, uint8 (3, H, W) in RGB
    label = labeller.work(timeout_s=1)  # the thread that computes: a WindowLabel, or None: call it again
    ```

    The sampling says in advance which frames a window needs. Only these are converted and held, from the first frame of
    the oldest window that has no label. A window is whole with its last frame. `work` takes the newest whole window;
    windows before it get no label, and their frames are dropped. While no window is whole, it computes the features of
    frames that have come. With `loses_nothing`, no frame is dropped: `push` waits while two whole windows have no
    label, and the features are the same bits as in `vidclf predict` of a file. `finish` ends the last window early.

    Args:
        predictor: of the run.
        windows: their length, and the time from one to the next.
        fps: frames per second of the even time line that the sampling sees, as the stream states it. Real frames may
            come at other times: at each instant, the newest one counts.
        loses_nothing: whether the frames are those of a file.
        name: of the stream, for messages.
    """

    def __init__(
        self,
        predictor: Predictor,
        windows: Windows,
        fps: float | int,
        *,
        loses_nothing: bool = False,
        name: str = "the stream",
    ) -> None:
        self.predictor, self.windows, self.fps = predictor, windows, fps
        self.loses_nothing, self.name = loses_nothing, name
        self.num_dropped = 0
        self._encoder = UnitEncoder(predictor, in_batches=loses_nothing)
        self._changed = threading.Condition()
        self._frames: dict[int, Tensor] = {}  # by position, prepared by the encoder
        self._features: dict[Unit, Tensor] = {}  # each (crops, S, D)
        self._used: set[int] = set()  # positions of frames that the backbone has seen
        self._ready: deque[tuple[PlannedWindow, float]] = deque()  # whole windows without a label; when they were whole
        self._is_finished = self._is_closed = self._is_busy = False
        self._shown: _Shown | None = None
        self._begin_segment()
        self._holds_all: bool | None = None if loses_nothing and not self._plan.can_shorten() else False

    def _begin_segment(self) -> None:
        """Place windows anew, from the next frame on."""
        self._first_s: float | int | None = None  # the time of the first frame
        base = self._shown.position + 1 if self._shown else 0  # its position
        self._plan = Plan(self.predictor.sampling, self.windows, self.fps, self._encoder.clip_length, base)
        self._wanted: list[int] = []  # a heap of the positions that windows want
        self._begun: deque[PlannedWindow] = deque()  # windows that have begun and are not whole
        self._last_whole: int | None = None  # the number of the last whole window
        self._shown = None
        self._next = self._plan.place(0)

    def push(self, time_s: float | int, frame: Frame, arrived_s: float | None = None) -> None:
        """Take the next frame.

        Args:
            time_s: when it is shown; times increase.
            frame: the frame, or a function that returns it, which is called in this thread if a window needs it.
            arrived_s: when it came, by `time.monotonic`; None: now.

        Raises:
            VidclfError: the frames of a window do not fit into memory.
        """
        with self._changed:
            if self._first_s is None:
                self._first_s = time_s
            position = self._position_of(time_s)
            self._advance(position - 1)
            self._shown = _Shown(position, frame, time.monotonic() if arrived_s is None else arrived_s)
            if self._holds_all is not False:
                self._hold(position)
            self._advance(position)

    def restart(self, fps: float | int | None = None) -> None:
        """Begin a new window with the next frame, because the stream has changed: its size, or its rate."""
        with self._changed:
            self._end_segment()
            self.fps = fps or self.fps
            self._begin_segment()

    def finish(self) -> None:
        """End the stream: with `loses_nothing`, the frames behind the last whole window are a window of their own."""
        with self._changed:
            self._end_segment()
            self._is_finished = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let a `push` that waits return."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def wait_for_labels(self) -> None:
        """Wait until each whole window has its label, in the thread that pushes."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or not (self._ready or self._is_busy))

    @property
    def is_done(self) -> bool:
        """True once the stream has ended and all its windows have their labels."""
        return self._is_finished and not self._ready

    def work(self, timeout_s: float | int) -> WindowLabel | None:
        """Compute what is next: a whole window's label, or the features of a frame; wait for work up to `timeout_s`.

        Raises:
            VidclfError: the network gives numbers that are not finite.
        """
        with self._changed:
            self._is_busy = False
            self._changed.notify_all()  # the label before has been used
            unit: Unit | None = None

            def has_work() -> bool:
                nonlocal unit
                unit = None if self._ready or self.loses_nothing else next(self._units_ahead(), None)
                return bool(self._ready or unit or self._is_finished or self._is_closed)

            self._changed.wait_for(has_work, timeout_s)
            self._is_busy = bool(self._ready)
            window, arrived_s = self._ready.popleft() if self._ready else (None, 0.0)
            units = [unit] if unit else [*dict.fromkeys(window.units)] if window else []
            known = {unit: self._features[unit] for unit in units if unit in self._features}
            missing = [unit for unit in units if unit not in known]
            images = [torch.cat([self._frames[at] for at in unit], dim=1) for unit in missing]
            self._used.update(at for unit in units for at in unit)
            self._changed.notify_all()  # there is room for a window
        computed = self._encoder.encode(images) if images else []
        known.update(zip(missing, computed, strict=True))
        with self._changed:
            self._features.update(known)
            self._forget()
        if window is None:
            return None
        rows = torch.stack([known[unit] for unit in window.units])
        scores = self.predictor.score(views_of(rows, window.num_views), self.name)
        names = self.predictor.class_names
        return WindowLabel(window.start_s, window.end_s, scores, names, arrived_s, self.num_dropped)

    def _position_of(self, time_s: float | int) -> int:
        """Return the place of a frame on the even time line: the next one where it is nearest, as in a file."""
        assert self._first_s is not None
        if self._shown is None:
            return self._plan.base
        exact, following = self._plan.base + (time_s - self._first_s) * self.fps, self._shown.position + 1
        return following if abs(exact - following) < 0.5 else max(self._shown.position, int(np.ceil(exact - EARLY)))

    def _advance(self, until: int) -> None:
        """Let the newest frame be shown up to a position; begin and end the windows there, one after the other."""
        while self._next.first <= until:
            self._show(self._next.first - 1)
            self._begun.append(self._next)
            for position in self._next.positions:
                heapq.heappush(self._wanted, position)
            self._next = self._plan.place(self._next.number + 1)
        self._show(until)

    def _show(self, until: int) -> None:
        while self._wanted and self._wanted[0] <= until:
            self._hold(heapq.heappop(self._wanted))
        while self._begun and self._begun[0].stop - 1 <= until:
            self._add_ready(self._begun[0])
            self._begun.popleft()

    def _hold(self, position: int) -> None:
        """Hold the newest frame as the one that is shown at a position."""
        assert self._shown is not None
        if position in self._frames:
            return
        held = self._frames.get(self._shown.position)
        if held is None or self._shown.position == position:
            frame = self._shown.frame() if callable(self._shown.frame) else self._shown.frame
            held = self._encoder.prepare(frame)
            if not self._frames and not self._features:
                self._check_memory(held.nbytes)
        self._frames[position] = held
        self._changed.notify_all()

    def _check_memory(self, num_bytes: int) -> None:
        """Decide whether all frames are held, for a window that may end early; raise VidclfError if none fits."""
        windows = self.windows
        num_all = round((windows.window_s + windows.stride_s) * self.fps)
        if self._holds_all is None:
            self._holds_all = num_all * num_bytes <= HELD_BYTES
        share = min(1.0, len(self._next.positions) / (windows.window_s * self.fps))
        if num_all * share * num_bytes > HELD_BYTES:
            raise VidclfError(
                f"window_s={windows.window_s:g}: a window needs {num_all * share:,.0f} frames in memory, "
                f"{num_all * share * num_bytes / 2**30:.1f} GiB, and at most {HELD_BYTES / 2**30:g} GiB is held. "
                "Choose a shorter window_s, or a sampling of fewer frames."
            )

    def _add_ready(self, window: PlannedWindow) -> None:
        assert self._shown is not None
        assert self._first_s is not None
        if self.loses_nothing:
            self._changed.wait_for(lambda: len(self._ready) < NUM_WAITING or self._is_closed)
        elif self._shown.position < window.first:
            return  # none of its frames has come
        self._last_whole = window.number
        start_s, end_s = (round(self._first_s + time_s, TIME_DIGITS) for time_s in (window.start_s, window.end_s))
        self._ready.append((window._replace(start_s=start_s, end_s=end_s), self._shown.arrived_s))
        while len(self._ready) > 1 and not self.loses_nothing:
            self._ready.popleft()
        self._forget()
        self._changed.notify_all()

    def _end_segment(self) -> None:
        """Where nothing is lost, make a window of the frames behind the last whole one."""
        if self._shown is None or not self.loses_nothing:
            return
        stop = self._shown.position + 1
        least = 0 if self._last_whole is None else self._last_whole + self.windows.window_s / self.windows.stride_s
        window = next((one for one in self._begun if one.number >= least - ROUNDING), None)
        if window is None:
            return
        window = self._plan.shorten(window, stop)
        if self._holds_all is False and not self._plan.can_shorten():
            say(f"{self.name}: the last {window.end_s - window.start_s:.2f} s, less than a window, have no label.")
            return
        held = sorted(at for at in self._frames if at >= window.first)
        for position in window.positions - {*held}:
            before = held[max(0, int(np.searchsorted(held, position, side="right")) - 1)]
            self._frames[position] = self._frames[before]
        self._add_ready(window)

    def _units_ahead(self) -> Iterator[Unit]:
        """Yield the units of windows that are not whole, whose frames have come and whose features are missing."""
        for window in self._begun:
            for unit in window.units:
                if unit not in self._features and all(at in self._frames for at in unit):
                    yield unit

    def _forget(self) -> None:
        """Drop the frames and features before the first window that has no label; count the frames never used."""
        low = min([self._next.first, *(window.first for window, _ in self._ready), *(w.first for w in self._begun)])
        for position in [at for at in self._frames if at < low]:
            del self._frames[position]
            self.num_dropped += position not in self._used and not self.loses_nothing
        self._used = {at for at in self._used if at >= low}
        self._features = {unit: features for unit, features in self._features.items() if min(unit) >= low}

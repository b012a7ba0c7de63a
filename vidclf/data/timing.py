"""From the times of decoded frames to an even time line. Times are never used in AVI: with B-frames they are wrong."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from vidclf.errors import VideoError
from vidclf.system.terminal import say

RATE_TOLERANCE = 0.02  # of the frames, and at least two frames: how far a stated rate may miss frames / duration
MAX_GAP_S = 7 * 24 * 3600  # between two frames; a longer one is a mistake, because the clock of MPEG restarts in a day

MAX_DELAY = 3  # frames by which the times of an AVI with B-frames may be late

Rates = Sequence[Fraction | float | None]  # as a container states them, the most likely first
Line = tuple[int, float | None, tuple[int, ...]]  # VideoInfo's num_frames, fps (None: unknown), shown_from


def find_line(
    path: Path, container: InputContainer, stream: VideoStream, times: Sequence[float | None], last_s: float
) -> Line:
    """Return the time line of a video, from each frame's time and the last one's duration."""
    rates = stream.average_rate, stream.guessed_rate, stream.base_rate
    known = [time for time in times if time is not None and container.format.name != "avi"]
    is_increasing = all(after > before for before, after in pairwise(known))
    times_s = known if is_increasing and len(known) == len(times) else []  # those that can be trusted
    if any(after - before > MAX_GAP_S for before, after in pairwise(times_s)):
        say(f"{path}: two of its frames are more than a week apart. The times are ignored and the frames counted.")
        return len(times), _rate_of(times_s, rates), ()
    if len(times_s) > 1:
        return line_of(times_s, last_s, rates)
    duration_s = None
    if all(after >= before for before, after in pairwise(known)):
        # Else the clock restarts, as where discs and recorders join recordings: FFmpeg states the duration of one.
        own_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
        duration_s = own_s or (container.duration / av.time_base if container.duration else None)
        if duration_s and times[0] and rates[0] and times[0] * rates[0] > MAX_DELAY:
            duration_s -= times[0]  # nothing is shown before the first frame
    return len(times), fitting_rate(len(times), duration_s, rates), ()


def line_of(times_s: Sequence[float], last_s: float, rates: Rates) -> Line:
    """Return the time line of frames at increasing times; `last_s` is the duration of the last."""
    if not are_even(times_s):
        return time_line(times_s, last_s, rates)
    last = len(times_s) - 1
    # Not the duration that is stated: it may be that of one field for the last frame.
    duration_s = (times_s[-1] - times_s[0]) * (last + 1) / last if last else None
    return last + 1, fitting_rate(last + 1, duration_s, rates), ()


def known_rate(source: Path | str, fps: float | None) -> float:
    """Return the rate; raise VideoError if it is unknown."""
    if not fps:
        raise VideoError(f"{source}: the file states no frame rate, which sampling needs. Re-encode it with one.")
    return fps


def fitting_rate(num_frames: int, duration_s: float | None, stated: Rates) -> float | None:
    """Return the first stated rate that fits `num_frames` in `duration_s`, else the measured one; None: unknown.

    Raw DV states 60,000 frames per second, and interlaced H.264 in MPEG-TS may state the rate of its fields.
    """
    rates = [float(rate) for rate in stated if rate]
    if not duration_s or duration_s <= 0:
        return rates[0] if rates else None
    allowed = max(2, RATE_TOLERANCE * num_frames)
    fitting = (rate for rate in rates if abs(num_frames - rate * duration_s) <= allowed)
    measured = num_frames / duration_s
    return next(fitting, float(Fraction(measured).limit_denominator(1001)) or measured)  # 30000/1001 is a rate


def are_even(times_s: Sequence[float]) -> bool:
    """Return whether each frame is nearest to its place on an even time line from the first frame to the last."""
    last = len(times_s) - 1
    if last < 2:
        return True
    step = (times_s[-1] - times_s[0]) / last
    return all(abs((time - times_s[0]) / step - index) < 0.5 for index, time in enumerate(times_s))


def time_line(times_s: Sequence[float], last_s: float, stated: Rates) -> Line:
    """Return an even time line for uneven frames.

    Args:
        times_s: time of each frame, increasing, two or more.
        last_s: duration of the last frame.
        stated: rates, see `_rate_of`.
    """
    fps = _rate_of(times_s, stated)
    # Matroska rounds times to milliseconds, which is less than a tenth of a frame.
    shown_from = tuple(max(0, math.ceil((time - times_s[0]) * fps - 0.1)) for time in times_s)
    num_frames = max(shown_from[-1] + 1, round((times_s[-1] - times_s[0] + last_s) * fps))
    return num_frames, fps, shown_from


def _rate_of(times_s: Sequence[float], stated: Rates) -> float:
    """Return the stated rate nearest to the median step, if it is near, else the rate of that step."""
    step = median(after - before for before, after in pairwise(times_s))
    near = [float(rate) for rate in stated if rate and abs(float(rate) * step - 1) <= 0.1]
    return min(near, key=lambda rate: abs(rate * step - 1), default=1 / step)

"""From the times of a video's frames to the even time line that samplings see."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import median

FITS = 0.02  # of the frames, or two of them: by how much a stated rate may miss what frames over duration say
LONGEST = 20  # frames of the time line for each that decodes: beyond, the times are a mistake

Rates = Sequence[Fraction | None]  # as a container states them, the likeliest first


def fitting_rate(num_frames: int, duration_s: float | None, stated: Rates) -> float | None:
    """Return the first stated rate that fits `num_frames` in `duration_s`, else that of these; None: nothing is known.

    Raw DV states 60,000 frames a second, MPEG-TS of H.264 in fields may state the fields'.
    """
    rates = [float(rate) for rate in stated if rate]
    if not duration_s or duration_s <= 0:
        return rates[0] if rates else None
    allowed = max(2, FITS * num_frames)
    fitting = (rate for rate in rates if abs(num_frames - rate * duration_s) <= allowed)
    measured = num_frames / duration_s
    return next(fitting, float(Fraction(measured).limit_denominator(1001)) or measured)  # 30000/1001 is a rate


def are_even(times_s: Sequence[float]) -> bool:
    """Whether each frame is nearest to its own place on an even time line from the first to the last."""
    last = len(times_s) - 1
    if last < 2:
        return True
    step = (times_s[-1] - times_s[0]) / last
    return all(abs((time - times_s[0]) / step - index) < 0.5 for index, time in enumerate(times_s))


def time_line(times_s: Sequence[float], last_s: float, stated: Rates) -> tuple[int, float, tuple[int, ...]] | None:
    """Return an even time line for frames that come unevenly; None where it would be absurdly long.

    Args:
        times_s: when each frame is shown, increasing, two or more.
        last_s: how long the last one is shown.
        stated: rates, of which that is used which most frames keep to, else theirs.

    Returns:
        Its number of frames, its rate in frames a second, and from which of them on each frame is shown.
    """
    step = median(after - before for before, after in pairwise(times_s))
    near = [float(rate) for rate in stated if rate and abs(float(rate) * step - 1) <= 0.1]
    fps = min(near, key=lambda rate: abs(rate * step - 1), default=1 / step)
    # Milliseconds, as Matroska keeps times, are rounded by less than a tenth of a frame.
    shown_from = tuple(max(0, math.ceil((time - times_s[0]) * fps - 0.1)) for time in times_s)
    num_frames = max(shown_from[-1] + 1, round((times_s[-1] - times_s[0] + last_s) * fps))
    return (num_frames, fps, shown_from) if num_frames <= LONGEST * len(times_s) else None

"""How timelines are cleaned: the settings, and what was chosen on val for those that are null."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidclf.errors import VidclfError
from vidclf.system.terminal import say

CHOSEN = ("smooth_s", "min_bout_s")  # on val, and kept in metrics.json
DEFAULT = {"step_s": 0.1, "smooth_s": None, "min_bout_s": None}  # of a run that does not know them
MAX_STEP_S = 10


def step_of(settings: Mapping[str, Any]) -> float | int:
    """Return the step of the grid in seconds; raise VidclfError if it is not allowed."""
    step_s = settings["step_s"]
    if not 0 < step_s <= MAX_STEP_S:
        raise VidclfError(f"timeline.step_s={step_s}: must be above 0 and at most {MAX_STEP_S} seconds.")
    return step_s


def cleaning_of(settings: Mapping[str, Any], chosen: Mapping[str, float]) -> dict[str, float]:
    """Return `smooth_s` and `min_bout_s` as the settings have them, or as they were chosen."""
    return {key: settings[key] if settings[key] is not None else chosen[key] for key in CHOSEN}


def chosen_in(folder: Path) -> dict[str, float]:
    """Return the cleaning that was chosen on val, from metrics.json; none where it was not."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text())
        return {key: float(metrics[key]) for key in CHOSEN}
    except (OSError, ValueError, TypeError, KeyError):
        say(f"{folder}: no smoothing was chosen on val, so timelines are not smoothed. Evaluate part=val first.")
        return dict.fromkeys(CHOSEN, 0.0)

"""What evaluate and train have left of a part's scores, read as data from elsewhere."""

import json
import math
from pathlib import Path

from vidclf.errors import VidclfError

MAX_BYTES = 1_000_000  # of metrics.json, which is flat and short


def read_metrics(folder: Path) -> dict[str, float]:
    """Return the content of metrics.json in a folder of results.

    Raises:
        VidclfError: it is not there, or not what vidclf writes.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise VidclfError(f"{path}: there is none; {folder} has not been scored, or not to its end.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        numbers = {str(key): float(value) for key, value in content.items()}
        if not all(math.isfinite(value) for value in numbers.values()):
            raise ValueError("a number is not finite")
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError, OSError) as error:
        raise VidclfError(f"{path}: not the scores that vidclf writes ({error}). Evaluate the run again.") from error
    return numbers


def temperature_in(folder: Path) -> float | None:
    """Return the temperature that was fitted on the val part scored in `folder`; None where there is none."""
    if not (folder / "metrics.json").is_file():
        return None
    temperature = read_metrics(folder).get("temperature")
    if temperature is not None and not temperature > 0:
        raise VidclfError(f"{folder / 'metrics.json'}: temperature={temperature}; it must be above 0. Train it again.")
    return temperature

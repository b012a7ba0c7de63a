"""Compare runs: their settings, their scores, and the significance of the differences."""

from pathlib import Path

from vidclf.comparison.show import show
from vidclf.contracts import PARTS
from vidclf.errors import VidclfError
from vidclf.run.config import Config, explicit_overrides, key_of, known_keys
from vidclf.run.folder import Run


def run(config: Config, run: Run | None) -> None:
    """Print tables; write them as a page, Markdown and CSV into the folder `out`."""
    keys = known_keys("compare") - known_keys("train")
    unknown = [override for override in explicit_overrides() if key_of(override) not in keys]
    if unknown:
        raise VidclfError(
            f"compare {unknown[0]}: runs are compared as they are. Allowed keys: {', '.join(sorted(keys))}."
        )
    part, out = config["part"], config["out"]
    if part not in PARTS:
        raise VidclfError(f"part={part}: must be one of {', '.join(PARTS)}.")
    show([Path(path) for path in config["run"]], part, None if out is None else Path(out))

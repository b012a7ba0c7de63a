"""Print what differs between runs, how they score, and how sure their differences are."""

from pathlib import Path

from vidclf.comparison.show import show
from vidclf.contracts import PARTS
from vidclf.errors import VidclfError
from vidclf.run.config import Config, explicit_overrides, key_of, known_keys
from vidclf.run.folder import Run


def run(config: Config, run: Run | None) -> None:
    """Print tables; write them as a page, Markdown and CSV into the folder `out`."""
    keys = known_keys("compare") - known_keys("train")
    others = [override for override in explicit_overrides() if key_of(override) not in keys]
    if others:
        raise VidclfError(
            f"compare {others[0]}: runs are compared as they are. Its keys are {', '.join(sorted(keys))}."
        )
    part, out = config["part"], config["out"]
    if part not in PARTS:
        raise VidclfError(f"part={part}: there is no such part; use one of {', '.join(PARTS)}.")
    show([Path(path) for path in config["run"]], part, None if out is None else Path(out))

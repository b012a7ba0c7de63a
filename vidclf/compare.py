"""Compare settings: their scores, and the significance of the differences."""

from pathlib import Path

from vidclf.comparison.show import show
from vidclf.contracts import PARTS
from vidclf.errors import VidclfError
from vidclf.run.config import Config, explicit_overrides, key_of, known_keys
from vidclf.run.folder import Run


def run(config: Config, run: Run | None) -> None:
    """Print tables; write them into the file `to`."""
    keys = known_keys("compare") - known_keys("train") - {"out"}
    for override in explicit_overrides():
        if key_of(override) == "out":
            raise VidclfError("out: has become to=FILE.html, to=FILE.md or to=FILE.csv; to=null: no file.")
        if key_of(override) not in keys:
            raise VidclfError(
                f"compare {override}: runs are compared as they are. Allowed keys: {', '.join(sorted(keys))}."
            )
    part, seeds, to = config["part"], config["seeds"], config["to"]
    if part not in PARTS:
        raise VidclfError(f"part={part}: must be one of {', '.join(PARTS)}.")
    if not isinstance(seeds, bool):
        raise VidclfError(f"seeds={seeds}: must be true or false.")
    show([Path(path) for path in config["run"]], part, seeds, None if to is None else Path(to))

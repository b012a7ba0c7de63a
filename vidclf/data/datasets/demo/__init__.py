"""The embedded data set: a small UCF101 with a known best score, written on first use.

Handwritten digits move over crops of photographs. Six classes form three pairs that differ only in the order of their
frames; two classes differ in the digit. A method that ignores order classifies at most 5 of 8 test clips correctly, one
that uses it can classify all.
"""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vidclf.data.datasets.demo.clips import CREDIT, Scene, encode, scenes
from vidclf.data.datasets.ucf101 import UCF101
from vidclf.errors import VidclfError
from vidclf.system.disk import locked, require_space, writing_to
from vidclf.system.terminal import track
from vidclf.system.text import first_five

ABOUT_FILE = "README.txt"
ABOUT = f"""The demo data set of vidclf, edition 2: digits moving over photographs, in UCF101's layout.

Delete this folder and it is written again.
{CREDIT}
"""  # marks a folder as the demo; raise the edition when a pixel changes
NUM_BYTES = 60_000_000
NUM_CLIPS = 1400
REMEDY = "Free space, or set dataset.root to another folder."


class Demo(UCF101):
    """The demo's clips under `root`, in UCF101's layout; they are written first if they are missing.

    Args:
        root: a folder that does not exist yet, is empty, or holds the demo.
        classes: names of the classes to use; all eight by default.
        on_error: as in `UCF101`.

    Raises:
        VidclfError: `root` holds something else or an incomplete demo, or cannot be written.
    """

    credit = CREDIT
    split_numbers = (1,)  # its test groups are drawn for split 1

    def __init__(self, root: Path | str, classes: list[str] | None = None, on_error: str = "raise") -> None:
        ensure_written(Path(root).expanduser().resolve())
        super().__init__(root, classes=classes, on_error=on_error)


def ensure_written(root: Path) -> None:
    """Write the demo to `root` unless it exists."""
    if not is_written(root):
        ensure_filled(root, ABOUT, NUM_BYTES, _write)


def ensure_filled(root: Path, about: str, num_bytes: int, fill: Callable[[Path], None]) -> None:
    """Fill a folder and mark it with `about`, unless it is: all or nothing, also if killed or run twice at once."""
    if _is_marked(root, about):
        return
    with writing_to(root, REMEDY):
        root.parent.mkdir(parents=True, exist_ok=True)
        require_space(root.parent, num_bytes, REMEDY)
        with locked(root.with_name(f".{root.name}.lock")):
            if _is_marked(root, about):  # another process has filled it meanwhile
                return
            partial = root.with_name(f".{root.name}.partial")
            if partial.exists():  # left by a killed run
                shutil.rmtree(partial)
            partial.mkdir()
            fill(partial)
            (partial / ABOUT_FILE).write_text(about, encoding="utf-8")
            if root.exists():  # and is empty
                root.rmdir()
            partial.rename(root)


def _is_marked(root: Path, about: str) -> bool:
    """Return whether a folder is marked with `about`; False if it is empty or missing.

    Raises:
        VidclfError: it holds anything else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    marker = root / ABOUT_FILE
    if not marker.is_file() or marker.read_text(encoding="utf-8", errors="replace") != about:
        raise VidclfError(
            f"{root}: it is not empty and does not hold this edition of the demo data set. "
            "Set dataset.root to a new folder, or delete this one if you need nothing in it."
        )
    return True


def is_written(root: Path) -> bool:
    """Return whether `root` holds the demo; False if it is empty or missing.

    Raises:
        VidclfError: it holds anything else.
    """
    if not _is_marked(root, ABOUT):
        return False
    if sum(1 for _ in root.glob("*/*.avi")) == NUM_CLIPS:
        return True
    names = [name for scene in scenes() for name in scene.names()]
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise VidclfError(
            f"{root}: {len(missing)} of the demo's {len(names)} clips are missing: {first_five(missing)}. "
            "Delete the folder and the demo is written again."
        )
    return True


def _write(folder: Path) -> None:
    todo = scenes()
    for name in {Path(name).parent for scene in todo for name in scene.names()}:
        (folder / name).mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        written = threads.map(lambda scene: _write_scene(folder, scene), todo)
        for _ in track(written, len(todo), "Writing the demo data set:", "scenes"):
            pass


def _write_scene(folder: Path, scene: Scene) -> None:
    for name, frames in scene.clips():
        encode(folder / name, frames)

"""The embedded data set: a small UCF101 whose right answer is known, written on first use.

Handwritten digits move over crops of photographs. Six classes are three pairs, told by the order of their
frames; two are told by the digit. A method that ignores order can name no more than 5 of 8 test clips, one
that uses it can name them all.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vidclf.data.datasets.demo.clips import Scene, encode, scenes
from vidclf.data.datasets.demo.drawing import CREDIT
from vidclf.data.datasets.ucf101 import UCF101
from vidclf.errors import VidclfError
from vidclf.system.disk import locked, require_space, writing_to
from vidclf.system.terminal import track
from vidclf.system.text import first_five

ABOUT_FILE = "README.txt"
ABOUT = f"""The demo data set of vidclf, edition 2: digits moving over photographs, in UCF101's layout.

Delete this folder and it is written again.
{CREDIT}
"""  # found in a folder, it says that this is the demo; whoever changes a pixel raises the edition
NUM_BYTES = 60_000_000
NUM_CLIPS = 1400
REMEDY = "Free space, or name another folder with dataset.root=..."


class Demo(UCF101):
    """The demo's clips under `root`, in UCF101's layout; they are written first if they are not there.

    Args:
        root: a folder that does not exist yet, is empty, or holds the demo.
        classes: names of the classes to use; all eight by default.
        on_error: as in `UCF101`.

    Raises:
        VidclfError: `root` holds something else or only a part of the demo, or cannot be written.
    """

    credit = CREDIT
    split_numbers = (1,)  # the groups of its test clips are drawn for that one

    def __init__(self, root: Path | str, classes: list[str] | None = None, on_error: str = "raise") -> None:
        ensure_written(Path(root).expanduser().resolve())
        super().__init__(root, classes=classes, on_error=on_error)


def ensure_written(root: Path) -> None:
    """Write the demo to `root` unless it is there: all or nothing, also when killed or run twice at once."""
    if is_written(root):
        return
    with writing_to(root, REMEDY):
        root.parent.mkdir(parents=True, exist_ok=True)
        require_space(root.parent, NUM_BYTES, REMEDY)
        with locked(root.with_name(f".{root.name}.lock")):
            if not is_written(root):  # another process may have done so meanwhile
                _write(root)


def is_written(root: Path) -> bool:
    """Return whether `root` holds the demo; False if it is empty or not there.

    Raises:
        VidclfError: it holds anything else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    about = root / ABOUT_FILE
    if not about.is_file() or about.read_text(encoding="utf-8", errors="replace") != ABOUT:
        raise VidclfError(
            f"{root}: it is not empty and does not hold this edition of the demo data set. "
            "Name a new folder with dataset.root=..., or delete this one if nothing in it is needed."
        )
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


def _write(root: Path) -> None:
    """Write beside `root` and rename the whole; the caller holds the lock."""
    partial = root.with_name(f".{root.name}.partial")
    if partial.exists():  # of a run that was killed
        shutil.rmtree(partial)
    todo = scenes()
    for name in {Path(name).parent for scene in todo for name in scene.names()}:
        (partial / name).mkdir(parents=True)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        written = threads.map(lambda scene: _write_scene(partial, scene), todo)
        for _ in track(written, len(todo), "Writing the demo data set:", "scenes"):
            pass
    (partial / ABOUT_FILE).write_text(ABOUT, encoding="utf-8")
    if root.exists():  # and is empty
        root.rmdir()
    partial.rename(root)


def _write_scene(folder: Path, scene: Scene) -> None:
    for name, frames in scene.clips():
        encode(folder / name, frames)

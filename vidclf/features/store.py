"""The feature store: what a frozen backbone computed once is never computed again.

<root>/<backbone>-<recipe>/recipe.json          everything but the video that can change a feature
<root>/<backbone>-<recipe>/<content>-<t>.safetensors
    rows      (R, t)              the frames of each unit: one of an image backbone, a clip's T
    features  (R, crops, S, D)    in the backbone's own number format
<root>/<backbone>-<recipe>/index.json           the rows of every file as it was last seen
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from vidclf.errors import VidclfError
from vidclf.features.recipe import Recipe
from vidclf.system.disk import write_atomically, writing_to
from vidclf.system.terminal import say

REMEDY = "Free space, or name another folder with store.root=..."

Unit = tuple[int, ...]  # the frames that the backbone takes at once


class FeatureStore:
    """One file a video under `<root>/<backbone>-<recipe>/`; safe for many readers and writers at once.

    A video is known by its `content`, the file's sha256.
    """

    def __init__(self, root: Path, recipe: Recipe, name: str) -> None:
        name = re.sub(r"[^\w.-]+", "-", name).lstrip(".")[:100] or "backbone"
        self.folder = Path(root) / f"{name}-{recipe.digest}"
        self._known: dict[str, list[Unit]] = {}  # by file name, of what was seen or written
        self._seen = False
        with writing_to(self.folder, REMEDY):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "recipe.json").exists():
                _say_of_other_formats(Path(root), name, recipe)
                write_atomically(self.folder / "recipe.json", json.dumps(asdict(recipe), indent=2).encode())

    def missing_of_all(self, wanted: Sequence[tuple[str, Int[Tensor, "_ t"]]]) -> list[Int[Tensor, "_ t"]]:
        """Return of each video the units that are not stored yet, sorted, each once.

        The folder is looked through once; later what is known answers.
        """
        if not self._seen:
            self._see()
        return [self._missing(content, units) for content, units in wanted]

    def read(self, content: str, units: Int[Tensor, "R t"], path: Path | None = None) -> Float[Tensor, "R crops S D"]:
        """Return the features of the units, in their order, in the number format they were computed in.

        Raises:
            VidclfError: a unit is not stored; `path` names the video.
        """
        stored = self._load(self._path(content, units))
        if stored is None:
            raise VidclfError(f"{path or content}: no features in {self.folder}. Run vidclf extract first.")
        if torch.equal(stored["rows"], units):
            return stored["features"]
        position = {tuple(row): index for index, row in enumerate(stored["rows"].tolist())}
        try:
            order = [position[tuple(unit)] for unit in units.tolist()]
        except KeyError as error:
            raise VidclfError(
                f"{path or content}: frames {error} have no features in {self.folder}. Run vidclf extract first."
            ) from None
        return stored["features"].index_select(0, torch.tensor(order))

    def add(self, content: str, units: Int[Tensor, "R t"], features: Float[Tensor, "R crops S D"]) -> None:
        """Merge new units into the video's file: lock, read again, write, sync, rename."""
        path = self._path(content, units)
        with writing_to(self.folder, REMEDY), FileLock(self._lock(content)):
            stored = self._load(path)
            if stored is not None:
                known = set(map(tuple, stored["rows"].tolist()))
                new = [index for index, unit in enumerate(units.tolist()) if tuple(unit) not in known]
                units = torch.cat([stored["rows"], units[new]])
                features = torch.cat([stored["features"], features[new]])
            tensors = {"rows": units.contiguous(), "features": features.contiguous()}
            write_atomically(path, save_safetensors(tensors))
        self._known[path.name] = list(map(tuple, units.tolist()))

    @contextlib.contextmanager
    def computing(self, share: int, shares: int) -> Iterator[None]:
        """Let no other process compute this share of the videos meanwhile; wait for one that does, and say so.

        What it has computed is known afterwards. The lock ends with the `with` block, or with the process.
        """
        lock = FileLock(self.folder / f".computing-{share}-of-{shares}")
        with writing_to(self.folder, REMEDY), contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock.acquire(blocking=False))
            except Timeout:
                say(f"{self.folder}: another process is computing features; waiting for it.")
                stack.enter_context(lock.acquire())
                self._seen, self._known = False, {}
            yield

    def _path(self, content: str, units: Int[Tensor, "R t"]) -> Path:
        return self.folder / f"{content}-{units.shape[1]}.safetensors"

    def _lock(self, content: str) -> Path:
        """Return one of 256 lock files: two videos may share one, no two writers of a video miss each other."""
        locks = self.folder / ".locks"
        locks.mkdir(exist_ok=True)
        return locks / f"{content[:2]}.lock"

    def _missing(self, content: str, units: Int[Tensor, "R t"]) -> Int[Tensor, "M t"]:
        stored = self._known.get(self._path(content, units).name, [])
        wanted = sorted(set(map(tuple, units.tolist())))
        new = wanted if not stored else [] if stored == wanted else sorted(set(wanted).difference(stored))
        return torch.tensor(new, dtype=torch.int64).reshape(-1, units.shape[1])

    def _see(self) -> None:
        """Learn the rows of every file; one that is as the index has it, by size and time, is not opened."""
        index = self._read_index()
        seen: dict[str, list] = {}
        news = False
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if not entry.name.endswith(".safetensors") or entry.name.startswith("."):
                    continue
                status = entry.stat()
                stamp = [status.st_size, status.st_mtime_ns]
                known = index.get(entry.name)
                if not known or known[:2] != stamp:
                    known, news = [*stamp, self._rows(Path(entry.path))], True
                seen[entry.name] = known
        self._known = {name: list(map(tuple, rows)) for name, (_, _, rows) in seen.items()} | self._known
        self._seen = True
        if news or len(seen) != len(index):
            with contextlib.suppress(OSError):  # it only saves time
                write_atomically(self.folder / "index.json", json.dumps(seen).encode())

    def _read_index(self) -> dict[str, list]:
        try:
            index = json.loads((self.folder / "index.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return index if isinstance(index, dict) else {}

    def _rows(self, path: Path) -> list[Unit]:
        """Return the units that a file holds; one that cannot be read holds none."""
        try:
            with safe_open(path, framework="pt") as file:
                return list(map(tuple, file.get_tensor("rows").tolist()))
        except (FileNotFoundError, SafetensorError):
            return []

    def _load(self, path: Path) -> dict[str, Tensor] | None:
        try:
            return load_safetensors(path.read_bytes())
        except (FileNotFoundError, SafetensorError):
            return None


def _say_of_other_formats(root: Path, name: str, recipe: Recipe) -> None:
    """Say that features of another version of the store are there, and are not read."""
    for path in root.glob(f"{name}-*/recipe.json"):
        try:
            other = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(other, dict) and other.get("format") != recipe.format:
            say(
                f"{path.parent}: features in format {other.get('format')} of the store, which this version of vidclf "
                f"does not read (it writes {recipe.format}). They are computed anew; delete the folder to free space."
            )

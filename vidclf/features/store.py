"""The feature store: features of a frozen backbone are computed once.

<root>/<backbone>-<recipe>/recipe.json          everything that can change a feature, except the video
<root>/<backbone>-<recipe>/<content>-<t>.safetensors
    rows      (R, t)              the frames of each unit: one frame, or the T frames of a clip
    features  (R, crops, S, D)    in the number format of the backbone
<root>/<backbone>-<recipe>/index.json           the rows of every file, by size and time
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from vidclf.errors import VidclfError
from vidclf.features.recipe import Recipe
from vidclf.system.disk import locked, write_atomically, writing_to
from vidclf.system.terminal import say

REMEDY = "Free space, or name another folder with store.root=..."

Unit = tuple[int, ...]  # the frames that the backbone computes together


class FeatureStore:
    """One file for each video; safe for several readers and writers at once.

    `content`, the sha256 of the video's file, identifies the video.
    """

    def __init__(self, root: Path, recipe: Recipe, name: str) -> None:
        name = re.sub(r"[^\w.-]+", "-", name).lstrip(".")[:100] or "backbone"
        self.folder = Path(root) / f"{name}-{recipe.digest}"
        self._stored: dict[str, list[Unit]] = {}  # by file name
        self._has_scanned = False
        with writing_to(self.folder, REMEDY):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "recipe.json").exists():
                _report_other_formats(Path(root), name, recipe)
                write_atomically(self.folder / "recipe.json", json.dumps(asdict(recipe), indent=2).encode())

    def missing_of_all(self, wanted: Sequence[tuple[str, Int[Tensor, "_ t"]]]) -> list[Int[Tensor, "_ t"]]:
        """Return the units of each video that are not stored, sorted, without repeats; scan the folder only once."""
        if not self._has_scanned:
            self._scan()
        return [self._missing(content, units) for content, units in wanted]

    def read(self, content: str, units: Int[Tensor, "R t"], path: Path | None = None) -> Float[Tensor, "R crops S D"]:
        """Return the features of the units, in their order and number format.

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
        with writing_to(self.folder, REMEDY), locked(self._lock(content)):
            stored = self._load(path)
            if stored is not None:
                old = set(map(tuple, stored["rows"].tolist()))
                new = [index for index, unit in enumerate(units.tolist()) if tuple(unit) not in old]
                units = torch.cat([stored["rows"], units[new]])
                features = torch.cat([stored["features"], features[new]])
            tensors = {"rows": units.contiguous(), "features": features.contiguous()}
            write_atomically(path, save_safetensors(tensors))
        self._stored[path.name] = list(map(tuple, units.tolist()))

    @contextlib.contextmanager
    def computing(self, share: int, shares: int) -> Iterator[None]:
        """Lock a share of the videos while its features are computed; scan again if another process held the lock."""
        path = self.folder / f".computing-{share}-of-{shares}"
        waiting_message = f"{self.folder}: another process is computing features; waiting for it."
        with writing_to(self.folder, REMEDY), locked(path, waiting_message) as has_waited:
            if has_waited:
                self._has_scanned, self._stored = False, {}
            yield

    def _path(self, content: str, units: Int[Tensor, "R t"]) -> Path:
        return self.folder / f"{content}-{units.shape[1]}.safetensors"

    def _lock(self, content: str) -> Path:
        """Return one of 256 lock files; all writers of a video use the same one."""
        locks = self.folder / ".locks"
        locks.mkdir(exist_ok=True)
        return locks / f"{content[:2]}.lock"

    def _missing(self, content: str, units: Int[Tensor, "R t"]) -> Int[Tensor, "M t"]:
        stored = self._stored.get(self._path(content, units).name, [])
        wanted = sorted(set(map(tuple, units.tolist())))
        new = [] if stored == wanted else sorted(set(wanted).difference(stored))
        return torch.tensor(new, dtype=torch.int64).reshape(-1, units.shape[1])

    def _scan(self) -> None:
        """Read the rows of every file, from the index if the file's size and time are unchanged."""
        index = self._read_index()
        entries: dict[str, list] = {}
        with os.scandir(self.folder) as files:
            for file in files:
                if not file.name.endswith(".safetensors") or file.name.startswith("."):
                    continue
                status = file.stat()
                stamp = [status.st_size, status.st_mtime_ns]
                entry = index.get(file.name)
                entries[file.name] = entry if entry and entry[:2] == stamp else [*stamp, self._rows(Path(file.path))]
        self._stored = {name: list(map(tuple, rows)) for name, (_, _, rows) in entries.items()} | self._stored
        self._has_scanned = True
        if entries != index:
            with contextlib.suppress(OSError):  # the index only saves time
                write_atomically(self.folder / "index.json", json.dumps(entries).encode())

    def _read_index(self) -> dict[str, list]:
        try:
            index = json.loads((self.folder / "index.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return index if isinstance(index, dict) else {}

    def _rows(self, path: Path) -> list[list[int]]:
        """Return the units in a file, as lists; none if it cannot be read."""
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor("rows").tolist()
        except (FileNotFoundError, SafetensorError):
            return []

    def _load(self, path: Path) -> dict[str, Tensor] | None:
        try:
            return load_safetensors(path.read_bytes())
        except (FileNotFoundError, SafetensorError):
            return None


def _report_other_formats(root: Path, name: str, recipe: Recipe) -> None:
    """Say which folders hold features of another version of the store."""
    for path in root.glob(f"{name}-*/recipe.json"):
        try:
            old = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(old, dict) and old.get("format") != recipe.format:
            say(
                f"{path.parent}: features in format {old.get('format')} of the store, which this version of vidclf "
                f"does not read (it writes {recipe.format}). They are computed again; delete the folder to free space."
            )

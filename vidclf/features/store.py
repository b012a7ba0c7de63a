"""The feature store: features of a frozen backbone are computed once.

<root>/<backbone>-<recipe>/recipe.json          everything that can change a feature, except the video
<root>/<backbone>-<recipe>/ab/<content>-<t>.safetensors     `ab`: the first two digits of the content
    rows      (R, t)              the frames of each unit: one frame, or the T frames of a clip
    features  (R, crops, S, D)    in the number format of the backbone
    metadata: checksum            of both tensors
<root>/<backbone>-<recipe>/index.sqlite         the rows of every file, by its size and time

Earlier versions kept all files in one folder, without a checksum. They are read, and moved when units are added.
"""

import contextlib
import json
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from vidclf.errors import VidclfError
from vidclf.features.recipe import Recipe
from vidclf.system.disk import check_links, locked, write_atomically, writing_to
from vidclf.system.records import Records
from vidclf.system.terminal import say

REMEDY = "Free space, or name another folder with store.root=..."
SAVE_EVERY = 500  # rows of the index are written at once


class FeatureError(VidclfError):
    """A file of the store is not as it was written."""


class FeatureStore:
    """One file for each video; safe for several readers and writers at once.

    `content`, the sha256 of the video's file, identifies the video.

    Args:
        root: holds a folder for each recipe.
        recipe: of the features.
        name: of the backbone.
        shape: the number of crops and D, if they are known; features of another shape count as damaged.
    """

    def __init__(self, root: Path, recipe: Recipe, name: str, shape: tuple[int, int] | None = None) -> None:
        self.shape = shape
        name = re.sub(r"[^\w.-]+", "-", name).lstrip(".")[:100] or "backbone"
        self.folder = Path(root) / f"{name}-{recipe.digest}"
        self._index = Records(self.folder / "index.sqlite", REMEDY, _is_entry)
        self._unsaved: dict[str, list] = {}  # of the index
        with writing_to(self.folder, REMEDY):
            self.folder.mkdir(parents=True, exist_ok=True)
            check_links(self.folder, within=Path(root))
            if not (self.folder / "recipe.json").exists():
                write_atomically(self.folder / "recipe.json", json.dumps(asdict(recipe), indent=2).encode())

    def missing_of_all(self, wanted: Sequence[tuple[str, Int[Tensor, "_ t"]]]) -> list[Int[Tensor, "_ t"]]:
        """Return the units of each video that are not stored, sorted, without repeats.

        Files that the index does not know are read. Damaged ones are reported, and their units are missing.
        """
        self._save_index()
        entries = self._index.get(_name(content, units.shape[1]) for content, units in wanted)
        missing, nothing = [], cache(lambda length: torch.empty(0, length, dtype=torch.int64))
        for (content, units), entry in zip(wanted, entries, strict=True):
            stored = map(tuple, self._stored_rows(self._path(content, units.shape[1]), entry))
            new = sorted(set(map(tuple, units.tolist())).difference(stored))
            missing.append(torch.tensor(new, dtype=torch.int64) if new else nothing(units.shape[1]))
        self._save_index()
        return missing

    def read(self, content: str, units: Int[Tensor, "R t"], path: Path | None = None) -> Float[Tensor, "R crops S D"]:
        """Return the features of the units, in their order and number format.

        Raises:
            FeatureError: the file was not as it was written, and is removed.
            VidclfError: a unit is not stored; `path` names the video.
        """
        file = self._path(content, units.shape[1])
        try:
            stored = _load(file, self.shape)
        except FeatureError:
            with contextlib.suppress(OSError):
                file.unlink()
            raise
        if stored is None:
            raise VidclfError(f"{path or content}: no features in {self.folder}. Run vidclf extract first.")
        rows, features = stored
        if torch.equal(rows, units):
            return features
        position = {tuple(row): index for index, row in enumerate(rows.tolist())}
        try:
            order = [position[tuple(unit)] for unit in units.tolist()]
        except KeyError as error:
            raise VidclfError(
                f"{path or content}: frames {error} have no features in {self.folder}. Run vidclf extract first."
            ) from None
        return features.index_select(0, torch.tensor(order))

    def find(self, content: str, units: Int[Tensor, "R t"]) -> Float[Tensor, "R crops S D"] | None:
        """Return what `read` does, or None where a unit is not stored; a damaged file is reported and removed."""
        try:
            return self.read(content, units)
        except FeatureError as error:
            say(f"{error} They are computed anew.")
        except VidclfError:
            pass
        return None

    def add(self, content: str, units: Int[Tensor, "R t"], features: Float[Tensor, "R crops S D"]) -> None:
        """Merge new units into the video's file: lock, read again, write, sync, rename."""
        length = units.shape[1]
        folder = self.folder / content[:2]
        with writing_to(self.folder, REMEDY), locked(self._lock(content)):
            folder.mkdir(exist_ok=True)
            old_path, path = self._path(content, length), folder / _name(content, length)
            with contextlib.suppress(FeatureError):
                if stored := _load(old_path, self.shape):
                    old_rows, old_features = stored
                    old = set(map(tuple, old_rows.tolist()))
                    new = [index for index, unit in enumerate(units.tolist()) if tuple(unit) not in old]
                    units = torch.cat([old_rows, units[new]])
                    features = torch.cat([old_features, features[new]])
            tensors = {"rows": units.contiguous(), "features": features.contiguous()}
            write_atomically(path, save_safetensors(tensors, metadata={"checksum": _checksum(**tensors)}))
            self._remember(path, units)
            if old_path != path:
                old_path.unlink()
        if len(self._unsaved) >= SAVE_EVERY:
            self._save_index()

    @contextlib.contextmanager
    def computing(self, share: int, shares: int) -> Iterator[None]:
        """Lock a share of the videos while its features are computed."""
        path = self.folder / f".computing-{share}-of-{shares}"
        waiting_message = f"{self.folder}: another process is computing features; waiting for it."
        with writing_to(self.folder, REMEDY), locked(path, waiting_message):
            try:
                yield
            finally:
                self._save_index()

    def _path(self, content: str, length: int) -> Path:
        """Return where a video's file is, or will be."""
        name = _name(content, length)
        path, flat = self.folder / content[:2] / name, self.folder / name
        return flat if flat.exists() and not path.exists() else path

    def _lock(self, content: str) -> Path:
        """Return one of 256 lock files; all writers of a video use the same one."""
        locks = self.folder / ".locks"
        locks.mkdir(exist_ok=True)
        return locks / f"{content[:2]}.lock"

    def _stored_rows(self, path: Path, entry: list | None) -> list[list[int]]:
        """Return the units in a file: from its entry in the index if it has not changed since, else by reading it."""
        try:
            status = path.lstat()
        except OSError:
            return []
        if entry and entry[:2] == [status.st_size, status.st_mtime_ns]:
            return entry[2]
        try:
            stored = _load(path, self.shape)
        except FeatureError as error:
            say(f"{error} They are computed anew.")
            return []
        return self._remember(path, stored[0]) if stored else []

    def _remember(self, path: Path, units: Int[Tensor, "R t"]) -> list[list[int]]:
        status, rows = path.lstat(), units.tolist()
        self._unsaved[path.name] = [status.st_size, status.st_mtime_ns, rows]
        return rows

    def _save_index(self) -> None:
        unsaved, self._unsaved = self._unsaved, {}
        with contextlib.suppress(VidclfError):  # the index only saves time
            if unsaved:
                self._index.put(dict(unsaved))  # another thread may still hold it


def _is_entry(value: Any) -> bool:
    """Return whether a value of the index is a file's [size, time in ns, rows]."""
    return (
        isinstance(value, list)
        and [*map(type, value)] == [int, int, list]
        and all(isinstance(row, list) and {*map(type, row)} <= {int} for row in value[2])
    )


def _name(content: str, length: int) -> str:
    return f"{content}-{length}.safetensors"


def _load(path: Path, shape: tuple[int, int] | None) -> tuple[Int[Tensor, "R t"], Float[Tensor, "R crops S D"]] | None:
    """Return the rows and features of a file, or None if there is none.

    Raises:
        FeatureError: the file is not as it was written.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # reading a pipe would wait forever, a link may lead anywhere
            raise ValueError("not a file")
        content = path.read_bytes()
        tensors = load_safetensors(content)
        rows, features = tensors["rows"], tensors["features"]
        _check_shapes(rows, features, int(path.stem.rpartition("-")[2]), shape)
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
        has_none = "checksum" not in metadata and path.parent.name != path.name[:2]  # from an earlier version
        if not has_none and metadata.get("checksum") != _checksum(rows, features):
            raise ValueError("wrong checksum")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise FeatureError(f"{path}: the stored features are damaged ({error}).") from error
    return rows, features


def _check_shapes(rows: Tensor, features: Tensor, length: int, shape: tuple[int, int] | None) -> None:
    """Raise ValueError unless the tensors are rows of `length` frames and features of the `shape` (crops, D)."""
    is_table = rows.dtype == torch.int64 and rows.ndim == 2 and rows.shape[1] == length
    are_features = features.is_floating_point() and features.ndim == 4 and len(features) == len(rows)
    if not is_table or not are_features or (shape and (features.shape[1], features.shape[3]) != shape):
        raise ValueError(f"rows {rows.dtype} {tuple(rows.shape)}, features {features.dtype} {tuple(features.shape)}")


def _checksum(rows: Tensor, features: Tensor) -> str:
    """Return the CRC-32 of two tensors with their types and shapes, in hex."""
    checksum = 0
    for tensor in (rows, features):
        checksum = zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(tensor.view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"

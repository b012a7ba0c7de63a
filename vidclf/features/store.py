"""The feature store: what a frozen backbone computed once is never computed again.

<root>/videos.json                              what is known of each video file
<root>/<backbone>-<recipe>/recipe.json          everything but the video that can change a feature
<root>/<backbone>-<recipe>/<content>-<t>.safetensors
    rows      (R, t)              the frames of each unit: one of a picture backbone, a clip's T
    features  (R, crops, S, D)    in the backbone's own number format
<root>/<backbone>-<recipe>/index.json           the rows of every file as it was last seen
"""

import contextlib
import errno
import hashlib
import inspect
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import torch
from filelock import FileLock
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from vidclf.contracts import PictureFormat, Transform
from vidclf.errors import VidclfError
from vidclf.system.disk import empty_on_disk, write_atomically, writing_to
from vidclf.system.machine import free_memory
from vidclf.system.ranks import num_here
from vidclf.system.terminal import say

try:
    import fcntl
except ImportError:  # Windows: nothing is claimed, so two runs at once may compute the same
    fcntl = None  # type: ignore[assignment]

FORMAT = 1  # of the files; another number never reads these
REMEDY = "Free space, or name another folder with store.root=..."
LIBRARIES = {"vidclf", "torch", "torchvision", *sys.stdlib_module_names}  # others are their user's to change

Unit = tuple[int, ...]  # the frames that the backbone takes at once


@dataclass(frozen=True)
class Recipe:
    """Everything but the video that can change a feature."""

    backbone: str
    weights: str
    precision: str
    transform: str
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """Twelve hex digits of its sha256."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class Request:
    """The units of one video whose features are wanted: rows of frame indices, each (t,)."""

    path: Path
    units: Int[Tensor, "R t"]
    content: str = ""  # the file's sha256, which the store keys on


def why_not_stored(backbone: nn.Module, transform: Transform) -> str | None:
    """Return why features of these cannot be kept, or None if they can."""
    if any(parameter.requires_grad for parameter in backbone.parameters()):
        return "the backbone is trained, so its features change"
    if transform.random:
        return f"{type(transform).__name__} draws by chance, so its pictures change"
    try:
        names = {"make it a dataclass": _name_transform(transform), "see extra_repr": _name_backbone(backbone)}
    except (OSError, TypeError) as error:
        return f"the source of a class cannot be read, so changes to it would go unseen ({error})"
    for remedy, name in names.items():
        if " at 0x" in name:
            return f"{name.split()[0]} has no repr that names its settings ({remedy})"
    return None


def recipe_of(backbone: nn.Module, weights_hash: str, transform: Transform) -> Recipe:
    """Return what the store keys on; call `why_not_stored` first."""
    return Recipe(
        backbone=_name_backbone(backbone),
        weights=weights_hash,
        precision=getattr(backbone, "precision", "float32"),
        transform=_name_transform(transform),
    )


def hash_weights(module: nn.Module) -> str:
    """Return the sha256 of every parameter and buffer, names and bytes, in hex."""
    digest = hashlib.sha256()
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _name_transform(transform: Transform) -> str:
    return f"{_name_classes([transform])} {transform!r}"


def _name_backbone(backbone: nn.Module) -> str:
    """Name a backbone by its classes, its layers, and the settings of its user's own modules.

    A setting is an attribute called as an argument of the constructor; torch's own show theirs in their repr.
    """
    own = [module for module in backbone.modules() if _is_own(type(module))]
    settings = [
        {name: vars(module)[name] for name in inspect.signature(type(module)).parameters if name in vars(module)}
        for module in own
    ]
    return f"{_name_classes([backbone, *own])} {backbone!r} {settings}"


def _name_classes(parts: Iterable[object]) -> str:
    """Name the first part's class, and the source of all classes that are their user's own, who changes them."""
    kinds = list(dict.fromkeys(kind for part in parts for kind in type(part).__mro__))
    modules = dict.fromkeys(kind.__module__ for kind in kinds if _is_own(kind))
    sources = "".join(inspect.getsource(sys.modules[module]) for module in modules)
    name = f"{kinds[0].__module__}.{kinds[0].__qualname__}"
    return f"{name} {hashlib.sha256(sources.encode()).hexdigest()}" if sources else name


def _is_own(kind: type) -> bool:
    return kind.__module__.partition(".")[0] not in LIBRARIES


def units_of(frames: Int[Tensor, "V T"], picture_format: PictureFormat) -> Int[Tensor, "R t"]:
    """Return what the backbone consumes: single frames (V*T, 1), or a clip backbone's clips (V, T)."""
    return frames.reshape(-1, 1) if picture_format.clip_length == 1 else frames


def views_of(features: Float[Tensor, "R crops S D"], num_views: int) -> Float[Tensor, "views steps D"]:
    """Return the features of units, all those of a view behind one another: the way back from `units_of`."""
    steps = features.unflatten(0, (num_views, -1))  # (V, units of a view, crops, S, D)
    return steps.transpose(1, 2).flatten(2, 3).flatten(0, 1)


class FeatureStore:
    """One file a video under `<root>/<backbone>-<recipe>/`; safe for many readers and writers at once."""

    def __init__(self, root: Path, recipe: Recipe, name: str) -> None:
        self.folder = Path(root) / f"{name}-{recipe.digest}"
        self._known: dict[str, list[Unit]] = {}  # by file name, of what was seen or written
        self._seen = False
        self._claims: int | None = None
        with writing_to(self.folder, REMEDY):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "recipe.json").exists():
                _say_of_other_formats(Path(root), name, recipe)
                write_atomically(self.folder / "recipe.json", json.dumps(asdict(recipe), indent=2).encode())

    def missing(self, request: Request) -> Int[Tensor, "M t"]:
        """Return the units of `request` that are not stored yet, by a look at its file; sorted, each once."""
        path = self._path(request.content, request.units)
        self._known[path.name] = self._rows(path)
        return self._missing(request)

    def missing_of_all(self, requests: Sequence[Request]) -> list[Int[Tensor, "M t"]]:
        """Return `missing` of each. The folder is looked through once; later what is known answers."""
        if not self._seen:
            self._see()
        return [self._missing(request) for request in requests]

    def read(self, request: Request) -> Float[Tensor, "R crops S D"]:
        """Return the features of the units, in their order, in the number format they were computed in.

        Raises:
            VidclfError: a unit is not stored.
        """
        stored = self._load(self._path(request.content, request.units))
        if stored is None:
            raise VidclfError(f"{request.path}: no features in {self.folder}. Run vidclf extract first.")
        if torch.equal(stored["rows"], request.units):
            return stored["features"]
        position = {tuple(row): index for index, row in enumerate(stored["rows"].tolist())}
        try:
            order = [position[tuple(unit)] for unit in request.units.tolist()]
        except KeyError as error:
            raise VidclfError(
                f"{request.path}: frames {error} have no features in {self.folder}. Run vidclf extract first."
            ) from None
        return stored["features"].index_select(0, torch.tensor(order))

    def gather(
        self, requests: Sequence[Request], counts: Sequence[int], num_crops: int, device: torch.device
    ) -> Float[Tensor, "N S D"]:
        """Return the features of the views of many videos, behind one another; `counts` says how many each has.

        They are in one tensor, and never in memory twice: a mapped file where it would take more than half of the
        free memory, and on a GPU where that has room.

        Raises:
            VidclfError: a unit is not stored, or neither memory nor disk has room.
        """
        first = views_of(self.read(requests[0]), counts[0])
        shape = (sum(counts) * num_crops, *first.shape[1:])
        num_bytes = first[0].nbytes * shape[0]
        if num_bytes > free_memory() / 2 / num_here():
            features = empty_on_disk(self.folder, shape, first.dtype, REMEDY)
        else:
            features = first.new_empty(shape)
        end = 0
        for request, count in zip(requests, counts, strict=True):
            views = views_of(self.read(request), count)
            features[end : end + len(views)] = views
            end += len(views)
        fits = device.type == "cuda" and num_bytes < torch.cuda.mem_get_info(device)[0] / 2
        return features.to(device) if fits else features

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

    def claim(self, content: str, wait: bool = False) -> bool:
        """Say to other processes, on any machine, that this one computes a video; False if another has said so.

        The claim ends with `release`, or with the process. One that is refused by the file system counts as given:
        then two processes may compute the same, and both results are stored right.
        """
        if fcntl is None:
            return True
        if self._claims is None:
            with writing_to(self.folder, REMEDY):
                self._claims = os.open(self.folder / ".claims", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, _place(content))
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        return True

    def release(self, content: str) -> None:
        """End a claim."""
        if fcntl is not None and self._claims is not None:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, _place(content))

    def _path(self, content: str, units: Int[Tensor, "R t"]) -> Path:
        return self.folder / f"{content}-{units.shape[1]}.safetensors"

    def _lock(self, content: str) -> Path:
        """Return one of 256 lock files: two videos may share one, no two writers of a video miss each other."""
        locks = self.folder / ".locks"
        locks.mkdir(exist_ok=True)
        return locks / f"{content[:2]}.lock"

    def _missing(self, request: Request) -> Int[Tensor, "M t"]:
        stored = self._known.get(self._path(request.content, request.units).name, [])
        wanted = sorted(set(map(tuple, request.units.tolist())))
        new = wanted if not stored else [] if stored == wanted else sorted(set(wanted).difference(stored))
        return torch.tensor(new, dtype=torch.int64).reshape(-1, request.units.shape[1])

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


def _place(content: str) -> int:
    """Return the byte of the claims file that stands for a video."""
    return int(content[:15], 16) if content else 0


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

"""The feature store: what a frozen backbone computed once is never computed again.

<root>/videos.json                              what is known of each video file
<root>/<backbone>-<recipe>/recipe.json          everything but the video that can change a feature
<root>/<backbone>-<recipe>/<content>-<t>.safetensors
    rows      (R, t)              the frames of each unit: one of a picture backbone, a clip's T
    features  (R, crops, S, D)    in the backbone's own number format
"""

import hashlib
import inspect
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator
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

from vidclf.data.decoding import iterate_frames
from vidclf.data.prefetch import run_ahead
from vidclf.data.transforms import Transform
from vidclf.data.video import VideoError
from vidclf.disk import write_atomically, writing_to
from vidclf.errors import VidclfError
from vidclf.models.backbones.frozen import FRAMES_PER_BATCH, Frozen
from vidclf.models.backbones.preset import Preset
from vidclf.models.backbones.trained import Trained

FORMAT = 1  # of the files; another number never reads these
REMEDY = "Free space, or name another folder with store.root=..."
LIBRARIES = {"vidclf", "torch", "torchvision", *sys.stdlib_module_names}  # others are their user's to change


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


def units_of(frames: Int[Tensor, "V T"], preset: Preset) -> Int[Tensor, "R t"]:
    """Return what the backbone consumes: single frames (V*T, 1), or a clip backbone's clips (V, T)."""
    return frames.reshape(-1, 1) if preset.clip_length == 1 else frames


def views_of(features: Float[Tensor, "R crops S D"], num_views: int) -> Float[Tensor, "views steps D"]:
    """Return the features of units, all those of a view behind one another: the way back from `units_of`."""
    steps = features.unflatten(0, (num_views, -1))  # (V, units of a view, crops, S, D)
    return steps.transpose(1, 2).flatten(2, 3).flatten(0, 1)


class FeatureStore:
    """One file a video under `<root>/<backbone>-<recipe>/`; safe for many readers and writers at once."""

    def __init__(self, root: Path, recipe: Recipe, name: str) -> None:
        self.folder = Path(root) / f"{name}-{recipe.digest}"
        with writing_to(self.folder, REMEDY):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "recipe.json").exists():
                write_atomically(self.folder / "recipe.json", json.dumps(asdict(recipe), indent=2).encode())

    def missing(self, request: Request) -> Int[Tensor, "M t"]:
        """Return the units of `request` that are not stored yet, sorted, each once."""
        wanted = torch.unique(request.units, dim=0)
        stored = set(map(tuple, self._rows(self._path(request.content, request.units)).tolist()))
        return wanted[[index for index, unit in enumerate(wanted.tolist()) if tuple(unit) not in stored]]

    def read(self, request: Request) -> Float[Tensor, "R crops S D"]:
        """Return the features of the units, in their order, in the number format they were computed in.

        Raises:
            VidclfError: a unit is not stored.
        """
        stored = self._load(self._path(request.content, request.units))
        if stored is None:
            raise VidclfError(f"{request.path}: no features in {self.folder}. Run vidclf extract first.")
        position = {tuple(row): index for index, row in enumerate(stored["rows"].tolist())}
        try:
            order = [position[tuple(unit)] for unit in request.units.tolist()]
        except KeyError as error:
            raise VidclfError(
                f"{request.path}: frames {error} have no features in {self.folder}. Run vidclf extract first."
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

    def _path(self, content: str, units: Int[Tensor, "R t"]) -> Path:
        return self.folder / f"{content}-{units.shape[1]}.safetensors"

    def _lock(self, content: str) -> Path:
        """Return one of 256 lock files: two videos may share one, no two writers of a video miss each other."""
        locks = self.folder / ".locks"
        locks.mkdir(exist_ok=True)
        return locks / f"{content[:2]}.lock"

    def _rows(self, path: Path) -> Int[Tensor, "R t"]:
        """Return the units that a file holds; one that cannot be read holds none."""
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor("rows")
        except (FileNotFoundError, SafetensorError):
            return torch.empty(0, 1, dtype=torch.int64)

    def _load(self, path: Path) -> dict[str, Tensor] | None:
        try:
            return load_safetensors(path.read_bytes())
        except (FileNotFoundError, SafetensorError):
            return None


def compute_features(
    requests: Iterable[Request],
    transform: Transform,
    backbone: Frozen | Trained,
    device: torch.device,
    num_threads: int = 2,
) -> Iterator[tuple[Request, Float[Tensor, "R crops S D"] | VideoError]]:
    """Yield the features of each request, on the CPU, or what is wrong with its video, in order.

    Decoding runs ahead in threads; batches are filled across videos.
    """
    backbone.to(device).eval()
    assembly = _Assembly(backbone, device)

    def decode(request: Request) -> Iterator[tuple[Tensor, Tensor] | VideoError | None]:
        try:
            yield from pictures_of(request.path, request.units, transform)
            yield None
        except VideoError as error:
            yield error

    for request, result in run_ahead(decode, requests, num_threads):
        if isinstance(result, tuple):
            assembly.add(*result)
        else:
            assembly.end(request, result)
        yield from assembly.finished()
    assembly.flush()
    yield from assembly.finished()


def pictures_of(
    path: Path, units: Int[Tensor, "R t"], transform: Transform
) -> Iterator[tuple[Int[Tensor, " r"], Float[Tensor, "r crops t 3 h w"]]]:
    """Yield (positions in `units`, their pictures), a few units at a time, decoding the video once.

    Frames are kept only as long as a later unit needs them.
    """
    order = units.amax(dim=1).argsort(stable=True)
    stream = iterate_frames(path, units.unique().tolist())
    frames: dict[int, Tensor] = {}
    for chunk in order.split(max(1, FRAMES_PER_BATCH // units.shape[1])):
        last = int(units[chunk].max())
        while last not in frames:
            index, frame = next(stream)
            frames[index] = frame
        views = torch.stack([frames[index] for index in units[chunk].flatten().tolist()])
        views = views.unflatten(0, (len(chunk), -1))  # (r, t, 3, H, W)
        yield chunk, transform(views).unflatten(0, (len(chunk), -1))
        order = order[len(chunk) :]
        needed = set(units[order].flatten().tolist())
        frames = {index: frame for index, frame in frames.items() if index in needed}
    for _ in stream:  # to the file's end: damage behind the last wanted frame is damage
        pass


class _Assembly:
    """Pictures of many videos go in, full batches go through the backbone, whole requests come out."""

    def __init__(self, backbone: Frozen | Trained, device: torch.device) -> None:
        self.backbone, self.device = backbone, device
        self.pictures: list[Tensor] = []  # waiting for a full batch, each (n, t, 3, h, w)
        self.features: list[Tensor] = []  # of requests not yet handed out, each (n, S, D)
        self.positions: list[Tensor] = []  # of the request that is being decoded
        self.crops = 1
        self.ended: deque[tuple[Request, list[Tensor], VideoError | None]] = deque()

    def add(self, positions: Tensor, pictures: Tensor) -> None:
        """Take some units' pictures (r, crops, t, 3, h, w) of the request that is being decoded."""
        self.positions.append(positions)
        self.crops = pictures.shape[1]
        self.pictures.append(pictures.flatten(0, 1))
        full = max(1, FRAMES_PER_BATCH // pictures.shape[2])
        if sum(map(len, self.pictures)) >= full:
            waiting = torch.cat(self.pictures)
            whole = len(waiting) - len(waiting) % full
            self._run(waiting[:whole])
            self.pictures = [waiting[whole:]]

    def end(self, request: Request, error: VideoError | None) -> None:
        """Close the request that is being decoded."""
        self.ended.append((request, self.positions, error))
        self.positions = []

    def flush(self) -> None:
        """Run what does not fill a batch."""
        if self.pictures:
            self._run(torch.cat(self.pictures))
            self.pictures = []

    def finished(self) -> Iterator[tuple[Request, Tensor | VideoError]]:
        """Hand out the requests whose features are all there."""
        while self.ended:
            request, positions, error = self.ended[0]
            count = self.crops * sum(map(len, positions))
            if count > sum(map(len, self.features)):
                return
            self.ended.popleft()
            features = torch.cat(self.features) if self.features else torch.empty(0)
            self.features = [features[count:]]
            if error is not None:
                yield request, error
                continue
            by_position = torch.cat(positions).argsort()
            yield request, features[:count].unflatten(0, (-1, self.crops))[by_position]

    def _run(self, pictures: Tensor) -> None:
        if len(pictures):
            self.features.append(self.backbone(pictures.to(self.device)).cpu())

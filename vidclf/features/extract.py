"""From video files to features: decoding in threads, one backbone, batches filled across videos, a store filled."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vidclf.contracts import Transform, VideoError, death_of
from vidclf.data.decoding import iterate_frames
from vidclf.data.prefetch import run_ahead
from vidclf.data.transforms import halves_of
from vidclf.errors import VidclfError
from vidclf.features.store import REMEDY, FeatureStore, Request
from vidclf.models.backbones.trained import Trained
from vidclf.models.backbones.wrapped import FRAMES_PER_BATCH, Frozen
from vidclf.system.disk import require_space
from vidclf.system.machine import has_matrix_units
from vidclf.system.ranks import rank_and_size
from vidclf.system.terminal import say, track

Result = Float[Tensor, "R crops S D"] | VideoError

WRITERS = 2  # threads that write to the store; each video is synced to the disk, which takes as long as a batch may
COMPILE = ("auto", True, False)
# Floating-point operations from which on compiling pays, which takes half a minute. VGG16 is then 19 % faster with AMX
# (read, not measured), and no faster on a CPU without (measured: never compiled there); on a GPU it is an estimate.
WORTH_COMPILING = {"cpu": 5e14, "cuda": 3e16}


def fill_store(
    store: FeatureStore,
    requests: Sequence[Request],
    transform: Transform,
    backbone: Frozen | Trained,
    device: torch.device,
    num_threads: int = 2,
    compile: str | bool = "auto",
) -> Iterator[tuple[Request, int | VideoError]]:
    """Compute what is missing, with a bar; yield what was, with the number of units computed here or what is wrong.

    Of several processes that work as one, each begins with videos of its own and then takes what the others have not
    begun, so that none waits long, and all know in the end what failed.

    Raises:
        VidclfError: the disk has no room for it.
    """
    missing = {
        request: len(units)
        for request, units in zip(requests, store.missing_of_all(requests), strict=True)
        if len(units)
    }
    if not missing:
        return
    picture_format, num_units = backbone.picture_format, sum(missing.values())
    num_bytes = 2 if getattr(backbone.backbone, "precision", "float32") == "bfloat16" else 4
    require_space(store.folder, num_units * backbone.feature_dim * transform.num_crops * num_bytes, REMEDY)
    if isinstance(backbone, Frozen):
        shape = (picture_format.clip_length, 3, picture_format.size, picture_format.size)
        compile_if_it_pays(backbone, shape, num_units * transform.num_crops, device, compile)
    compute = partial(compute_features, transform=transform, backbone=backbone, device=device, num_threads=num_threads)
    (rank, size), todo = rank_and_size(), list(missing)
    own_first = [request for first in range(size) for request in todo[(rank + first) % size :: size]]
    results = fill(store, own_first, compute)
    unit = "frames" if picture_format.clip_length == 1 else "clips"
    yield from track(results, len(todo), "Extracting features of", "videos", unit, lambda result: missing[result[0]])


def fill(
    store: FeatureStore, requests: Sequence[Request], compute: Callable[[Iterable[Request]], Iterator]
) -> Iterator[tuple[Request, int | VideoError]]:
    """Compute and store what is missing; yield each request once, with the number of units computed for it.

    A video that another process is working on is left to it, and looked at again in the end. Results are written by
    threads, so that the backbone does not wait for the disk.

    Args:
        requests: at most one a video.
        compute: `compute_features`, all but its requests given.
    """
    waiting = list(requests)
    while waiting:
        elsewhere: list[Request] = []
        there: deque[Request] = deque()  # what another process has computed by now
        yield from _fill_claimed(store, waiting, compute, elsewhere, there)
        if len(elsewhere) == len(waiting):
            if rank_and_size()[1] == 1:
                say(f"{len(elsewhere)} videos are computed by another process; waiting for it.")
            store.claim(elsewhere[0].content, wait=True)
            store.release(elsewhere[0].content)
        waiting = elsewhere


def _fill_claimed(
    store: FeatureStore,
    requests: Iterable[Request],
    compute: Callable[[Iterable[Request]], Iterator],
    elsewhere: list[Request],
    there: deque[Request],
) -> Iterator[tuple[Request, int | VideoError]]:
    asked: dict[Request, Request] = {}  # what is computed -> what was asked for
    writing: deque[tuple[Request, int, Future]] = deque()

    def claimed() -> Iterator[Request]:
        for request in requests:
            if not store.claim(request.content):
                elsewhere.append(request)
                continue
            units = store.missing(request)  # again: it may have been computed since
            if len(units):
                new = replace(request, units=units)
                asked[new] = request
                yield new
            else:
                store.release(request.content)
                there.append(request)

    def written(at_most: int) -> Iterator[tuple[Request, int]]:
        while writing and (len(writing) > at_most or writing[0][2].done()):
            request, num_units, future = writing.popleft()
            future.result()  # a full disk
            yield request, num_units

    def write(request: Request, features: Tensor) -> None:
        try:
            store.add(request.content, request.units, features)
        finally:
            store.release(request.content)

    try:
        with ThreadPoolExecutor(WRITERS, thread_name_prefix="write") as pool:
            for request, result in compute(claimed()):
                if isinstance(result, VideoError):
                    store.release(request.content)
                    yield asked.pop(request), result
                else:
                    writing.append((asked.pop(request), len(request.units), pool.submit(write, request, result)))
                yield from written(at_most=2 * WRITERS)
                yield from ((there.popleft(), 0) for _ in range(len(there)))
            yield from written(at_most=0)
            yield from ((there.popleft(), 0) for _ in range(len(there)))
    finally:
        for request in asked:
            store.release(request.content)


def compute_features(
    requests: Iterable[Request],
    transform: Transform,
    backbone: Frozen | Trained,
    device: torch.device,
    num_threads: int = 2,
) -> Iterator[tuple[Request, Result]]:
    """Yield the features of each request, on the CPU, or what is wrong with its video, in order.

    Decoding runs ahead in threads; frames are handed over as bytes, where the transform can be halved; batches are
    filled across videos.
    """
    backbone.to(device).eval()
    crop, normalize = halves_of(transform)
    assembly = _Assembly(backbone, normalize, device)

    def decode(request: Request) -> Iterator[tuple[Tensor, Tensor] | VideoError | None]:
        try:
            yield from pictures_of(request.path, request.units, crop)
            yield None
        except VideoError as error:
            yield error
        except VidclfError:
            raise
        except Exception as error:  # a worker's death is its video's
            yield death_of(request.path, error)

    for request, result in run_ahead(decode, requests, num_threads):
        if isinstance(result, tuple):
            assembly.add(*result)
        else:
            assembly.end(request, result)
        yield from assembly.finished()
    assembly.flush()
    yield from assembly.finished()


def compile_if_it_pays(
    backbone: Frozen, pictures_shape: Sequence[int], num_pictures: int, device: torch.device, choice: str | bool
) -> None:
    """Compile the backbone by torch.compile where `choice` says so, or where `auto` finds enough work.

    Args:
        pictures_shape: (t, 3, h, w) of one unit.
        num_pictures: how many units there are to compute.

    Raises:
        VidclfError: `choice` is none of auto, true, false.
    """
    if choice not in COMPILE:
        raise VidclfError(f"compile={choice}: allowed are auto, true, false.")
    backbone.to(device)
    one = torch.zeros(1, *pictures_shape, device=device)
    if choice is False or (choice == "auto" and not _is_enough(backbone, one, num_pictures)):
        return
    backbone.compile_layers(one)


def _is_enough(backbone: Frozen, one: Tensor, num_pictures: int) -> bool:
    threshold = WORTH_COMPILING.get(one.device.type)
    if threshold is None or num_pictures < 1000:  # no network is so large
        return False
    if one.device.type == "cpu" and not has_matrix_units():
        return False
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.backbone(one)
    return counter.get_total_flops() * num_pictures >= threshold


def pictures_of(
    path: Path, units: Int[Tensor, "R t"], crop: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Int[Tensor, " r"], Tensor]]:
    """Yield (positions in `units`, their pictures (r, crops, t, 3, h, w)), a few at a time, decoding the video once.

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
        yield chunk, crop(views).unflatten(0, (len(chunk), -1))
        order = order[len(chunk) :]
        needed = set(units[order].flatten().tolist())
        frames = {index: frame for index, frame in frames.items() if index in needed}
    for _ in stream:  # to the file's end: damage behind the last wanted frame is found too, where that is decoded
        pass


class _Assembly:
    """Pictures of many videos go in, full batches go through the backbone, whole requests come out."""

    def __init__(
        self, backbone: Frozen | Trained, normalize: Callable[[Tensor], Tensor] | None, device: torch.device
    ) -> None:
        self.backbone, self.normalize, self.device = backbone, normalize, device
        self.pictures: list[Tensor] = []  # waiting for a full batch, each (n, t, 3, h, w)
        self.features: deque[Tensor] = (
            deque()
        )  # of requests not yet handed out, each (n, S, D), where they were computed
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
            self.pictures = [waiting[whole:]] if whole < len(waiting) else []

    def end(self, request: Request, error: VideoError | None) -> None:
        """Close the request that is being decoded."""
        self.ended.append((request, self.positions, error))
        self.positions = []

    def flush(self) -> None:
        """Run what does not fill a batch."""
        if self.pictures:
            self._run(torch.cat(self.pictures))
            self.pictures = []

    def finished(self) -> Iterator[tuple[Request, Result]]:
        """Hand out the requests whose features are all there."""
        while self.ended:
            request, positions, error = self.ended[0]
            count = self.crops * sum(map(len, positions))
            if count > sum(map(len, self.features)):
                return
            self.ended.popleft()
            taken = list(self._take(count))
            if error is not None:
                yield request, error
                continue
            features = torch.cat(taken).unflatten(0, (-1, self.crops))
            yield request, features[torch.cat(positions).argsort()]

    def _take(self, count: int) -> Iterator[Tensor]:
        """Yield the next `count` features, as they lie in their batches."""
        while count:
            features = self.features.popleft()
            if len(features) > count:
                self.features.appendleft(features[count:])
            yield features[:count].cpu()
            count -= min(count, len(features))

    def _run(self, pictures: Tensor) -> None:
        if not len(pictures):
            return
        pictures = pictures.to(self.device, non_blocking=True)
        if self.normalize is not None:
            pictures = self.normalize(pictures)
        self.features.append(self.backbone(pictures))

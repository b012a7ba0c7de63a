"""From video files to features: decoding in threads, one backbone, batches filled across videos, a store filled."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vidclf.contracts import Backbone, Transform, VideoViews, optional
from vidclf.data.decoding import errors_name_video, iterate_frames
from vidclf.data.prefetch import run_ahead
from vidclf.data.transforms import halves_of
from vidclf.errors import VidclfError, VideoError
from vidclf.features.store import REMEDY, FeatureStore
from vidclf.models.backbones.wrap import FrozenBackbone, TunedBackbone, fixed_batch
from vidclf.system.disk import require_space
from vidclf.system.machine import has_matrix_units
from vidclf.system.ranks import barrier, rank_and_size
from vidclf.system.terminal import track

Result = Float[Tensor, "R crops S D"] | VideoError

FRAMES_AT_ONCE = 32  # of a video, decoded before they are handed over
WRITERS = 2  # threads that write to the store; each video is synced to the disk, which takes as long as a batch may
IN_FLIGHT = 2  # batches that a GPU may have before the oldest is waited for
COMPILE = ("auto", True, False)
# Floating-point operations from which on compiling pays, which takes half a minute. VGG16 is then 19 % faster with AMX
# (read, not measured), and no faster on a CPU without (measured: never compiled there); on a GPU it is an estimate.
WORTH_COMPILING = {"cpu": 5e14, "cuda": 3e16}


def units_of(one: VideoViews, clip_length: int) -> VideoViews:
    """Return what the backbone consumes in place of the views: single frames (V*T, 1), or a clip backbone's clips."""
    if clip_length > 1:
        return one
    frames = one.frames.reshape(-1, 1)
    return replace(one, views=torch.arange(len(frames)), frames=frames)


def views_of(features: Float[Tensor, "R crops S D"], num_views: int) -> Float[Tensor, "views steps D"]:
    """Return the features of units, all those of a view behind one another: the way back from `units_of`."""
    steps = features.unflatten(0, (num_views, -1))  # (V, units of a view, crops, S, D)
    return steps.transpose(1, 2).flatten(2, 3).flatten(0, 1)


@dataclass
class Extractor:
    """Computes the features of videos.

    Args:
        paths: of the videos, by `VideoViews.video`.
        transform: frames -> images.
        backbone: images -> features.
        device: where it computes.
        num_threads: videos decoded at once.
        compile: `auto` where it pays, True, False.

    Raises:
        VidclfError: `compile` is none of these.
    """

    paths: Sequence[Path] | Mapping[int, Path]
    transform: Transform
    backbone: FrozenBackbone | TunedBackbone
    device: torch.device
    num_threads: int = 2
    compile: str | bool = "auto"

    def __post_init__(self) -> None:
        if self.compile not in COMPILE:
            raise VidclfError(f"compile={self.compile}: allowed are auto, true, false.")

    @property
    def num_crops(self) -> int:
        """Images made of a frame."""
        return optional(self.transform, Transform, "num_crops")

    def compute(self, units: Iterable[VideoViews]) -> Iterator[tuple[VideoViews, Result]]:
        """Yield the features of each video's units (R, t), on the CPU, or what is wrong with it, in order.

        Decoding runs ahead in threads; frames are handed over as bytes, where the transform can be halved; batches
        are filled across videos.
        """
        self.backbone.to(self.device).eval()
        crop, normalize = halves_of(self.transform)
        assembly = _Assembly(self.backbone, normalize, self.device)

        def decode(one: VideoViews) -> Iterator[tuple[Tensor, Tensor] | VideoError | None]:
            try:
                with errors_name_video(self.paths[one.video]):
                    yield from images_of(self.paths[one.video], one.frames, crop)
                yield None
            except VideoError as error:
                yield error

        for one, result in run_ahead(decode, units, self.num_threads):
            if isinstance(result, tuple):
                assembly.add(*result)
            else:
                assembly.end(one, result)
            yield from assembly.finished()
        assembly.flush()
        yield from assembly.finished(wait=True)

    def compile_if_it_pays(self, num_images: int) -> None:
        """Compile the backbone by torch.compile where that was asked for, or where there is enough work."""
        if not isinstance(self.backbone, FrozenBackbone) or self.compile is False:
            return
        if not optional(self.backbone.backbone, Backbone, "compilable"):
            return
        picture_format = self.backbone.picture_format
        shape = (1, picture_format.clip_length, 3, picture_format.size, picture_format.size)
        self.backbone.to(self.device)
        one = torch.zeros(shape, device=self.device)
        if self.compile is True or _is_enough(self.backbone, one, num_images):
            self.backbone.compile_layers(one)


def fill_store(
    store: FeatureStore,
    extractor: Extractor,
    views: Sequence[VideoViews],
    contents: Mapping[int, str],
    on_error: Callable[[int, VideoError], None],
    shard: tuple[int, int] = (1, 1),
) -> int:
    """Compute what is missing of `views`, with a bar; return the number of units (frames, or clips) computed here.

    Of several processes that work as one, each computes the videos of its own share; all leave together.

    Args:
        store: to be filled.
        extractor: knows the videos' paths.
        views: several of a video, in any order.
        contents: the sha256 of the videos' files.
        on_error: called with what is wrong with a video; it may raise.
        shard: (k, n): that these are the k-th of n parts of the videos.

    Raises:
        VidclfError: the disk has no room for it.
    """
    rank, size = rank_and_size()
    of_content: dict[str, list[int]] = {}  # the videos of each: one, or the segments of one file
    for video in dict.fromkeys(one.video for one in views):
        of_content.setdefault(contents[video], []).append(video)
    own = [one for one in views if of_content[contents[one.video]][0] // shard[1] % size == rank]
    num_units = 0
    if _missing(store, extractor, own, contents):
        with (
            store.computing((shard[0] - 1) * size + rank, shard[1] * size),
            closing(_compute(store, extractor, _missing(store, extractor, own, contents), contents)) as results,
        ):
            for video, result in results:
                if isinstance(result, VideoError):
                    for one in of_content[contents[video]]:
                        on_error(one, result)
                else:
                    num_units += result
    barrier()  # what one process reads, others may compute
    return num_units


def _missing(
    store: FeatureStore, extractor: Extractor, views: Sequence[VideoViews], contents: Mapping[int, str]
) -> list[VideoViews]:
    """Return one VideoViews for each content of which units are missing, of its first video: those units."""
    clip_length = extractor.backbone.picture_format.clip_length
    units: dict[str, list[Tensor]] = {}
    first: dict[str, int] = {}
    for one in views:
        content = contents[one.video]
        first.setdefault(content, one.video)
        units.setdefault(content, []).append(units_of(one, clip_length).frames)
    asked = [(content, torch.cat(parts)) for content, parts in units.items()]
    return [
        VideoViews(first[content], -1, torch.arange(len(new)), new)
        for content, new in zip(units, store.missing_of_all(asked), strict=True)
        if len(new)
    ]


def _compute(
    store: FeatureStore, extractor: Extractor, units: Sequence[VideoViews], contents: Mapping[int, str]
) -> Generator[tuple[int, int | VideoError]]:
    """Compute and store; yield each video and its number of units, or what is wrong with it."""
    backbone, num_crops = extractor.backbone, extractor.num_crops
    num_units = sum(len(one.frames) for one in units)
    num_bytes = 2 if backbone.precision == "bfloat16" else 4
    require_space(store.folder, num_units * backbone.feature_dim * num_crops * num_bytes, REMEDY)
    extractor.compile_if_it_pays(num_units * num_crops)
    counts = {one.video: len(one.frames) for one in units}
    unit = "frames" if backbone.picture_format.clip_length == 1 else "clips"
    results = _written(store, extractor.compute(units), contents)
    yield from track(results, len(units), "Extracting features of", "videos", unit, lambda result: counts[result[0]])


def _written(
    store: FeatureStore, results: Iterable[tuple[VideoViews, Result]], contents: Mapping[int, str]
) -> Iterator[tuple[int, int | VideoError]]:
    """Write features by threads, so that the backbone does not wait for the disk; yield what is written, or wrong."""
    writing: deque[tuple[VideoViews, Future]] = deque()

    def done(at_most: int) -> Iterator[tuple[int, int]]:
        while writing and (len(writing) > at_most or writing[0][1].done()):
            one, future = writing.popleft()
            future.result()  # a full disk
            yield one.video, len(one.frames)

    with ThreadPoolExecutor(WRITERS, thread_name_prefix="write") as pool:
        for one, result in results:
            if isinstance(result, VideoError):
                yield one.video, result
            else:
                writing.append((one, pool.submit(store.add, contents[one.video], one.frames, result)))
            yield from done(at_most=2 * WRITERS)
        yield from done(at_most=0)


def _is_enough(backbone: FrozenBackbone, one: Tensor, num_images: int) -> bool:
    threshold = WORTH_COMPILING.get(one.device.type)
    if threshold is None or num_images < 1000:  # no network is so large
        return False
    if one.device.type == "cpu" and not has_matrix_units():
        return False
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.backbone(one)
    return counter.get_total_flops() * num_images >= threshold


def images_of(
    path: Path, units: Int[Tensor, "R t"], crop: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Int[Tensor, " r"], Tensor]]:
    """Yield (positions in `units`, their images (r, crops, t, 3, h, w)), a few at a time, decoding the video once.

    The file is known to be whole. Frames are kept only as long as a later unit needs them.
    """
    order = units.amax(dim=1).argsort(stable=True)
    stream = iterate_frames(path, units.unique().tolist(), whole=True)
    frames: dict[int, Tensor] = {}
    for chunk in order.split(max(1, FRAMES_AT_ONCE // units.shape[1])):
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


class _Assembly:
    """Images of many videos go in, full batches go through the backbone, whole videos come out."""

    def __init__(
        self,
        backbone: FrozenBackbone | TunedBackbone,
        normalize: Callable[[Tensor], Tensor] | None,
        device: torch.device,
    ) -> None:
        self.backbone, self.normalize, self.device = backbone, normalize, device
        self.batch = fixed_batch(device.type, backbone.picture_format.clip_length)
        self.images: list[Tensor] = []  # waiting for a full batch, each (n, t, 3, h, w)
        self.computed: deque[_Copy] = deque()  # of videos not yet handed out
        self.positions: list[Tensor] = []  # of the video that is being decoded
        self.crops = 1
        self.ended: deque[tuple[VideoViews, list[Tensor], VideoError | None]] = deque()

    def add(self, positions: Tensor, images: Tensor) -> None:
        """Take some units' images (r, crops, t, 3, h, w) of the video that is being decoded."""
        self.positions.append(positions)
        self.crops = images.shape[1]
        self.images.append(images.flatten(0, 1))
        if sum(map(len, self.images)) >= self.batch:
            waiting = torch.cat(self.images)
            for images in waiting.split(self.batch)[: len(waiting) // self.batch]:
                self._run(images)
            rest = waiting[len(waiting) - len(waiting) % self.batch :]
            self.images = [rest] if len(rest) else []

    def end(self, one: VideoViews, error: VideoError | None) -> None:
        """Close the video that is being decoded."""
        self.ended.append((one, self.positions, error))
        self.positions = []

    def flush(self) -> None:
        """Run what does not fill a batch."""
        if self.images:
            self._run(torch.cat(self.images))
            self.images = []

    def finished(self, wait: bool = False) -> Iterator[tuple[VideoViews, Result]]:
        """Hand out the videos whose features are all there; `wait` for those that are on their way."""
        while self.ended:
            one, positions, error = self.ended[0]
            count = self.crops * sum(map(len, positions))
            if count > sum(len(copy.features) for copy in self.computed if wait or copy.is_there()):
                return
            self.ended.popleft()
            taken = list(self._take(count))
            if error is not None:
                yield one, error
                continue
            features = torch.cat(taken).unflatten(0, (-1, self.crops))
            yield one, features[torch.cat(positions).argsort()]

    def _take(self, count: int) -> Iterator[Tensor]:
        """Yield the next `count` features, as they lie in their batches."""
        while count:
            copy = self.computed[0]
            features = copy.wait()
            yield features[:count]
            if len(features) <= count:
                self.computed.popleft()
            else:
                copy.features = features[count:]
            count -= min(count, len(features))

    def _run(self, images: Tensor) -> None:
        if self.device.type == "cuda":
            images = images.pin_memory()
        images = images.to(self.device, non_blocking=True)
        if self.normalize is not None:
            images = self.normalize(images)
        self.computed.append(_Copy(self.backbone(images)))
        if len(self.computed) > IN_FLIGHT:
            self.computed[-1 - IN_FLIGHT].wait()


class _Copy:
    """Features on their way to the CPU: nobody waits for a GPU before they are needed."""

    def __init__(self, features: Tensor) -> None:
        self.event: torch.cuda.Event | None = None
        self.features = features
        if features.device.type == "cuda":
            self.features = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
            self.features.copy_(features, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()

    def is_there(self) -> bool:
        """Whether the copy has ended."""
        return self.event is None or self.event.query()

    def wait(self) -> Tensor:
        """Return the features, once they are there."""
        if self.event is not None:
            self.event.synchronize()
            self.event = None
        return self.features

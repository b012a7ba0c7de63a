"""Compute features of video files, decoded in threads and batched across videos."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from vidclf.models.backbones.wrap import FrozenBackbone, TunedBackbone, fixed_batch
from vidclf.system.machine import has_matrix_units

Result = Float[Tensor, "R crops S D"] | VideoError

FRAMES_AT_ONCE = 32  # decoded frames of a video that are passed on together
JOINED = 32  # batches of a long video whose features are joined
MAX_WAITING = 4  # videos that wait for a full batch, in batches
IN_FLIGHT = 2  # batches that a GPU may hold before the oldest is waited for
COMPILE = ("auto", True, False)
# Compiling takes half a minute, and pays above so many floating-point operations. VGG16 is then 19 % faster with AMX
# (read, not measured), and no faster on a CPU without AMX (measured: never compiled there). For a GPU it is a guess.
WORTH_COMPILING = {"cpu": 5e14, "cuda": 3e16}


def units_of(video: VideoViews, clip_length: int) -> VideoViews:
    """Replace a video's views by the backbone's units: single frames (V*T, 1), or the clips as they are."""
    if clip_length > 1:
        return video
    frames = video.frames.reshape(-1, 1)
    return replace(video, views=torch.arange(len(frames)), frames=frames)


def views_of(features: Float[Tensor, "R crops S D"], num_views: int) -> Float[Tensor, "views steps D"]:
    """Return the features of views, each with the steps of all its units in order: the inverse of `units_of`."""
    steps = features.unflatten(0, (num_views, -1))  # (V, units of a view, crops, S, D)
    return steps.transpose(1, 2).flatten(2, 3).flatten(0, 1)


@dataclass
class Extractor:
    """Computes the features of videos.

    Args:
        paths: by `VideoViews.video`.
        transform: frames -> images.
        backbone: images -> features.
        device: where it computes.
        num_threads: videos decoded at once.
        compile: True, False, or `auto`: if it pays.
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
        """Return the number of images made of a frame."""
        return optional(self.transform, Transform, "num_crops")

    def compute(self, units: Iterable[VideoViews]) -> Iterator[tuple[VideoViews, Result]]:
        """Yield each video with the features of its units (R, t), on the CPU, or with its error, in order.

        Decoding runs ahead in threads, which pass on bytes if the transform has two halves. Batches span videos. A
        video without units is not opened.
        """
        self.backbone.to(self.device).eval()
        crop, normalize = halves_of(self.transform)
        assembly = _Assembly(self.backbone, normalize, self.device)

        def decode(video: VideoViews) -> Iterator[tuple[Tensor, Tensor] | VideoError | None]:
            path = self.paths[video.video]
            try:
                with errors_name_video(path):
                    if len(video.frames):
                        yield from images_of(path, video.frames, crop)
                yield None
            except VideoError as error:
                yield error

        for video, result in run_ahead(decode, units, self.num_threads):
            if isinstance(result, tuple):
                assembly.add(*result)
            else:
                assembly.end(video, result)
            if len(assembly.ended) > MAX_WAITING * assembly.batch:  # videos without units fill no batch
                assembly.flush()
            yield from assembly.finished()
        assembly.flush()
        yield from assembly.finished(wait=True)

    def follow(self, video: VideoViews) -> Iterator[tuple[Int[Tensor, " r"], Float[Tensor, "r crops S D"]]]:
        """Yield positions in a long video's units, and their features, while it is decoded; memory is bounded.

        Raises:
            VideoError: the file is damaged.
        """
        self.backbone.to(self.device).eval()
        crop, normalize = halves_of(self.transform)
        assembly = _Assembly(self.backbone, normalize, self.device)

        def decode(path: Path) -> Iterator[tuple[Tensor, Tensor]]:
            with errors_name_video(path):
                yield from images_of(path, video.frames, crop)

        def finished(wait: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
            for piece, features in assembly.finished(wait):
                assert isinstance(features, Tensor)
                yield piece.views, features

        for _, (positions, images) in run_ahead(decode, [self.paths[video.video]], 1):
            ordered = positions.sort().values  # as `finished` orders features
            assembly.add(positions, images)
            assembly.end(replace(video, views=ordered, frames=video.frames[ordered]), None)
            yield from finished()
        assembly.flush()
        yield from finished(wait=True)

    def compile_if_it_pays(self, num_images: int) -> None:
        """Compile the backbone with torch.compile if `compile` is True, or `auto` and there is enough work."""
        if not isinstance(self.backbone, FrozenBackbone) or self.compile is False:
            return
        if not optional(self.backbone.backbone, Backbone, "compilable"):
            return
        picture_format = self.backbone.picture_format
        shape = (1, picture_format.clip_length, 3, picture_format.size, picture_format.size)
        self.backbone.to(self.device)
        image = torch.zeros(shape, device=self.device)
        if self.compile is True or _is_enough(self.backbone, image, num_images):
            self.backbone.compile_layers(image)


def _is_enough(backbone: FrozenBackbone, image: Tensor, num_images: int) -> bool:
    """Return whether compiling pays for so many images."""
    threshold = WORTH_COMPILING.get(image.device.type)
    if threshold is None or num_images < 1000:  # too few for any network
        return False
    if image.device.type == "cpu" and not has_matrix_units():
        return False
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.backbone(image)
    return counter.get_total_flops() * num_images >= threshold


def images_of(
    path: Path, units: Int[Tensor, "R t"], crop: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Int[Tensor, " r"], Tensor]]:
    """Yield (positions in `units`, their images (r, crops, t, 3, h, w)), a few at a time, decoding the video once.

    The file must be whole. Frames are kept only until the last unit that needs them.
    """
    order = units.amax(dim=1).argsort(stable=True)
    stream = iterate_frames(path, units.unique().tolist(), whole=True)
    num_uses = Counter(units.flatten().tolist())  # of each frame in the units that are left
    frames: dict[int, Tensor] = {}
    for chunk in order.split(max(1, FRAMES_AT_ONCE // units.shape[1])):
        last = int(units[chunk].max())
        while last not in frames:
            index, frame = next(stream)
            frames[index] = frame
        indices = units[chunk].flatten().tolist()
        views = torch.stack([frames[index] for index in indices]).unflatten(0, (len(chunk), -1))  # (r, t, 3, H, W)
        num_uses.subtract(indices)
        for index in {*indices}:
            if not num_uses[index]:
                del frames[index]
        yield chunk, crop(views).unflatten(0, (len(chunk), -1))


class _Assembly:
    """Takes images of many videos, runs full batches through the backbone, and yields the features of whole videos."""

    def __init__(
        self,
        backbone: FrozenBackbone | TunedBackbone,
        normalize: Callable[[Tensor], Tensor] | None,
        device: torch.device,
    ) -> None:
        self.backbone, self.normalize, self.device = backbone, normalize, device
        self.batch = fixed_batch(device.type, backbone.picture_format.clip_length)
        self.images: list[Tensor] = []  # waiting for a full batch, each (n, t, 3, h, w)
        self.computed: deque[_Copy] = deque()  # features not yet yielded
        self.positions: list[Tensor] = []  # of the video that is being decoded
        self.crops = 1
        self.ended: deque[tuple[VideoViews, list[Tensor], VideoError | None]] = deque()

    def add(self, positions: Tensor, images: Tensor) -> None:
        """Take some units' images (r, crops, t, 3, h, w) of the video that is being decoded."""
        self.positions.append(positions)
        self.crops = images.shape[1]
        self.images.append(images.flatten(0, 1))
        if sum(map(len, self.images)) >= self.batch:
            batches = list(torch.cat(self.images).split(self.batch))
            self.images = [] if len(batches[-1]) == self.batch else [batches.pop()]
            for batch in batches:
                self._run(batch)

    def end(self, video: VideoViews, error: VideoError | None) -> None:
        """Close the video that is being decoded."""
        self.ended.append((video, self.positions, error))
        self.positions = []

    def flush(self) -> None:
        """Run the images that do not fill a batch."""
        if self.images:
            self._run(torch.cat(self.images))
            self.images = []

    def finished(self, wait: bool = False) -> Iterator[tuple[VideoViews, Result]]:
        """Yield the videos with all features on the CPU; `wait` for features that a GPU still computes."""
        while self.ended:
            video, positions, error = self.ended[0]
            count = self.crops * sum(map(len, positions))
            if count > sum(len(copy.features) for copy in self.computed if wait or copy.is_done()):
                return
            self.ended.popleft()
            rows = list(self._take(count))
            if error is not None:
                yield video, error
                continue
            if not positions:
                yield video, torch.empty(0, self.crops, 0, 0)
                continue
            features = torch.cat(rows).unflatten(0, (-1, self.crops))
            order = torch.cat(positions).argsort()
            yield video, features if torch.equal(order, torch.arange(len(order))) else features[order]

    def _take(self, count: int) -> Iterator[Tensor]:
        """Yield the next `count` features, in the pieces of their batches."""
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
        if len(self.computed) > IN_FLIGHT + JOINED:  # small features between freed images would fragment the heap
            oldest = [self.computed.popleft().wait() for _ in range(JOINED)]
            self.computed.appendleft(_Copy(torch.cat(oldest)))


class _Copy:
    """A copy of features to the CPU that does not wait for the GPU until they are needed."""

    def __init__(self, features: Tensor) -> None:
        self.event: torch.cuda.Event | None = None
        self.features = features
        if features.device.type == "cuda":
            self.features = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
            self.features.copy_(features, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()

    def is_done(self) -> bool:
        """Return whether the copy is complete."""
        return self.event is None or self.event.query()

    def wait(self) -> Tensor:
        """Return the features, once the copy is complete."""
        if self.event is not None:
            self.event.synchronize()
            self.event = None
        return self.features

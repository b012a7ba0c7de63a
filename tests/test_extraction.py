"""Features do not depend on what else is in a batch, and a store is filled once by all processes."""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from doubles import Clips, Counter, Images, TwoCrops, spoil, units
from torch import Tensor, nn
from videos import encode_video

from vidclf.contracts import VideoViews
from vidclf.data.catalogue import VideoFacts, stamp_of
from vidclf.data.decoding import VideoInfo, decode_frames, iterate_frames
from vidclf.data.transforms import BackboneTransform, TutorialTransform
from vidclf.errors import VidclfError, VideoError
from vidclf.features import batches
from vidclf.features import extract as extraction
from vidclf.features.batches import StoredFeatures
from vidclf.features.extract import Extractor, images_of, units_of, views_of
from vidclf.features.store import FeatureStore
from vidclf.models.backbones.tiny import Tiny
from vidclf.models.backbones.wrap import FrozenBackbone

CPU = torch.device("cpu")
FORMAT = Images.picture_format


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [encode_video(tmp_path / f"{number}.avi", num_frames=6 + 5 * number, seed=number) for number in range(4)]


@dataclass(frozen=True)
class Mistaken:
    """A transform that raises."""

    num_crops = 1
    random = False

    def __call__(self, frames: Tensor) -> Tensor:
        raise RuntimeError("a mistake in the transform")


@dataclass(frozen=True)
class Whole:
    """A transform that is not halved."""

    transform: Any
    num_crops = 1
    random = False

    def __call__(self, frames: Tensor) -> Tensor:
        return self.transform(frames)


def units_from(video: int, frames: Tensor, clip_length: int = 1) -> VideoViews:
    return units_of(VideoViews(video, 0, torch.arange(len(frames)), frames), clip_length)


def extractor(paths: Sequence[Path], backbone: nn.Module, transform: Any = None, **settings: Any) -> Extractor:
    transform = transform or BackboneTransform(backbone.picture_format)
    return Extractor(paths, transform, backbone, CPU, **settings)


def computed(of: Sequence[VideoViews], *arguments: Any, **settings: Any) -> list[Tensor | VideoError]:
    """Return what an extractor computes from units, in their order."""
    results = list(extractor(*arguments, **settings).compute(of))
    assert [video for video, _ in results] == list(of)
    return [result for _, result in results]


# Computing


@pytest.mark.parametrize("crops", [BackboneTransform, TwoCrops])
@pytest.mark.parametrize("backbone", [Images, Clips])
def test_features_are_those_of_the_images_with_crops_next_to_each_other(backbone: type, crops: type, clips: list[Path]):
    frozen = FrozenBackbone(backbone())
    transform = crops(frozen.picture_format)
    frames = torch.tensor([[0, 3, 1, 5], [2, 2, 4, 0], [5, 4, 3, 2]])
    (features,) = computed([units_from(0, frames, frozen.picture_format.clip_length)], clips, frozen, transform)
    assert features.shape[:2] == (3 if backbone is Clips else 12, transform.num_crops)
    assert torch.equal(views_of(features, 3), frozen(transform(decode_frames(clips[0], frames))))


@pytest.mark.parametrize("backbone", [Images, Clips])
def test_features_of_a_video_are_the_same_bits_with_any_other_videos(backbone: type, clips: list[Path]):
    frozen = FrozenBackbone(backbone())
    transform, length = TwoCrops(frozen.picture_format), frozen.picture_format.clip_length
    videos = [units_from(video, torch.arange(4) + torch.arange(3)[:, None], length) for video in range(4)]
    videos.append(units_from(3, torch.arange(20).view(5, 4), length))
    alone = [computed([video], clips, frozen, transform)[0] for video in videos]
    for direction in (1, -1):
        together = computed(videos[::direction], clips, frozen, transform, num_threads=3)[::direction]
        assert all(torch.equal(*pair) for pair in zip(together, alone, strict=True))


def test_a_damaged_video_gives_its_error_in_order_and_affects_no_other(clips: list[Path]):
    frozen = FrozenBackbone(Images())
    sound = computed([units_from(video, units(*range(6))) for video in (0, 2)], clips, frozen)
    encode_video(clips[1], num_frames=100, size=(64, 64))
    damaged = clips[1].read_bytes()
    clips[1].write_bytes(damaged[:-4000] + b"\xa5" * 3000 + damaged[-1000:])  # after frames that were passed on already
    spoil(clips[3])
    of = [units_from(video, units(*range(98 if video == 1 else 6))) for video in range(4)]
    results = computed(of, clips, frozen)
    assert [isinstance(result, VideoError) for result in results] == [False, True, False, True]
    assert "1.avi" in str(results[1])
    assert all(torch.equal(*pair) for pair in zip(results[::2], sound, strict=True))


def test_a_failed_worker_is_reported_with_its_video(clips: list[Path]):
    (error,) = computed([units_from(0, units(0))], clips, FrozenBackbone(Images()), Mistaken())
    assert isinstance(error, VideoError)
    assert re.search(
        r"0\.avi: the worker that read it failed \(RuntimeError: a mistake .*, .*\.py line \d+\)", str(error)
    )


def test_images_are_decoded_in_one_pass_and_yielded_once(clips: list[Path]):
    wanted = torch.tensor([[5, 0, 5, 2], [1, 1, 1, 1], [20, 0, 3, 9]]).repeat(9, 1)  # more than one batch
    transform = BackboneTransform(Clips.picture_format)
    expected = transform(decode_frames(clips[3], wanted))
    positions, images = zip(*images_of(clips[3], wanted, transform), strict=True)
    assert max(map(len, positions)) == 8  # 32 frames
    assert sorted(torch.cat(positions).tolist()) == list(range(27))
    assert torch.equal(torch.cat(images)[torch.cat(positions).argsort()].squeeze(1), expected)


def test_frames_are_kept_only_while_they_are_needed(clips: list[Path], monkeypatch: pytest.MonkeyPatch):
    decoded = []

    def iterate_and_note(path: Path, wanted: list[int], whole: bool) -> Iterator[tuple[int, Tensor]]:
        for index, frame in iterate_frames(path, wanted, whole=whole):
            decoded.append(index)
            yield index, frame

    monkeypatch.setattr(extraction, "iterate_frames", iterate_and_note)
    monkeypatch.setattr(extraction, "FRAMES_AT_ONCE", 4)
    wanted = units(*range(20, -1, -1))
    images = images_of(clips[3], wanted, BackboneTransform(FORMAT))
    for chunk in range(3):  # the earliest frames come first, whatever the order of the units
        positions, _ = next(images)
        assert sorted(wanted[positions].flatten().tolist()) == list(range(4 * chunk, 4 * chunk + 4))
        assert len(decoded) == 4 * chunk + 4


def test_the_padding_of_the_last_batch_is_not_counted(clips: list[Path]):
    frozen = FrozenBackbone(Images())
    counter = Counter(frozen.backbone)
    computed([units_from(0, units(0, 5))], clips, frozen)
    assert counter.count == 2


@pytest.mark.parametrize("transform", [BackboneTransform(FORMAT), TutorialTransform(FORMAT)])
def test_frames_are_passed_on_as_bytes_without_changing_the_features(transform: Callable, clips: list[Path]):
    frozen = FrozenBackbone(Images())
    wanted = units(0, 3, 5)
    images = torch.cat([images for _, images in images_of(clips[0], wanted, transform.crop)])
    assert images.dtype == torch.uint8
    assert torch.equal(transform.normalize(images), transform(decode_frames(clips[0], wanted)).unsqueeze(1))
    halved, at_once = (
        computed([units_from(0, wanted)], clips, frozen, variant)[0] for variant in (transform, Whole(transform))
    )
    assert torch.equal(halved, at_once)


def test_a_transform_that_overrides_the_whole_is_not_halved(clips: list[Path]):
    @dataclass(frozen=True)
    class Inverted(BackboneTransform):
        def __call__(self, frames: Tensor) -> Tensor:
            return -super().__call__(frames)

    frozen = FrozenBackbone(Images())
    inverted = Inverted(FORMAT)
    (features,) = computed([units_from(0, units(2))], clips, frozen, inverted)
    assert torch.equal(views_of(features, 1), frozen(inverted(decode_frames(clips[0], units(2)))))


# Compiling


def compiled(frozen: FrozenBackbone, num_images: int, choice: str | bool) -> bool:
    extractor([], frozen, compile=choice).compile_if_it_pays(num_images)
    return frozen.backbone.layers._compiled_call_impl is not None


def test_a_backbone_is_compiled_in_place_with_its_weights_fixed(monkeypatch: pytest.MonkeyPatch):
    frozen = FrozenBackbone(Tiny(weights=None))
    images = torch.rand(3, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = frozen(images)
    calls = []
    monkeypatch.setattr(extraction, "has_matrix_units", lambda: True)
    monkeypatch.setattr(torch, "compile", lambda function, **options: calls.append(options) or function)
    assert compiled(frozen, 10**12, "auto")
    assert calls == [{"options": {"freezing": True}}]
    assert torch.equal(frozen(images), expected)


@pytest.mark.parametrize(
    ("num_images", "choice", "has_units", "expected"),
    [
        (10**12, "auto", True, True),
        (10**4, "auto", True, False),
        (10**12, "auto", False, False),  # never on a CPU without matrix units
        (1, True, True, True),
        (10**12, False, True, False),
    ],
)
def test_a_backbone_is_compiled_if_there_is_enough_work(
    num_images: int, choice: str | bool, has_units: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(extraction, "has_matrix_units", lambda: has_units)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    assert compiled(FrozenBackbone(Tiny(weights=None)), num_images, choice) == expected


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch 2.11's compiler warns of torch itself
def test_a_compiled_backbone_gives_the_same_features():
    frozen = FrozenBackbone(Tiny())
    images = torch.rand(3, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = frozen(images)
    assert compiled(frozen, 1, True)
    assert torch.allclose(frozen(images), expected, atol=1e-5)


def test_a_failed_compilation_is_reported_and_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(*_: object) -> None:
        raise RuntimeError("no C++ compiler\nand a long story")

    frozen = FrozenBackbone(Tiny(weights=None))
    monkeypatch.setattr(torch, "compile", lambda function, **_: fail)
    assert not compiled(frozen, 1, True)
    assert capsys.readouterr().err == (
        "torch.compile does not work here (RuntimeError: no C++ compiler); going on without.\n"
    )
    assert frozen(torch.zeros(1, 1, 3, 64, 64)).shape == (1, 1, 1024)


def test_an_unknown_compile_setting_is_refused():
    with pytest.raises(VidclfError, match="compile=maybe: allowed are auto, true, false"):
        compiled(FrozenBackbone(Tiny(weights=None)), 1, "maybe")


# Filling a store

FACTS = {video: VideoFacts(f"{video}" * 64, VideoInfo(9, 25.0, 64, 48)) for video in range(4)}


@dataclass
class Filling:
    """Fills a store of four clips, and remembers what failed."""

    store: FeatureStore
    extractor: Extractor

    def __post_init__(self) -> None:
        self.failed: dict[int, VideoError] = {}

    def __call__(self, *frames: int, **settings: Any) -> int:
        views = [units_from(video, units(*frames)) for video in range(4)]
        return self.source().prepare(views, **settings)

    def source(self, facts: Mapping[int, VideoFacts] = FACTS, on_error: Callable | None = None) -> StoredFeatures:
        return StoredFeatures(self.store, self.extractor, facts, on_error or self.failed.__setitem__)

    def missing(self, *frames: int) -> list[int]:
        wanted = [(facts.content, units(*frames)) for facts in FACTS.values()]
        return [len(new) for new in self.store.missing_of_all(wanted)]


@pytest.fixture
def fill(store: FeatureStore, clips: list[Path]) -> Filling:
    return Filling(store, extractor(clips, FrozenBackbone(Images())))


def test_only_missing_features_are_computed(fill: Filling, clips: list[Path]):
    counter = Counter(fill.extractor.backbone.backbone)
    assert [fill(0, 2), fill(0, 2, 5), fill(5, 0)] == [8, 4, 0]
    assert counter.count == 4 * 3
    for video, features in enumerate(
        computed([units_from(v, units(5, 0)) for v in range(4)], clips, fill.extractor.backbone)
    ):
        assert torch.equal(fill.store.read(FACTS[video].content, units(5, 0)), features)


def test_repeated_views_of_a_video_are_computed_in_one_pass(fill: Filling, monkeypatch: pytest.MonkeyPatch):
    passes = []
    monkeypatch.setattr(extraction, "images_of", lambda path, *a: passes.append(path.name) or images_of(path, *a))
    views = [units_from(0, units(0, 2)), units_from(1, units(1)), units_from(0, units(2, 4))]
    assert fill.source().prepare(views) == 4
    assert sorted(passes) == ["0.avi", "1.avi"]


def test_damaged_videos_are_reported_and_the_rest_is_stored(fill: Filling, clips: list[Path]):
    spoil(clips[1])
    assert fill(0, 2) == 6
    assert list(fill.failed) == [1]
    assert fill.missing(0, 2) == [0, 2, 0, 0]


def test_features_of_a_file_that_was_replaced_since_it_was_hashed_are_not_stored(fill: Filling, clips: list[Path]):
    facts = {video: replace(FACTS[video], stamp=stamp_of(path)) for video, path in enumerate(clips)}
    clips[2].write_bytes(clips[3].read_bytes())
    views = [units_from(video, units(0)) for video in range(4)]
    assert fill.source(facts).prepare(views) == 3
    assert "2.avi: the file changed while it was read" in str(fill.failed[2])
    assert fill.missing(0) == [0, 0, 1, 0]


def test_two_processes_share_the_videos(fill: Filling, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches, "barrier", lambda: None)
    for rank, expected in ((0, [0, 1, 0, 1]), (1, [0, 0, 0, 0])):
        monkeypatch.setattr(batches, "rank_and_size", lambda rank=rank: (rank, 2))
        assert fill(0) == 2
        assert fill.missing(0) == expected


def test_an_error_releases_the_lock_of_the_store(fill: Filling, clips: list[Path], capsys: pytest.CaptureFixture[str]):
    """The process of a failed job of a sweep lives on, and no other may wait for it."""

    def refuse(_: int, error: VideoError) -> None:
        raise error

    spoil(clips[1])
    views = [units_from(video, units(0)) for video in range(4)]
    with pytest.raises(VideoError) as kept:
        fill.source(on_error=refuse).prepare(views)
    capsys.readouterr()
    fill(0)
    assert fill.missing(0) == [0, 1, 0, 0]
    assert "waiting" not in capsys.readouterr().err
    assert kept.value is not None


def test_free_space_is_checked_before_the_work_starts(fill: Filling, monkeypatch: pytest.MonkeyPatch):
    counter = Counter(fill.extractor.backbone.backbone)
    fill.extractor.backbone.feature_dim = 10**8
    fill.extractor.transform = TwoCrops(FORMAT)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 10**9))
    # 4 videos, 6 frames, 2 crops, 10^8 numbers, 4 bytes
    with pytest.raises(VidclfError, match=r"19\.20 GB needed, 5\.00 GB free\. .*store\.root="):
        fill(*range(6))
    assert counter.count == 0


def test_a_disk_that_becomes_full_is_reported_and_stored_features_are_kept(
    fill: Filling, monkeypatch: pytest.MonkeyPatch
):
    add = fill.store.add

    def add_until_full(content: str, *tensors: Tensor) -> None:
        if content[0] == "2":
            raise VidclfError("no space left")
        add(content, *tensors)

    monkeypatch.setattr(fill.store, "add", add_until_full)
    with pytest.raises(VidclfError, match="no space left"):
        fill(0, 2)
    assert fill.missing(0, 2)[:3] == [0, 0, 2]
    monkeypatch.undo()
    assert fill(0, 2) in (2, 4)

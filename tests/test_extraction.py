"""Features are those of the pictures, in any company; a store is filled once, whoever fills it."""

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import RECIPE, Clips, Counter, Pictures, TwoCrops, halve, spoil, units
from torch import Tensor
from videos import encode_video

from vidclf.contracts import VideoError
from vidclf.data.decoding import decode_frames, iterate_frames
from vidclf.data.transforms import BackboneTransform, TutorialTransform
from vidclf.errors import VidclfError
from vidclf.features import extract as extraction
from vidclf.features.extract import compile_if_it_pays, compute_features, fill, pictures_of
from vidclf.features.store import FeatureStore, Request, units_of, views_of
from vidclf.models.backbones.tiny import Tiny
from vidclf.models.backbones.wrapped import Frozen

CPU = torch.device("cpu")


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [encode_video(tmp_path / f"{number}.avi", num_frames=6 + 5 * number, seed=number) for number in range(4)]


@dataclass(frozen=True)
class Mistaken:
    """A transform whose code has a mistake."""

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


# Computing


@pytest.mark.parametrize("backbone", [Pictures, Clips])
def test_features_are_those_of_the_pictures(backbone: type, clips: list[Path]):
    frozen = Frozen(backbone())
    transform = BackboneTransform(frozen.picture_format)
    frames = torch.tensor([[0, 3, 1, 5], [2, 2, 4, 0], [5, 4, 3, 2]])
    ((_, features),) = compute_features(
        [Request(clips[0], units_of(frames, frozen.picture_format))], transform, frozen, CPU
    )
    assert torch.equal(views_of(features, 3), frozen(transform(decode_frames(clips[0], frames))))


@pytest.mark.parametrize("backbone", [Pictures, Clips])
def test_features_of_a_video_are_the_same_bits_in_any_company(backbone: type, clips: list[Path]):
    frozen = Frozen(backbone())
    transform = TwoCrops(frozen.picture_format)
    requests = [
        Request(path, units_of(torch.arange(4) + torch.arange(3)[:, None], frozen.picture_format)) for path in clips
    ]
    requests.append(Request(clips[3], units_of(torch.arange(20).view(5, 4), frozen.picture_format)))
    alone = [dict(compute_features([one], transform, frozen, CPU)) for one in requests]
    for company in (requests, requests[::-1]):
        together = dict(compute_features(company, transform, frozen, CPU, num_threads=3))
        assert list(together) == company
        for one, own in zip(requests, alone, strict=True):
            assert torch.equal(together[one], own[one])


@pytest.mark.parametrize("backbone", [Pictures, Clips])
def test_crops_of_a_view_are_behind_one_another(backbone: type, clips: list[Path]):
    frozen = Frozen(backbone())
    transform = TwoCrops(frozen.picture_format)
    frames = torch.tensor([[0, 1, 2, 3], [2, 3, 4, 5]])
    pictures = transform(decode_frames(clips[0], frames))
    assert not torch.equal(pictures[0], pictures[1])
    ((_, features),) = compute_features(
        [Request(clips[0], units_of(frames, frozen.picture_format))], transform, frozen, CPU
    )
    assert features.shape[:2] == ((2, 2) if backbone is Clips else (8, 2))
    assert torch.equal(views_of(features, 2), frozen(pictures))


def test_a_damaged_video_is_told_in_its_place_and_harms_no_other(clips: list[Path]):
    frozen = Frozen(Pictures())
    transform = BackboneTransform(frozen.picture_format)
    sound = dict(compute_features([Request(clips[i], units(*range(6))) for i in (0, 2)], transform, frozen, CPU))
    encode_video(clips[1], num_frames=100, size=(64, 64))
    damaged = clips[1].read_bytes()
    clips[1].write_bytes(damaged[:-4000] + b"\xa5" * 3000 + damaged[-1000:])  # behind frames that were given already
    spoil(clips[3])
    requests = [Request(path, units(*range(90 if path is clips[1] else 6))) for path in clips]
    results = [result for _, result in compute_features(requests, transform, frozen, CPU)]
    assert [isinstance(result, VideoError) for result in results] == [False, True, False, True]
    assert "1.avi" in str(results[1])
    assert all(torch.equal(results[2 * i], one) for i, one in enumerate(sound.values()))


def test_a_worker_that_dies_is_told_with_its_video(clips: list[Path]):
    ((_, error),) = compute_features([Request(clips[0], units(0))], Mistaken(), Frozen(Pictures()), CPU)
    assert isinstance(error, VideoError)
    assert re.search(
        r"0\.avi: the worker that read it failed \(RuntimeError: a mistake .*, .*\.py line \d+\)", str(error)
    )


def test_pictures_are_decoded_in_one_pass_and_given_once(clips: list[Path]):
    wanted = torch.tensor([[5, 0, 5, 2], [1, 1, 1, 1], [20, 0, 3, 9]]).repeat(9, 1)  # more than one batch
    transform = BackboneTransform(Clips.picture_format)
    expected = transform(decode_frames(clips[3], wanted))
    positions, pictures = zip(*pictures_of(clips[3], wanted, transform), strict=True)
    assert max(map(len, positions)) == 8  # 32 frames
    assert sorted(torch.cat(positions).tolist()) == list(range(27))
    assert torch.equal(torch.cat(pictures)[torch.cat(positions).argsort()].squeeze(1), expected)


def test_frames_are_kept_only_as_long_as_they_are_needed(clips: list[Path], monkeypatch: pytest.MonkeyPatch):
    decoded = []

    def iterate_and_note(path: Path, wanted: list[int]) -> Iterator[tuple[int, Tensor]]:
        for index, frame in iterate_frames(path, wanted):
            decoded.append(index)
            yield index, frame

    monkeypatch.setattr(extraction, "iterate_frames", iterate_and_note)
    monkeypatch.setattr(extraction, "FRAMES_PER_BATCH", 4)
    wanted = units(*range(20, -1, -1))
    pictures = pictures_of(clips[3], wanted, BackboneTransform(Pictures.picture_format))
    for chunk in range(3):  # the earliest frames come first, whatever the order asked for
        positions, _ = next(pictures)
        assert sorted(wanted[positions].flatten().tolist()) == list(range(4 * chunk, 4 * chunk + 4))
        assert len(decoded) == 4 * chunk + 4


def test_damage_behind_the_last_wanted_frame_is_found(clips: list[Path]):
    halve(clips[3])
    with pytest.raises(VideoError, match="damaged"):
        list(pictures_of(clips[3], units(0), BackboneTransform(Pictures.picture_format)))


def test_the_fill_of_the_last_batch_is_not_counted(clips: list[Path]):
    frozen = Frozen(Pictures())
    counter = Counter(frozen.backbone)
    list(compute_features([Request(clips[0], units(0, 5))], BackboneTransform(frozen.picture_format), frozen, CPU))
    assert counter.count == 2


@pytest.mark.parametrize(
    "transform", [BackboneTransform(Pictures.picture_format), TutorialTransform(Pictures.picture_format)]
)
def test_frames_are_handed_over_as_bytes_and_nothing_changes_by_it(transform: Callable, clips: list[Path]):
    frozen = Frozen(Pictures())
    wanted = units(0, 3, 5)
    pictures = torch.cat([pictures for _, pictures in pictures_of(clips[0], wanted, transform.crop)])
    assert pictures.dtype == torch.uint8
    assert torch.equal(transform.normalize(pictures), transform(decode_frames(clips[0], wanted)).unsqueeze(1))
    ((_, halved),) = compute_features([Request(clips[0], wanted)], transform, frozen, CPU)
    ((_, at_once),) = compute_features([Request(clips[0], wanted)], Whole(transform), frozen, CPU)
    assert torch.equal(halved, at_once)


def test_a_transform_that_overrides_the_whole_is_not_halved(clips: list[Path]):
    @dataclass(frozen=True)
    class Inverted(BackboneTransform):
        def __call__(self, frames: Tensor) -> Tensor:
            return -super().__call__(frames)

    frozen = Frozen(Pictures())
    inverted = Inverted(Pictures.picture_format)
    ((_, features),) = compute_features([Request(clips[0], units(2))], inverted, frozen, CPU)
    assert torch.equal(views_of(features, 1), frozen(inverted(decode_frames(clips[0], units(2)))))


def test_a_backbone_is_compiled_in_place_with_its_weights_fixed(monkeypatch: pytest.MonkeyPatch):
    frozen = Frozen(Tiny(weights=None))
    pictures = torch.rand(3, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected, name = frozen(pictures), repr(frozen.backbone)
    calls = []
    monkeypatch.setattr(extraction, "has_matrix_units", lambda: True)
    monkeypatch.setattr(torch, "compile", lambda function, **options: calls.append(options) or function)
    compile_if_it_pays(frozen, (1, 3, 64, 64), 10**12, CPU, "auto")
    assert calls == [{"options": {"freezing": True}}]
    assert torch.equal(frozen(pictures), expected)
    assert repr(frozen.backbone) == name  # the store keys on it


@pytest.mark.parametrize(
    ("num_pictures", "choice", "compiled"),
    [(10**12, "auto", True), (10**4, "auto", False), (1, True, True), (10**12, False, False)],
)
def test_a_backbone_is_compiled_where_the_work_pays_for_it(
    num_pictures: int, choice: str | bool, compiled: bool, monkeypatch: pytest.MonkeyPatch
):
    frozen = Frozen(Tiny(weights=None))
    monkeypatch.setattr(extraction, "has_matrix_units", lambda: True)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    compile_if_it_pays(frozen, (1, 3, 64, 64), num_pictures, CPU, choice)
    assert (frozen.backbone.layers._compiled_call_impl is not None) == compiled


def test_no_work_pays_for_compiling_on_a_cpu_without_matrix_units(monkeypatch: pytest.MonkeyPatch):
    frozen = Frozen(Tiny(weights=None))
    monkeypatch.setattr(extraction, "has_matrix_units", lambda: False)
    compile_if_it_pays(frozen, (1, 3, 64, 64), 10**12, CPU, "auto")
    assert frozen.backbone.layers._compiled_call_impl is None


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_backbone_gives_the_same_features():
    frozen = Frozen(Tiny())
    pictures = torch.rand(3, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = frozen(pictures)
    compile_if_it_pays(frozen, (1, 3, 64, 64), 1, CPU, True)
    assert frozen.backbone.layers._compiled_call_impl is not None
    assert torch.allclose(frozen(pictures), expected, atol=1e-5)


def test_where_nothing_can_be_compiled_work_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(*_: object) -> None:
        raise RuntimeError("no C++ compiler\nand a long story")

    frozen = Frozen(Tiny(weights=None))
    monkeypatch.setattr(torch, "compile", lambda function, **_: fail)
    compile_if_it_pays(frozen, (1, 3, 64, 64), 1, CPU, True)
    assert capsys.readouterr().err == (
        "torch.compile does not work here (RuntimeError: no C++ compiler); going on without.\n"
    )
    assert frozen(torch.zeros(1, 1, 3, 64, 64)).shape == (1, 1, 1024)


def test_a_compile_setting_that_is_none_is_refused():
    with pytest.raises(VidclfError, match="compile=maybe: allowed are auto, true, false"):
        compile_if_it_pays(Frozen(Tiny(weights=None)), (1, 3, 64, 64), 1, CPU, "maybe")


# Filling a store


def requests_of(clips: list[Path], *frames: int) -> list[Request]:
    return [Request(path, units(*frames), f"{number}" * 64) for number, path in enumerate(clips)]


def computing(frozen: Frozen, num_threads: int = 2) -> Callable:
    transform = BackboneTransform(frozen.picture_format)
    return partial(compute_features, transform=transform, backbone=frozen, device=CPU, num_threads=num_threads)


def test_a_store_is_filled_with_what_is_missing_and_each_request_is_told_once(store: FeatureStore, clips: list[Path]):
    frozen = Frozen(Pictures())
    counter = Counter(frozen.backbone)
    few, more = requests_of(clips, 0, 2), requests_of(clips, 0, 2, 5)
    assert dict(fill(store, few, computing(frozen))) == dict.fromkeys(few, 2)
    assert dict(fill(store, more, computing(frozen))) == dict.fromkeys(more, 1)
    assert dict(fill(store, few, computing(frozen))) == dict.fromkeys(few, 0)
    assert counter.count == 4 * 3
    expected = dict(compute_features(more, BackboneTransform(frozen.picture_format), frozen, CPU))
    assert all(torch.equal(store.read(request), expected[request]) for request in more)


def test_damaged_videos_are_told_and_the_rest_is_stored(store: FeatureStore, clips: list[Path]):
    spoil(clips[1])
    requests = requests_of(clips, 0, 2)
    results = dict(fill(store, requests, computing(Frozen(Pictures()))))
    assert [isinstance(results[request], VideoError) for request in requests] == [False, True, False, False]
    assert [len(units) for units in store.missing_of_all(requests)] == [0, 2, 0, 0]


HOLDER = """
import sys
from pathlib import Path
from vidclf.features.store import FeatureStore, Recipe
store = FeatureStore(Path(sys.argv[1]), Recipe("backbone", "weights", "float32", "transform"), "pictures")
print(store.claim("1" * 64), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("ends", ["kills", "computes"])
def test_a_video_that_another_process_computes_is_left_to_it(ends: str, store: FeatureStore, clips: list[Path]):
    """It ends by a kill: then we compute the video. Or with the work done: then we do not."""
    frozen = Frozen(Pictures())
    counter = Counter(frozen.backbone)
    requests = requests_of(clips, 0, 2)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.folder.parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "True\n"
    assert not store.claim("1" * 64)

    def end() -> None:
        while len([*store.folder.glob("*.safetensors")]) < 3:  # ours, all but the one
            time.sleep(0.01)
        if ends == "computes":
            FeatureStore(store.folder.parent, RECIPE, "pictures").add("1" * 64, units(0, 2), torch.ones(2, 1, 1, 6))
        holder.kill()
        holder.wait()

    thread = threading.Thread(target=end)
    thread.start()
    results = dict(fill(store, requests, computing(frozen)))
    thread.join()
    holder.stdin.close()
    holder.stdout.close()
    others = 0 if ends == "computes" else 2
    assert [results[request] for request in requests] == [2, others, 2, 2]
    assert counter.count == 6 + others


def test_a_disk_that_fills_midway_is_one_sentence_and_keeps_what_was_written(
    store: FeatureStore, clips: list[Path], monkeypatch: pytest.MonkeyPatch
):
    requests = requests_of(clips, 0, 2)
    add = store.add

    def add_until_full(content: str, *tensors: Tensor) -> None:
        if content[0] == "2":
            raise VidclfError("no space left")
        add(content, *tensors)

    monkeypatch.setattr(store, "add", add_until_full)
    with pytest.raises(VidclfError, match="no space left"):
        list(fill(store, requests, computing(Frozen(Pictures()))))
    assert [len(units) for units in store.missing_of_all(requests)][:3] == [0, 0, 2]
    monkeypatch.undo()
    assert sum(result for _, result in fill(store, requests, computing(Frozen(Pictures())))) in (2, 4)

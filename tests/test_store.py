"""What the feature store keeps is what would be computed, bit for bit, and is never what is out of date."""

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from doubles import RECIPE, Pictures, TwoCrops, units
from torch import Tensor, nn

from vidclf.data.transforms import BackboneTransform, TutorialTransform
from vidclf.errors import VidclfError
from vidclf.features.store import (
    FeatureStore,
    Recipe,
    Request,
    hash_weights,
    recipe_of,
    why_not_stored,
)
from vidclf.models.backbones.wrapped import Frozen

CPU = torch.device("cpu")
CONTENT = "c" * 64


def request(*frames: int, content: str = CONTENT) -> Request:
    return Request(Path("a.avi"), units(*frames), content)


def some_features(*frames: int, crops: int = 1, steps: int = 1) -> Tensor:
    return torch.stack([torch.full((crops, steps, 3), float(frame)) for frame in frames])


def recipe(backbone: nn.Module, transform: Any = None) -> Recipe:
    return recipe_of(backbone, hash_weights(backbone), transform or BackboneTransform(backbone.picture_format))


# Reading and writing


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_read_is_what_was_written_in_the_order_asked_for(store: FeatureStore, dtype: torch.dtype):
    features = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    store.add(CONTENT, units(7, 0, 30), features)
    read = store.read(request(30, 7, 7, 0))
    assert read.dtype == dtype
    assert torch.equal(read, features[[2, 0, 0, 1]])


def test_only_what_is_not_there_is_missing(store: FeatureStore):
    assert store.missing(request(5, 2, 5)).tolist() == [[2], [5]]
    store.add(CONTENT, units(2), some_features(2))
    assert store.missing(request(5, 2, 9)).tolist() == [[5], [9]]
    assert store.missing(request(2, content="d" * 64)).tolist() == [[2]]


def test_new_units_join_the_old_ones_and_do_not_replace_them(store: FeatureStore):
    store.add(CONTENT, units(1, 2), some_features(1, 2))
    store.add(CONTENT, units(2, 3), some_features(200, 3))
    assert store.read(request(1, 2, 3))[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert len(list(store.folder.glob("*.safetensors"))) == 1


def test_clips_of_another_length_live_beside_each_other(store: FeatureStore):
    """A clip backbone takes 8 frames or 16, which gives it another number of steps."""
    for length, steps in ((4, 2), (8, 4), (1, 1)):
        one = Request(Path("a.avi"), torch.arange(length)[None], CONTENT)
        assert len(store.missing(one)) == 1
        store.add(CONTENT, one.units, some_features(length, steps=steps))
    for length, steps in ((4, 2), (8, 4), (1, 1)):
        read = store.read(Request(Path("a.avi"), torch.arange(length)[None], CONTENT))
        assert torch.equal(read, some_features(length, steps=steps))


def test_what_is_not_stored_is_a_sentence(store: FeatureStore):
    with pytest.raises(VidclfError, match=r"a\.avi: no features in .*pictures-.*Run vidclf extract first\."):
        store.read(request(1))
    store.add(CONTENT, units(1), some_features(1))
    with pytest.raises(VidclfError, match=r"a\.avi: frames \(4,\) have no features"):
        store.read(request(1, 4))


def test_the_index_answers_for_files_that_are_as_it_knows_them(store: FeatureStore, monkeypatch: pytest.MonkeyPatch):
    requests = [request(1, 2, content=f"{number}" * 64) for number in range(5)]
    for one in requests[:4]:
        store.add(one.content, one.units, some_features(1, 2))
    again = FeatureStore(store.folder.parent, RECIPE, "pictures")
    assert [len(units) for units in again.missing_of_all(requests)] == [0, 0, 0, 0, 2]
    opened = []
    rows = FeatureStore._rows
    monkeypatch.setattr(FeatureStore, "_rows", lambda self, path: opened.append(path.name[0]) or rows(self, path))
    store.add(requests[2].content, units(3), some_features(3))  # another size, another time
    third = FeatureStore(store.folder.parent, RECIPE, "pictures")
    wanted = [request(1, 2, 3, content=one.content) for one in requests]
    assert [len(units) for units in third.missing_of_all(wanted)] == [1, 1, 0, 1, 3]
    assert opened == ["2"]


def test_the_folder_is_looked_through_once(store: FeatureStore, monkeypatch: pytest.MonkeyPatch):
    scans = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scans.append(path) or scan(path))
    for _ in range(3):
        assert store.missing_of_all([request(1)])[0].tolist() == [[1]]
    store.add(CONTENT, units(1), some_features(1))
    assert store.missing_of_all([request(1, 2)])[0].tolist() == [[2]]
    assert len(scans) == 1


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"\xff\xfe", b'{"a": '])
def test_a_damaged_index_is_written_anew(content: bytes, store: FeatureStore):
    store.add(CONTENT, units(1), some_features(1))
    (store.folder / "index.json").write_bytes(content)
    assert FeatureStore(store.folder.parent, RECIPE, "pictures").missing_of_all([request(1, 2)])[0].tolist() == [[2]]
    assert len(json.loads((store.folder / "index.json").read_bytes())) == 1


def test_a_store_of_another_format_is_told_and_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    old = FeatureStore(tmp_path, replace(RECIPE, format=0), "pictures")
    old.add(CONTENT, units(1), some_features(1))
    assert capsys.readouterr().err == ""
    new = FeatureStore(tmp_path, RECIPE, "pictures")
    told = capsys.readouterr().err
    assert told.startswith(
        f"{old.folder}: features in format 0 of the store, which this version of vidclf does not read"
    )
    assert new.missing(request(1)).tolist() == [[1]]


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"\xff" * len(data), lambda _: b"", lambda d: d[:20]]
)
def test_a_damaged_file_counts_as_absent_and_is_mended(store: FeatureStore, damage: Callable[[bytes], bytes]):
    store.add(CONTENT, units(1, 2), some_features(1, 2))
    (path,) = store.folder.glob("*.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    assert store.missing(request(1, 2)).tolist() == [[1], [2]]
    with pytest.raises(VidclfError, match="no features"):
        store.read(request(1))
    store.add(CONTENT, units(1, 2), some_features(1, 2))
    assert torch.equal(store.read(request(1, 2)), some_features(1, 2))


def test_the_folder_says_what_it_was_computed_with(store: FeatureStore):
    assert json.loads((store.folder / "recipe.json").read_text()) == {
        "backbone": "backbone",
        "weights": "weights",
        "precision": "float32",
        "transform": "transform",
        "format": 1,
    }


OTHER_WRITER = """
import os, signal, sys, torch
from pathlib import Path
from vidclf.system import disk
from vidclf.features.store import FeatureStore, Recipe

store = FeatureStore(Path(sys.argv[1]), Recipe("backbone", "weights", "float32", "transform"), "pictures")
print("ready", flush=True)
for frame in range(100, 110):
    store.add("c" * 64, torch.tensor([[frame]]), torch.full((1, 1, 1, 3), float(frame)))
disk.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
store.add("c" * 64, torch.tensor([[110]]), torch.zeros(1, 1, 1, 3))
"""


def test_writers_at_once_lose_nothing_though_one_is_killed(tmp_path: Path):
    """Threads of this process and another process add to one video's file; the other is killed as it writes."""

    def write(start: int) -> None:
        store = FeatureStore(tmp_path, RECIPE, "pictures")
        for frame in range(start, start + 10):
            store.add(CONTENT, units(frame), some_features(frame))

    command = [sys.executable, "-c", OTHER_WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other, ThreadPoolExecutor(3) as pool:
        assert other.stdout.readline() == b"ready\n"
        list(pool.map(write, (0, 10, 20)))
        assert other.wait(60) == -signal.SIGKILL
    store = FeatureStore(tmp_path, RECIPE, "pictures")
    frames = [*range(30), *range(100, 110)]
    assert torch.equal(store.read(request(*frames)), some_features(*frames))
    assert store.missing(request(110)).tolist() == [[110]]
    store.add(CONTENT, units(110), some_features(110))  # its lock holds nobody up


@pytest.mark.parametrize(("number", "reason"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only")])
def test_a_disk_that_is_full_or_read_only_midway_is_a_sentence(
    number: int, reason: str, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
):
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    store.add(CONTENT, units(1), some_features(1))
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(VidclfError, match=rf"pictures-\w+: cannot write \({reason}.*Free space.*store\.root="):
        store.add(CONTENT, units(2), some_features(2))
    assert torch.equal(store.read(request(1)), some_features(1))
    assert not [path for path in store.folder.iterdir() if path.name.startswith(".c")]


def test_a_root_that_is_a_file_is_a_sentence(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(VidclfError, match=r"file/pictures-\w+: cannot write \(Not a directory\).*store\.root="):
        FeatureStore(tmp_path / "file", RECIPE, "pictures")


# What the store keys on


@pytest.mark.parametrize(
    "change",
    [{"backbone": "other"}, {"weights": "other"}, {"precision": "bfloat16"}, {"transform": "other"}, {"format": 2}],
)
def test_whatever_changes_in_a_recipe_gets_another_folder(change: dict[str, Any], tmp_path: Path):
    one, other = (FeatureStore(tmp_path, one, "pictures") for one in (RECIPE, replace(RECIPE, **change)))
    one.add(CONTENT, units(1), some_features(1))
    assert len(other.missing(request(1))) == 1
    assert len(FeatureStore(tmp_path, RECIPE, "pictures").missing(request(1))) == 0


def test_the_same_backbone_made_twice_has_one_recipe():
    assert recipe(Pictures()) == recipe(Pictures())
    assert recipe(Pictures()) == recipe(Frozen(Pictures()).backbone)


def test_other_weights_and_statistics_have_another_hash():
    backbones = [Pictures(), Pictures(seed=1), Pictures()]
    backbones[2].rest[0].running_mean += 1e-3  # BatchNorm's: a buffer
    assert len({hash_weights(backbone) for backbone in backbones}) == 3
    assert hash_weights(Pictures()) == hash_weights(Pictures())


def test_a_buffer_that_is_not_saved_counts_as_a_weight():
    one, other = Pictures(), Pictures()
    one.register_buffer("shift", torch.zeros(2), persistent=False)
    other.register_buffer("shift", torch.ones(2), persistent=False)
    assert hash_weights(one) != hash_weights(other)


def test_another_layer_or_transform_has_another_recipe():
    deeper = Pictures()
    deeper.rest.append(nn.Tanh())
    transforms = [
        BackboneTransform(Pictures.picture_format),
        TutorialTransform(Pictures.picture_format),
        TwoCrops(Pictures.picture_format),
    ]
    transforms.append(BackboneTransform(replace(Pictures.picture_format, resize=21)))
    recipes = [recipe(deeper), *(recipe(Pictures(), transform) for transform in transforms)]
    assert len({one.digest for one in recipes}) == 5


OWN = """
from torch import nn
from vidclf.contracts import PictureFormat

class Layer(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, pictures):
        return self.scale * pictures

class Mine(nn.Module):
    picture_format = PictureFormat(16, 16, (0.5,) * 3, (0.5,) * 3)
    feature_dim = 3

    def __init__(self, scale=1.0):
        super().__init__()
        self.layer = Layer(scale)
        self.calls = 0

    def forward(self, pictures):
        self.calls += 1
        return self.layer(pictures).mean((3, 4))
"""


def own_module(path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the user's own file as Hydra would, anew."""
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("my_backbone", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_backbone", module)
    spec.loader.exec_module(module)
    return module


def test_a_change_in_the_users_own_source_has_another_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = recipe(own_module(tmp_path / "a.py", OWN, monkeypatch).Mine())
    same = recipe(own_module(tmp_path / "b.py", OWN, monkeypatch).Mine())
    changed = OWN.replace("self.scale * pictures", "self.scale + pictures")  # in another class of the file
    assert before == same
    assert before.digest != recipe(own_module(tmp_path / "c.py", changed, monkeypatch).Mine()).digest


def test_a_setting_of_the_users_own_layers_has_another_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mine = own_module(tmp_path / "a.py", OWN, monkeypatch).Mine
    assert recipe(mine(1.0)).digest != recipe(mine(2.0)).digest


def test_use_does_not_change_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    backbone = own_module(tmp_path / "a.py", OWN, monkeypatch).Mine()
    before = recipe(backbone)
    backbone(torch.zeros(1, 1, 3, 2, 2))
    assert recipe(backbone) == before


@dataclass(frozen=True)
class RandomTransform(TwoCrops):
    random: ClassVar[bool] = True


class NamelessTransform:
    num_crops = 1
    random = False

    def __call__(self, frames: Tensor) -> Tensor:
        raise RuntimeError("a mistake in the transform")


def test_what_cannot_be_stored_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pictures = BackboneTransform(Pictures.picture_format)
    assert why_not_stored(Pictures(), pictures) is None
    trained = Pictures().requires_grad_()
    assert why_not_stored(trained, pictures) == "the backbone is trained, so its features change"
    assert why_not_stored(Pictures(), RandomTransform(Pictures.picture_format)).startswith(
        "RandomTransform draws by chance"
    )
    reason = why_not_stored(Pictures(), NamelessTransform())
    assert "NamelessTransform has no repr that names its settings (make it a dataclass)" in reason
    mine = own_module(tmp_path / "a.py", OWN, monkeypatch).Mine
    assert "Mine has no repr that names its settings (see extra_repr)" in why_not_stored(mine(print_it), pictures)
    (tmp_path / "a.py").unlink()
    assert "source of a class cannot be read" in why_not_stored(mine(), pictures)


def print_it() -> None:
    """A setting without a name of its own."""

"""The store returns features bit for bit as they were computed, and never outdated ones."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from doubles import RECIPE, halve, units
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vidclf.errors import VidclfError
from vidclf.features import store as store_module
from vidclf.features.store import FeatureError, FeatureStore
from vidclf.system import disk

CONTENT = "c" * 64


def missing(store: FeatureStore, *frames: int, content: str = CONTENT) -> Tensor:
    return store.missing_of_all([(content, units(*frames))])[0]


def fresh(store: FeatureStore) -> FeatureStore:
    """Return the store as another process opens it."""
    return FeatureStore(store.folder.parent, RECIPE, "pictures")


def some_features(*frames: int, crops: int = 1, steps: int = 1) -> Tensor:
    return torch.stack([torch.full((crops, steps, 3), float(frame)) for frame in frames])


# Reading and writing


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_read_as_written_in_the_requested_order(store: FeatureStore, dtype: torch.dtype):
    features = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    store.add(CONTENT, units(7, 0, 30), features)
    read = store.read(CONTENT, units(30, 7, 7, 0))
    assert read.dtype == dtype
    assert torch.equal(read, features[[2, 0, 0, 1]])


def test_only_units_that_are_not_stored_are_missing(store: FeatureStore):
    assert missing(store, 5, 2, 5).tolist() == [[2], [5]]
    store.add(CONTENT, units(2), some_features(2))
    assert missing(store, 5, 2, 9).tolist() == [[5], [9]]
    assert missing(store, 2, content="d" * 64).tolist() == [[2]]


def test_new_units_are_added_and_old_ones_are_kept(store: FeatureStore):
    store.add(CONTENT, units(1, 2), some_features(1, 2))
    store.add(CONTENT, units(2, 3), some_features(200, 3))
    assert store.read(CONTENT, units(1, 2, 3))[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert [path.relative_to(store.folder) for path in store.folder.rglob("*.safetensors")] == [
        Path("cc", f"{CONTENT}-1.safetensors")
    ]


def test_clips_of_different_lengths_are_stored_side_by_side(store: FeatureStore):
    """A clip backbone takes 8 frames or 16, which gives it another number of steps."""
    for length, steps in ((4, 2), (8, 4), (1, 1)):
        clip = torch.arange(length)[None]
        assert len(store.missing_of_all([(CONTENT, clip)])[0]) == 1
        store.add(CONTENT, clip, some_features(length, steps=steps))
    for length, steps in ((4, 2), (8, 4), (1, 1)):
        read = store.read(CONTENT, torch.arange(length)[None])
        assert torch.equal(read, some_features(length, steps=steps))


def test_reading_a_missing_unit_is_an_error(store: FeatureStore):
    with pytest.raises(VidclfError, match=r"a\.avi: no features in .*pictures-.*Run vidclf extract first\."):
        store.read(CONTENT, units(1), Path("a.avi"))
    store.add(CONTENT, units(1), some_features(1))
    with pytest.raises(VidclfError, match=r"a\.avi: frames \(4,\) have no features"):
        store.read(CONTENT, units(1, 4), Path("a.avi"))


def test_only_files_that_the_index_does_not_know_are_read(store: FeatureStore, monkeypatch: pytest.MonkeyPatch):
    contents = [f"{number}" * 64 for number in range(5)]
    with store.computing(0, 1):
        for content in contents[:4]:
            store.add(content, units(1, 2), some_features(1, 2))
    read = []
    load = store_module._load
    monkeypatch.setattr(store_module, "_load", lambda path, shape: read.append(path.name[0]) or load(path, shape))
    assert [len(missing(fresh(store), 1, 2, content=content)) for content in contents] == [0, 0, 0, 0, 2]
    assert read == []
    other = fresh(store)
    other.add(contents[2], units(3), some_features(3))  # another size, another time, not saved
    read.clear()
    wanted = [(content, units(1, 2, 3)) for content in contents]
    for _ in range(2):
        assert [len(units) for units in fresh(store).missing_of_all(wanted)] == [1, 1, 0, 1, 3]
    assert read == ["2"]


def test_without_an_index_every_file_is_read(store: FeatureStore):
    with store.computing(0, 1):
        store.add(CONTENT, units(1), some_features(1))
    (store.folder / "index.sqlite").write_bytes(b"no table" * 100)
    assert missing(fresh(store), 1, 2).tolist() == [[2]]


def test_features_of_earlier_versions_are_read_and_moved_when_units_are_added(store: FeatureStore):
    """They lie in one folder, without a checksum."""
    flat = store.folder / f"{CONTENT}-1.safetensors"
    save_file({"rows": units(1, 2), "features": some_features(1, 2)}, flat)
    assert missing(store, 1, 2, 3).tolist() == [[3]]
    assert torch.equal(store.read(CONTENT, units(2, 1)), some_features(2, 1))
    store.add(CONTENT, units(3), some_features(3))
    assert [path.parent.name for path in store.folder.rglob("*.safetensors")] == ["cc"]
    assert torch.equal(fresh(store).read(CONTENT, units(3, 2, 1)), some_features(3, 2, 1))


def test_a_store_of_another_format_is_not_read(tmp_path: Path):
    FeatureStore(tmp_path, replace(RECIPE, format=0), "pictures").add(CONTENT, units(1), some_features(1))
    assert missing(FeatureStore(tmp_path, RECIPE, "pictures"), 1).tolist() == [[1]]


def rewritten(path: Path, **tensors: Tensor) -> None:
    """Write other tensors, with the checksum of the old ones."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(tensors, path, metadata)


ROWS, FEATURES = units(1, 2), some_features(1, 2)
DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: halve(path),
    "empty": lambda path: path.write_bytes(b""),
    "zeroed": lambda path: path.write_bytes(path.read_bytes()[:-10].ljust(path.stat().st_size, b"\0")),
    "noise": lambda path: path.write_bytes(b"\xff" * path.stat().st_size),
    "without rows": lambda path: rewritten(path, features=FEATURES),
    "other rows": lambda path: rewritten(path, rows=ROWS + 1, features=FEATURES),
    "rows of clips": lambda path: rewritten(path, rows=ROWS.expand(2, 4).contiguous(), features=FEATURES),
    "rows of floats": lambda path: rewritten(path, rows=ROWS.double(), features=FEATURES),
    "fewer features": lambda path: rewritten(path, rows=ROWS, features=FEATURES[:1]),
    "wider features": lambda path: rewritten(path, rows=ROWS, features=FEATURES.expand(2, 1, 1, 3).repeat(1, 1, 1, 2)),
    "integers": lambda path: rewritten(path, rows=ROWS, features=FEATURES.int()),
    "another format": lambda path: rewritten(path, rows=ROWS, features=FEATURES.half()),
    "no checksum": lambda path: save_file({"rows": ROWS, "features": FEATURES}, path),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link": lambda path: path.symlink_to(path.rename(path.with_name("moved"))),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_is_reported_and_counts_as_missing_and_is_replaced(
    kind: str, store: FeatureStore, capsys: pytest.CaptureFixture[str]
):
    store.add(CONTENT, ROWS, FEATURES)
    (path,) = store.folder.rglob("*.safetensors")
    DAMAGES[kind](path)
    store = fresh(store)
    assert missing(store, 1, 2).tolist() == [[1], [2]]
    assert capsys.readouterr().err.startswith(f"{path}: the stored features are damaged (")
    with pytest.raises(FeatureError, match=re.escape(str(path))):
        store.read(CONTENT, units(1))
    store.add(CONTENT, units(1, 2), some_features(1, 2))
    assert torch.equal(store.read(CONTENT, units(1, 2)), some_features(1, 2))


PLANTED = ("", "cc", ".locks", ".locks/cc.lock", "index.sqlite", "index.sqlite-journal", ".computing-0-of-1")


@pytest.mark.parametrize("make", [os.symlink, os.link])
@pytest.mark.parametrize("name", PLANTED)
def test_nothing_is_changed_through_a_link_in_a_store(make: Callable, name: str, store: FeatureStore, tmp_path: Path):
    outside, path = tmp_path / "outside", store.folder / name
    is_file = "." in name[1:]
    if is_file:
        outside.write_bytes(b"mine")
    elif make is os.link:
        pytest.skip("a folder has no hard links")
    else:
        outside.mkdir()
        (outside / f"{CONTENT}-1.safetensors").write_bytes(b"mine")
    if name == "":
        shutil.rmtree(path)
    path.parent.mkdir(exist_ok=True)
    make(outside, path)

    def use() -> None:
        opened = fresh(store)
        with opened.computing(0, 1):
            missing(opened, 1)
            opened.add(CONTENT, units(1), some_features(1))

    with pytest.raises(VidclfError, match="is a link"):
        use()
    files = [outside] if is_file else [*outside.iterdir()]
    assert [file.read_bytes() for file in files] == [b"mine"]


@pytest.mark.parametrize("features", [some_features(1, 2)[..., :2].contiguous(), some_features(1, 2, crops=2)])
def test_features_of_another_shape_than_the_backbones_are_damaged(features: Tensor, store: FeatureStore):
    """Files of earlier versions have no checksum that would tell."""
    save_file({"rows": ROWS, "features": features}, store.folder / f"{CONTENT}-1.safetensors")
    store = FeatureStore(store.folder.parent, RECIPE, "pictures", shape=(1, 3))
    assert missing(store, 1, 2).tolist() == [[1], [2]]


def test_no_changed_byte_changes_a_feature(store: FeatureStore):
    store.add(CONTENT, units(1, 2), some_features(1, 2))
    (path,) = store.folder.rglob("*.safetensors")
    whole = path.read_bytes()
    num_damaged = 0
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x11]) + whole[position + 1 :])
        try:
            assert torch.equal(store.read(CONTENT, units(1, 2)), some_features(1, 2))
        except FeatureError:
            num_damaged += 1
    assert num_damaged > 200


def test_the_recipe_is_written_into_the_folder(store: FeatureStore):
    assert json.loads((store.folder / "recipe.json").read_text()) == asdict(RECIPE)


@pytest.mark.parametrize("name", ["../../up", "a/b", "hf-hub:x/y.z", "ü \n$", "..", "", "n" * 300])
def test_any_name_of_a_backbone_gives_a_folder_below_the_root(name: str, tmp_path: Path):
    folder = FeatureStore(tmp_path / "store", RECIPE, name).folder
    assert folder.is_dir()
    assert folder.resolve().parent == (tmp_path / "store").resolve()
    assert folder.name.endswith(f"-{RECIPE.digest}")


OTHER_WRITER = """
import os, signal, sys, torch
from pathlib import Path
from vidclf.system import disk
from vidclf.features.recipe import Recipe
from vidclf.features.store import FeatureStore

store = FeatureStore(Path(sys.argv[1]), Recipe(*"BTSWND", 32), "pictures")
print("ready", flush=True)
for frame in range(100, 110):
    store.add("c" * 64, torch.tensor([[frame]]), torch.full((1, 1, 1, 3), float(frame)))
disk.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
store.add("c" * 64, torch.tensor([[110]]), torch.zeros(1, 1, 1, 3))
"""


def test_simultaneous_writers_lose_nothing_even_if_one_is_killed(tmp_path: Path):
    """Threads of this process and another process add to one video's file; the other is killed as it writes."""

    def write(start: int) -> None:
        store = FeatureStore(tmp_path, RECIPE, "pictures")
        for frame in range(start, start + 10):
            store.add(CONTENT, units(frame), some_features(frame))

    command = [sys.executable, "-c", OTHER_WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer, ThreadPoolExecutor(3) as pool:
        assert writer.stdout.readline() == b"ready\n"
        list(pool.map(write, (0, 10, 20)))
        assert writer.wait(60) == -signal.SIGKILL
    store = FeatureStore(tmp_path, RECIPE, "pictures")
    frames = [*range(30), *range(100, 110)]
    assert torch.equal(store.read(CONTENT, units(*frames)), some_features(*frames))
    assert missing(store, 110).tolist() == [[110]]
    disk._leftovers.cache_clear()  # as another process
    store.add(CONTENT, units(110), some_features(110))  # its lock is released
    assert not list(store.folder.rglob(f".{CONTENT}*"))  # and what it left is removed


@pytest.mark.parametrize(("number", "reason"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only")])
def test_a_disk_that_becomes_full_or_read_only_is_reported(
    number: int, reason: str, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
):
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    store.add(CONTENT, units(1), some_features(1))
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(VidclfError, match=rf"pictures-\w+: cannot write \({reason}.*Free space.*store\.root="):
        store.add(CONTENT, units(2), some_features(2))
    assert torch.equal(store.read(CONTENT, units(1)), some_features(1))
    assert [path.name for path in (store.folder / "cc").iterdir()] == [f"{CONTENT}-1.safetensors"]


def test_a_root_that_is_a_file_is_reported(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(VidclfError, match=r"file/pictures-\w+: cannot write \(Not a directory\).*store\.root="):
        FeatureStore(tmp_path / "file", RECIPE, "pictures")


HOLDER = """
import sys
from pathlib import Path
from vidclf.features.recipe import Recipe
from vidclf.features.store import FeatureStore
store = FeatureStore(Path(sys.argv[1]), Recipe(*"BTSWND", 32), "pictures")
with store.computing(0, 1):
    print("has it", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_waits_and_then_sees_what_the_first_computed(
    store: FeatureStore, capsys: pytest.CaptureFixture[str]
):
    """The first is killed, which releases its lock. Another share does not wait."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.folder.parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"has it\n"
    assert len(missing(store, 1)) == 1
    with store.computing(1, 2):
        assert capsys.readouterr().err == ""

    def end() -> None:
        time.sleep(0.3)
        fresh(store).add(CONTENT, units(1), some_features(1))
        holder.kill()

    thread = threading.Thread(target=end)
    thread.start()
    with store.computing(0, 1):
        assert "another process is computing features; waiting for it" in capsys.readouterr().err
        assert len(missing(store, 1)) == 0
    thread.join()
    assert holder.wait(10) == -signal.SIGKILL
    holder.stdin.close()
    holder.stdout.close()


def test_the_lock_ends_with_an_error(store: FeatureStore, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(RuntimeError), store.computing(0, 1):
        raise RuntimeError
    with fresh(store).computing(0, 1):
        assert capsys.readouterr().err == ""

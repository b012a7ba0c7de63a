"""Fixtures of the whole suite: the shared real clips and small UCF101 trees. Fast tests are marked here."""

import gc
import inspect
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from verbs import SMALL, Outcome, call
from videos import write_ucf101_tree

if TYPE_CHECKING:
    from vidclf.features.store import FeatureStore

os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder prints its settings otherwise
gc.disable()  # while the tests are imported: nothing of them is garbage

# Fixtures that run verbs, or encode trees of clips, and files that export, compile or draw networks of full size.
SLOW_FIXTURES = {
    *("vidclf", "trained", "run", "clips", "ucf101_tree", "shared"),
    *("alone", "tuned", "ordered", "check", "twins", "small_demo", "wheel", "source", "sound_bytes"),
}
SLOW_FILES = {
    *(
        "test_export.py",
        "test_int8.py",
        "test_grid.py",
        "test_ranks.py",
        "test_demo.py",
        "test_wheel.py",
        "test_sequence_heads.py",
    ),
    *("test_timm_models.py", "test_torchvision_models.py", "test_transformers_models.py"),
}


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark every test as fast, except those marked slow, in a slow file, with a slow fixture, or with a process."""
    for item in items:
        slow = item.get_closest_marker("slow") or SLOW_FIXTURES.intersection(item.fixturenames)
        starts_process = "subprocess." in inspect.getsource(item.function)
        if not (slow or starts_process or item.path.name in SLOW_FILES):
            item.add_marker("fast")


def pytest_collection_finish() -> None:
    """Exclude the imported modules from garbage collection, which takes 0.3 s to look at all of them."""
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests were skipped because the shared clips are absent."""
    skipped = [report for report in terminalreporter.getreports("skipped") if "VIDCLF_SHARED" in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests need the shared real clips: set VIDCLF_SHARED.", yellow=True)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one thread: networks this small wait for other threads longer than they compute."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real clips and list files, named by VIDCLF_SHARED."""
    folder = Path(os.environ.get("VIDCLF_SHARED") or Path(__file__).parents[1] / "../shared")
    if not folder.is_dir():
        pytest.skip(f"the shared real clips are not at {folder}: set VIDCLF_SHARED")
    return folder.resolve()


@pytest.fixture
def ucf101_tree(tmp_path: Path) -> Callable[..., Path]:
    """`ucf101_tree(classes, groups, clips_per_group, num_frames)` writes a tree of real clips, returns its root."""
    return partial(write_ucf101_tree, tmp_path / "UCF-101")


@pytest.fixture
def vidclf(tmp_path: Path) -> Callable[..., Outcome]:
    """`vidclf("train", "seed=1")` runs the verb in this process, in the test's folder."""
    return partial(call, folder=tmp_path)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a UCF101 tree for the whole session, which must not change: 2 classes with 4 test and 6 train videos."""
    return write_ucf101_tree(tmp_path_factory.mktemp("data") / "UCF-101", groups=(1, 2, 8, 9, 10))


@pytest.fixture
def store(tmp_path: Path) -> "FeatureStore":
    """An empty feature store of `doubles.RECIPE`."""
    from doubles import RECIPE  # not above: vidclf must be imported after jaxtyping's hook is set

    from vidclf.features.store import FeatureStore

    return FeatureStore(tmp_path / "store", RECIPE, "pictures")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> Outcome:
    """Train a small run for the whole session. Its folder `trained.run` must not change: `run` is a copy."""
    outcome = call("train", f"dataset.root={clips}", *SMALL, folder=tmp_path_factory.mktemp("project"))
    assert outcome.status == 0, outcome.err
    return outcome


@pytest.fixture
def run(trained: Outcome, tmp_path: Path) -> Path:
    """Copy the small run into the test's folder."""
    return shutil.copytree(trained.run, tmp_path / "runs" / "train" / trained.run.name)

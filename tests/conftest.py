"""Fixtures of the whole suite: the shared real clips and small UCF101 trees; and which tests are fast."""

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

# Fixtures that run verbs, encode trees of clips or build large networks: their tests are not fast.
SLOW_FIXTURES = {
    *("vidclf", "trained", "run", "clips", "ucf101_tree", "shared"),
    *("alone", "tuned", "ordered", "check", "twins", "small_demo", "wheel", "source", "sound_bytes"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test as fast, except those marked slow, those with a slow fixture, and those that start a process."""
    for item in items:
        assert isinstance(item, pytest.Function)
        slow = item.get_closest_marker("slow") or SLOW_FIXTURES.intersection(item.fixturenames)
        if not slow and "subprocess." not in inspect.getsource(item.function):
            item.add_marker("fast")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were skipped for want of the shared clips."""
    skipped = [report for report in terminalreporter.getreports("skipped") if "VIDCLF_SHARED" in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests need the shared real clips: set VIDCLF_SHARED.", yellow=True)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Networks this small wait for each other's threads longer than they compute."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips and list files, named by VIDCLF_SHARED."""
    folder = Path(os.environ.get("VIDCLF_SHARED", Path(__file__).parents[1] / "../shared"))
    if not folder.is_dir():
        pytest.skip(f"the shared real clips are not at {folder}: set VIDCLF_SHARED")
    return folder.resolve()


@pytest.fixture
def ucf101_tree(tmp_path: Path) -> Callable[..., Path]:
    """`ucf101_tree(classes, groups, clips_per_group, num_frames)` writes a tree of real clips, returns its root."""
    return partial(write_ucf101_tree, tmp_path / "UCF-101")


@pytest.fixture
def vidclf(tmp_path: Path) -> Callable[..., Outcome]:
    """`vidclf("train", "seed=1")` runs the verb in this process, in the test's own folder."""
    return partial(call, folder=tmp_path)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A UCF101 tree for the whole session, not to be changed: 2 classes, 4 test and 6 train videos of each."""
    return write_ucf101_tree(tmp_path_factory.mktemp("data") / "UCF-101", groups=(1, 2, 8, 9, 10))


@pytest.fixture
def store(tmp_path: Path) -> "FeatureStore":
    """An empty feature store of `doubles.RECIPE`."""
    from doubles import RECIPE  # not above: vidclf must be imported after jaxtyping's hook is set

    from vidclf.features.store import FeatureStore

    return FeatureStore(tmp_path / "store", RECIPE, "pictures")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> Outcome:
    """What `vidclf train` left of a small run, its folder `trained.run` not to be changed: see `run`."""
    outcome = call("train", f"dataset.root={clips}", *SMALL, folder=tmp_path_factory.mktemp("project"))
    assert outcome.status == 0, outcome.err
    return outcome


@pytest.fixture
def run(trained: Outcome, tmp_path: Path) -> Path:
    """A copy of the small run, in the test's own folder."""
    return shutil.copytree(trained.run, tmp_path / "runs" / "train" / trained.run.name)

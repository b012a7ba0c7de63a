"""Fixtures of the whole suite: the shared real clips, and small UCF101 trees."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from videos import write_ucf101_tree

os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder prints its settings otherwise


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

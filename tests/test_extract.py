"""`vidclf extract`: the store filled at once, for every part, and read by what comes after."""

from collections.abc import Callable
from pathlib import Path

import pytest
from verbs import SMALL, Outcome


@pytest.fixture
def extract(vidclf: Callable[..., Outcome], clips: Path) -> Callable[..., Outcome]:
    """`extract("seed=1")` fills the test's own store."""
    return lambda *arguments: vidclf("extract", f"dataset.root={clips}", *SMALL, *arguments)


def test_the_store_is_filled_once_and_train_computes_nothing(
    extract: Callable[..., Outcome], vidclf: Callable[..., Outcome], clips: Path, tmp_path: Path
):
    outcome = extract()
    assert outcome.status == 0, outcome.err
    title, *rows = outcome.out.splitlines()
    assert title.startswith("Features in data/features/tiny-")
    assert rows == ["num_videos 20", "num_failed 0", "computed 120"]  # 6 frames of each
    assert extract().out.endswith("computed 0\n")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
    trained = vidclf("train", f"dataset.root={clips}", *SMALL, "trainer.max_epochs=1", "~callbacks.view_sheets")
    assert (trained.status, trained.err) == (0, "")


def test_another_rate_computes_only_the_frames_that_are_not_there_yet(extract: Callable[..., Outcome]):
    assert extract("sampling.rate_hz=5").out.endswith("computed 60\n")  # frames 0, 5, 10
    assert extract("sampling.rate_hz=10").out.endswith("computed 80\n")  # 2, 4, 6, 8


def test_extracting_where_nothing_is_stored_is_a_sentence(extract: Callable[..., Outcome]):
    outcome = extract("features=frames")
    assert outcome == (1, "", "VidclfError: features=frames: extract fills the feature store; "
                       "features=store says why it cannot.\n")  # fmt: skip

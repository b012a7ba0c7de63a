"""`vidclf extract` fills the store for every part, and later commands read it."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
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
    assert trained.status == 0, trained.err
    assert "Extracting" not in trained.err


def test_another_rate_computes_only_the_missing_frames(extract: Callable[..., Outcome]):
    assert extract("sampling.rate_hz=5").out.endswith("computed 60\n")  # frames 0, 5, 10
    assert extract("sampling.rate_hz=10").out.endswith("computed 80\n")  # 2, 4, 6, 8


def test_extracting_without_the_store_is_refused(extract: Callable[..., Outcome]):
    outcome = extract("features=frames")
    assert outcome == (1, "", "VidclfError: features=frames: extract fills the feature store. Leave it out.\n")


def test_shards_share_the_videos_and_together_fill_the_store(extract: Callable[..., Outcome]):
    outcomes = [extract(f"shard={number}/3") for number in (1, 2, 3)]
    examined = [re.findall(r"Examining (\d+) videos", outcome.err) for outcome in outcomes]
    assert examined == [["7"], ["7"], ["6"]]  # each only its own
    computed = [int(outcome.out.split()[-1]) for outcome in outcomes]
    assert computed == [7 * 6, 7 * 6, 6 * 6]
    assert extract().out.endswith("computed 0\n")


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3"])
def test_a_wrong_shard_is_refused(shard: str, extract: Callable[..., Outcome]):
    outcome = extract(f"shard={shard}")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == f"VidclfError: shard={shard}: must be k/n, the k-th of n shards. Use 1/64 to 64/64 for 64.\n"


STOPPING = """
import time, torch
from pathlib import Path
from vidclf.contracts import PictureFormat

class Stopping(torch.nn.Module):
    picture_format = PictureFormat(size=16, resize=16, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    feature_dim = 3
    calls = 0

    def forward(self, images):
        self.calls += 1
        while self.calls > 1 and Path("stop").exists():
            time.sleep(0.02)
        return images.mean((3, 4))
"""


def test_an_interrupted_extraction_goes_on_where_it_stopped(
    clips: Path, tmp_path: Path, vidclf: Callable[..., Outcome]
):
    """The backbone stops it after its first batch (32 frames, five videos), however fast the machine is."""
    (tmp_path / "my_backbones.py").write_text(STOPPING)
    (tmp_path / "stop").touch()
    arguments = [f"dataset.root={clips}", "sampling.rate_hz=10", "backbone=custom", "num_threads=1"]
    arguments += ["backbone._target_=my_backbones.Stopping"]
    command = [sys.executable, "-m", "vidclf", "extract", *arguments]
    accept = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=accept)
    store = tmp_path / "data" / "features"
    while len(list(store.glob("stopping-*/*/*.safetensors"))) < 5:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert len(list(store.glob("stopping-*/*/*.safetensors"))) == 5
    (tmp_path / "stop").unlink()
    outcome = vidclf("extract", *arguments)
    assert outcome.status == 0, outcome.err
    assert outcome.out.endswith(f"computed {15 * 6}\n")


def test_a_table_is_left_beside_the_store_and_never_overwritten(extract: Callable[..., Outcome], tmp_path: Path):
    outcome = extract("to=a table.parquet")
    assert outcome.status == 0, outcome.err
    assert outcome.out.endswith("rows 120\n")
    before = (tmp_path / "a table.parquet").read_bytes()
    for target in ("a table.parquet", "table.csv"):
        outcome = extract(f"to={target}", "dataset.root=nowhere")  # refused before any work
        assert (outcome.status, outcome.out) == (1, "")
        assert f"to={target}: " in outcome.err
    assert (tmp_path / "a table.parquet").read_bytes() == before

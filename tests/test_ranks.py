"""Several processes give the same as one: they share the videos, stop together, and only the first prints."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from doubles import spoil
from safetensors.torch import load_file
from torch import Tensor
from verbs import Outcome, call
from videos import write_ucf101_tree

from vidclf.system import ranks

# Without dropout, and a batch that two processes cannot share evenly.
SMALL = ("backbone=tiny", "++backbone.weights=null", "sampling.rate_hz=10", "num_threads=1")
HEAD = ("head.widths=[16]", "head.dropout=0", "trainer.max_epochs=2", "batch_size=5", "~callbacks.view_sheets")
TRAINED = (*SMALL, *HEAD, "dataset.on_error=skip")
TWO = ("trainer.devices=2", "trainer.accelerator=cpu")


def start(*command: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RANK", "LOCAL_RANK"))}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A UCF101 tree with a damaged training video."""
    root = write_ucf101_tree(tmp_path_factory.mktemp("damaged") / "UCF-101", groups=(1, 2, 8, 9, 10))
    spoil(root / "ApplyEyeMakeup" / "v_ApplyEyeMakeup_g09_c01.avi")
    return root


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, damaged: Path) -> Outcome:
    """A run of one process."""
    outcome = call("train", f"dataset.root={damaged}", *TRAINED, folder=tmp_path_factory.mktemp("alone"))
    assert outcome.status == 0, outcome.err
    return outcome


def weights(run: Path) -> dict[str, Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


def assert_same_training(run: Path, alone: Path) -> None:
    for name, weight in weights(alone).items():
        assert torch.allclose(weights(run)[name], weight, atol=1e-6), name
    assert metrics(run) == pytest.approx(metrics(alone), abs=1e-5)  # an interval over two groups magnifies rounding
    assert (run / "split.csv").read_text() == (alone / "split.csv").read_text()


def test_two_processes_train_and_score_as_one(alone: Outcome, damaged: Path, tmp_path: Path):
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    result = start(*torchrun, "vidclf", "train", f"dataset.root={damaged}", *TRAINED, *TWO, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("Extracting features of 5 videos") == 1
    assert result.stderr.count("left out: ") == 1
    assert "UserWarning" not in result.stderr
    (run,) = (tmp_path / "runs" / "train").iterdir()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data", "runs"]
    assert result.stdout.count(f"run {run}") == 1
    assert_same_training(run, alone.run)

    assert call("evaluate", f"run={alone.run}", folder=alone.run.parents[2]).status == 0
    (alone.run / "test").rename(tmp_path / "once")
    result = start("vidclf", "evaluate", f"run={alone.run}", *TWO, folder=alone.run.parents[2])
    assert result.returncode == 0, result.stderr
    once, twice = tmp_path / "once", alone.run / "test"
    assert metrics(twice) == pytest.approx(metrics(once), abs=1e-6)
    one, other = load_file(once / "logits.safetensors"), load_file(twice / "logits.safetensors")
    assert torch.equal(one["video"], other["video"])
    assert torch.allclose(one["logits"], other["logits"], atol=1e-5)


def test_a_damaged_video_of_any_rank_is_one_sentence_and_ends_all(damaged: Path, tmp_path: Path):
    result = start("vidclf", "extract", f"dataset.root={damaged}", *SMALL, *TWO, folder=tmp_path)
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if "Error" in line]
    assert said
    pattern = rf"\[rank \d\] VideoError: {damaged}/ApplyEyeMakeup/v_ApplyEyeMakeup_g09_c01\.avi: "
    assert all(re.match(pattern, line) for line in said)


# The environment of each process, without starting any


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "3", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "1"}, False),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, False),
    ],
)
def test_the_first_process_is_known_by_its_environment(
    environment: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ranks.is_rank_zero() == first


def test_a_process_alone_is_its_own_company():
    assert ranks.rank_and_size() == (0, 1)
    assert ranks.gather("one") == ["one"]
    assert ranks.local_world_size() == 1

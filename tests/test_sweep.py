"""A sweep computes each frame once, in one process or in several, and its jobs fail one by one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from verbs import SMALL, Outcome

# Notes how many images it gets, not counting the zeros that fill a batch up.
COUNTING = """
import os, torch
from vidclf.contracts import PictureFormat

class Counting(torch.nn.Module):
    picture_format = PictureFormat(size=16, resize=16, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    feature_dim = 6

    def __init__(self, notes):
        super().__init__()
        self.notes = notes
        self.layer = torch.nn.Conv2d(3, 6, 3).requires_grad_(False)

    def forward(self, images):
        with open(self.notes, "a") as file:
            file.write(f"{int(images.flatten(1).any(1).sum())}\\n")
        return self.layer(images.flatten(0, 1)).mean((2, 3)).unflatten(0, images.shape[:2])
"""
JOBS = ("head=linear,mlp", "sampling.rate_hz=5,10", "trainer.max_epochs=1", "~callbacks.view_sheets")
DISTINCT = 12 * 7  # videos of train and val; frames 0 2 4 6 8 10 at 10 Hz, and 0 5 10 at 5 Hz


@pytest.mark.parametrize("launcher", ["basic", "local_parallel"])
def test_no_frame_goes_through_the_backbone_twice_in_a_sweep(
    launcher: str, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vidclf: Callable[..., Outcome]
):
    (tmp_path / "my_backbones.py").write_text(COUNTING)
    backbone = ("backbone=custom", "backbone._target_=my_backbones.Counting", f"+backbone.notes={tmp_path / 'notes'}")
    settings = ("-m", f"dataset.root={clips}", *backbone, *JOBS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if launcher == "basic":
        monkeypatch.syspath_prepend(tmp_path)
        outcome = vidclf("train", *settings)
        assert outcome.status == 0, outcome.err
    else:
        command = [sys.executable, "-m", "vidclf", "train", *settings, "sweep=local_parallel"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("runs/train/*/*/metrics.json"))) == 4
    assert sum(map(int, (tmp_path / "notes").read_text().split())) == DISTINCT


def test_a_job_runs_under_submitit(clips: Path, tmp_path: Path):
    """A share of an extraction: unlike train, it imports nothing in the process that submits it."""
    settings = (f"dataset.root={clips}", *SMALL, "shard=1/2", "hydra/launcher=submitit_local")
    command = [sys.executable, "-m", "vidclf", "extract", "-m", *settings]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("data/features/*/*/*.safetensors"))) == 10


def test_a_slurm_sweep_composes(vidclf: Callable[..., Outcome]):
    outcome = vidclf("train", "sweep=slurm", "--cfg", "hydra", "--package", "hydra.launcher")
    assert outcome.status == 0, outcome.err
    assert "SlurmLauncher" in outcome.out
    assert "timeout_min: 720" in outcome.out


def test_a_sweep_of_several_devices_is_refused(clips: Path, vidclf: Callable[..., Outcome]):
    outcome = vidclf("train", "-m", f"dataset.root={clips}", *SMALL, "trainer.devices=2", "seed=0")
    assert outcome.status == 1
    assert "trainer.devices=2: each process of a sweep would run the whole sweep again" in outcome.err
    assert "sweep=local_parallel" in outcome.err

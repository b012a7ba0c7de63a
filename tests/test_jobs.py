"""An interrupted sweep goes on with the missing jobs, and is never mixed with another sweep."""

import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from scored_runs import CONFIG, write_run
from verbs import SMALL, Outcome

from vidclf.errors import VidclfError
from vidclf.models.learner import Learner
from vidclf.run.checkpoints import DESCRIPTION
from vidclf.run.jobs import Progress, job_of_sweep, read_job


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job with scores, and all its checkpoints."""
    folder = write_run(tmp_path / "0_seed-0", [], part=None)
    shutil.copy(folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt")
    return folder


@pytest.fixture
def begun(job: Path) -> Path:
    """A job that was interrupted in training."""
    (job / "metrics.json").unlink()
    return job


@pytest.fixture
def in_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Hydra report that this is a job of a sweep."""
    monkeypatch.setattr(HydraConfig, "get", lambda: type("Config", (), {"mode": RunMode.MULTIRUN}))


def test_a_job_with_scores_is_done_a_job_with_a_last_epoch_goes_on_any_other_begins(job: Path, tmp_path: Path):
    assert read_job(job, CONFIG) is Progress.DONE
    (job / "metrics.json").unlink()
    assert read_job(job, CONFIG) is Progress.BEGUN
    (job / "checkpoints" / "last.ckpt").unlink()  # a head that is fitted, not trained, leaves none
    assert read_job(job, CONFIG) is Progress.NEW
    assert read_job(tmp_path / "nowhere", CONFIG) is Progress.NEW


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, r"0_seed-0: this job was trained with other settings: seed=1 \(was 0\)\."),
        ({"trainer": {"max_epochs": 9}}, r"trainer\.max_epochs=9 \(was 3\)"),
        ({"dataset": CONFIG["dataset"] | {"root": "other"}}, r"dataset\.root=other \(was somewhere\)"),
        ({"head": {"over": {"lr": [1]}}}, r"head\._target_=None \(was vidclf\.models\.heads\.linear\.Linear\)"),
    ],
)
@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_a_job_of_other_settings_is_refused(changed: dict[str, Any], message: str, name: str, job: Path):
    (job / "checkpoints" / ({"best.ckpt", "last.ckpt"} - {name}).pop()).unlink()
    if name == "last.ckpt":
        (job / "metrics.json").unlink()
    with pytest.raises(VidclfError, match=message):
        read_job(job, CONFIG | changed)


def test_where_a_job_is_written_and_on_which_machine_may_differ(job: Path):
    machine = {"num_threads": 3, "compile": True, "store": {"root": "elsewhere"}, "logger": {"save_dir": "here"}}
    callbacks = {"best": {"dirpath": "here", "filename": None}}
    trainer = CONFIG["trainer"] | {"accelerator": "cpu", "devices": 1}
    assert read_job(job, CONFIG | machine | {"callbacks": callbacks, "trainer": trainer}) is Progress.DONE


def test_a_job_of_a_grid_is_recognised_by_its_own_configuration(job: Path):
    """Its checkpoint holds the configuration of the chosen head."""
    grid = CONFIG | {"head": {"head": "linear", "over": {"lr": [0.1, 0.2]}}}
    for path in (job / "checkpoints").iterdir():
        content = torch.load(path)
        content[DESCRIPTION]["asked"] = grid
        torch.save(content, path)
    assert read_job(job, grid) is Progress.DONE
    with pytest.raises(VidclfError, match=r"head\.over\.lr=\[0.3\] \(was \[0.1, 0.2\]\)"):
        read_job(job, CONFIG | {"head": {"head": "linear", "over": {"lr": [0.3]}}})


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_a_checkpoint_that_a_kill_left_half_written_is_renamed_and_the_job_begins(
    name: str, begun: Path, in_a_sweep: None, capsys: pytest.CaptureFixture[str]
):
    path = begun / "checkpoints" / name
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(half)
    with job_of_sweep(begun, CONFIG) as (progress, run):
        assert (progress, run) == (Progress.NEW, None)
    assert not path.exists()
    assert path.with_name(f"{name}.unreadable").read_bytes() == half
    assert f"{name}: cannot be read; renamed" in capsys.readouterr().err


def test_scores_without_a_readable_checkpoint_are_not_overwritten(job: Path):
    (job / "checkpoints" / "best.ckpt").write_bytes(b"")
    with pytest.raises(VidclfError, match=r"has scores, but no readable checkpoints/best.ckpt"):
        read_job(job, CONFIG)


@pytest.mark.parametrize("name", ["", "checkpoints", "checkpoints/last.ckpt"])
def test_a_link_in_the_place_of_a_job_is_refused(name: str, begun: Path, tmp_path: Path):
    path, theirs = begun / name, tmp_path.with_name(f"{tmp_path.name}-theirs")
    shutil.move(path, theirs)
    path.symlink_to(theirs)
    with pytest.raises(VidclfError, match="is a link that leads out of"):
        read_job(begun, CONFIG)


def test_a_checkpoint_of_another_version_is_not_overwritten(begun: Path):
    path = begun / "checkpoints" / "last.ckpt"
    content = torch.load(path)
    content[DESCRIPTION]["format"] = 99
    torch.save(content, path)
    with pytest.raises(VidclfError, match="written by another version of vidclf"):
        read_job(begun, CONFIG)


def test_a_job_that_outlived_its_sweep_is_waited_for(begun: Path, in_a_sweep: None, capsys: pytest.CaptureFixture[str]):
    started = threading.Event()

    def train() -> None:
        with FileLock(begun / ".lock"):
            started.set()
            time.sleep(0.3)
            (begun / "metrics.json").write_text("{}")

    threading.Thread(target=train).start()
    started.wait()
    with job_of_sweep(begun, CONFIG) as (progress, _):
        assert progress is Progress.DONE
    notices = capsys.readouterr().err
    assert notices.index("another process is training this job") < notices.index("done before; its scores are kept.")


def test_an_interrupted_sweep_ends_like_an_uninterrupted_one(
    vidclf: Callable[..., Outcome], clips: Path, trained: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = f"store.root={trained.run.parents[2] / 'data' / 'features'}"
    settings = (f"dataset.root={clips}", store, *SMALL, "~callbacks.view_sheets", "head.dropout=0.5", "seed=0,1,2")
    whole = vidclf("train", "study=seeds", *settings, "hydra.sweep.dir=whole")
    assert whole.status == 0, whole.err
    start = Learner.on_train_epoch_start

    def stop_the_second_job(learner: Learner) -> None:
        if learner.seed == 1 and learner.trainer.current_epoch == 1:
            raise VidclfError("out of luck")
        start(learner)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "on_train_epoch_start", stop_the_second_job)
        cut = vidclf("train", "study=seeds", *settings, "hydra.sweep.dir=cut")
    assert cut.status == 1
    assert "(2 runs) on val, the best first" in cut.out  # those after it went on
    assert re.search(r"left out: .*/1_\S*seed-1\S*: failed: VidclfError: out of luck", cut.err)
    first, second, third = sorted((tmp_path / "cut").glob("?_*"))
    (third / "metrics.json").unlink()  # killed before it was scored
    (third / "checkpoints" / "last.ckpt").unlink()
    kept = (first / "metrics.json").stat().st_mtime_ns
    again = vidclf("train", "study=seeds", *settings, "hydra.sweep.dir=cut", "num_threads=2")
    assert again.status == 0, again.err
    assert f"{first}: done before" in again.err
    assert f"{second}: goes on after epoch 1." in again.err
    assert (first / "metrics.json").stat().st_mtime_ns == kept
    assert not (second / "error.txt").exists()
    assert again.out[again.out.index("Compared") :] == whole.out[whole.out.index("Compared") :]
    for folder in (first, second, third):
        uncut = tmp_path / "whole" / folder.name
        for name in ("metrics.json", "predictions.csv", "split.csv"):
            assert (folder / name).read_bytes() == (uncut / name).read_bytes()
        for name in ("best.ckpt", "last.ckpt"):
            heads = [torch.load(job / "checkpoints" / name)["state_dict"] for job in (folder, uncut)]
            assert all(torch.equal(heads[0][key], heads[1][key]) for key in heads[0])


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("0_backbone-tiny_seed-7", r"contains 0_backbone-tiny_seed-7, a job of another sweep"),
        ("0_backbone-tiny_seed-0", r"0_backbone-tiny_seed-0: this job was trained with other settings: "),
    ],
)
def test_another_sweep_in_a_sweeps_folder_is_refused_by_each_job(
    folder: str, message: str, vidclf: Callable[..., Outcome], tmp_path: Path
):
    theirs = write_run(tmp_path / "sweep" / folder, [], part=None)
    before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    outcome = vidclf("train", "-m", "dataset.root=nowhere", "backbone=tiny", "seed=0,1", "hydra.sweep.dir=sweep")
    assert outcome.status == 1
    assert re.search(message, outcome.err)
    assert {path: path.read_bytes() for path in before} == before

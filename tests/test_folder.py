"""A run's folder is read back as it was written, and anything else is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import nn

from vidclf.build.parts import build_backbone, build_classifier
from vidclf.build.training import CheckpointFiles, build_learner
from vidclf.contracts import Video
from vidclf.errors import VidclfError, VideoError
from vidclf.run.folder import (
    Run,
    checkpoint_of,
    checkpoint_to_resume,
    load_checkpoint,
    load_trained,
    write_scores,
)
from vidclf.run.resume import prepare_folder, relocate_states


def load_run(path: Path) -> Run:
    return load_checkpoint(checkpoint_of(path))


CALLBACKS = [ModelCheckpoint(monitor="val/loss"), ModelCheckpoint()]


def test_a_checkpoint_describes_itself(run: Path):
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    about = content["vidclf"]
    assert about["class_names"] == ["ApplyEyeMakeup", "Archery"]
    assert about["config"]["head"]["widths"] == [16]
    assert about["config"]["sampling"] == {"_target_": "vidclf.data.sampling.Rate", "rate_hz": 10}
    assert about["format"] == 2
    assert {"vidclf", "torch", "torchvision", "lightning", "av"} == set(about["versions"])
    assert len(about["split_fingerprint"]) == len(about["weights_hash"]) == 64


def test_a_checkpoint_holds_the_head_and_not_the_frozen_backbone(run: Path):
    assert {name.split(".")[0] for name in load_run(run).state_dict} == {"head", "scaling"}


def test_the_last_checkpoint_knows_how_many_epochs_were_trained(run: Path):
    assert load_checkpoint(run / "checkpoints" / "last.ckpt").num_epochs == 2


def test_a_missing_folder_is_no_run(tmp_path: Path):
    with pytest.raises(VidclfError, match=r"run=.*nowhere: no such folder\. Name a folder that vidclf train wrote"):
        load_run(tmp_path / "nowhere")


def test_a_folder_that_is_no_run_is_shown(tmp_path: Path):
    (tmp_path / "clip.avi").touch()
    with pytest.raises(VidclfError, match=r"a run has checkpoints/best\.ckpt, this folder has clip\.avi"):
        load_run(tmp_path)


def damage(content: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "text": b"not a checkpoint\n",
        "cut": content[: len(content) // 2],
        "garbage": content[:200] + bytes(range(256)) * 20 + content[6000:],
        "zeros": bytes(5000),
    }


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "garbage", "zeros"])
def test_a_damaged_checkpoint_is_refused(kind: str, run: Path):
    path = checkpoint_of(run)
    path.write_bytes(damage(path.read_bytes())[kind])
    with pytest.raises(VidclfError, match=r"best\.ckpt: not a checkpoint of vidclf, or damaged"):
        load_run(run)


@pytest.mark.parametrize(
    "change",
    [
        {"vidclf": [1, 2]},
        {"vidclf": {"class_names": []}},
        {"callbacks": {"EarlyStopping": [1]}},
        {"state_dict": None},
        {"epoch": "1"},
    ],
)
def test_a_checkpoint_of_something_else_is_refused(change: dict[str, object], run: Path):
    torch.save({**torch.load(checkpoint_of(run), weights_only=True), **change}, checkpoint_of(run))
    with pytest.raises(VidclfError, match="not a checkpoint of vidclf"):
        load_run(run)
    torch.save([1, 2], checkpoint_of(run))
    with pytest.raises(VidclfError, match="not a checkpoint of vidclf"):
        load_run(run)


def test_a_run_of_another_version_is_refused(run: Path):
    content = torch.load(checkpoint_of(run), weights_only=True)
    for number, sentence in (
        (3, r"another version of vidclf \(format 3; this version reads 2"),
        (None, "the first version"),
    ):
        content["vidclf"]["format"] = number
        if number is None:
            del content["vidclf"]["format"]
        torch.save(content, checkpoint_of(run))
        with pytest.raises(VidclfError, match=sentence):
            load_run(run)


def test_a_folder_a_checkpoint_in_it_or_a_link_to_either_names_the_run(run: Path, tmp_path: Path):
    best, last = (run / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    (tmp_path / "latest").symlink_to(run)
    (tmp_path / "mine.ckpt").symlink_to(best)
    (tmp_path / "newest.ckpt").symlink_to(last)
    for path in (run, best, last, tmp_path / "latest", tmp_path / "mine.ckpt", tmp_path / "newest.ckpt"):
        found = load_run(path)
        assert (found.path.name, found.folder.resolve()) == ("best.ckpt", run)
        assert checkpoint_to_resume(path).resolve() == last
    another = shutil.copy(last, run / "checkpoints" / "epoch=1.ckpt")
    assert checkpoint_to_resume(Path(another)) == Path(another)
    with pytest.raises(VidclfError, match=r"resume=.*nowhere: neither a checkpoint nor a run"):
        checkpoint_to_resume(run / "nowhere")
    with pytest.raises(VidclfError, match=r"run=.*split.csv: not a checkpoint of a run"):
        load_run(run / "split.csv")


def test_a_checkpoint_that_would_run_code_is_not_loaded(run: Path):
    torch.save({"vidclf": print}, checkpoint_of(run))
    with pytest.raises(VidclfError, match="it names __builtin__ print"):
        load_run(run)


def test_another_head_than_the_runs_does_not_fit(run: Path):
    with pytest.raises(VidclfError, match="The head does not fit the checkpoint"):
        load_trained(load_run(run), nn.Linear(2, 2))


def test_the_numbers_of_a_loss_are_left_where_nothing_is_trained(run: Path):
    best = load_run(run)
    backbone = build_backbone(best.config)
    found = replace(best, state_dict={**best.state_dict, "loss.margin": torch.ones(1)})
    load_trained(found, build_classifier(best.config, backbone, 2))
    learner = build_learner(best.config, backbone, 2)
    learner.loss.register_buffer("margin", torch.zeros(1))
    load_trained(found, learner)
    assert learner.loss.margin == 1


def test_metrics_are_flat_sorted_and_equal_byte_for_byte(tmp_path: Path):
    write_scores(tmp_path, {"top1": 0.5, "loss": 1.0}, [], {})
    assert (tmp_path / "metrics.json").read_text() == '{\n  "loss": 1.0,\n  "top1": 0.5\n}\n'
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"loss": 1.0, "top1": 0.5}
    with pytest.raises(VidclfError, match=r"metrics.json: not written.* not finite \(loss=nan\)"):
        write_scores(tmp_path, {"top1": 0.5, "loss": float("nan")}, [], {})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"loss": 1.0, "top1": 0.5}


def test_failed_videos_are_listed_with_their_reason(tmp_path: Path):
    videos = [Video(Path(f"A/{name}.avi"), 0, "g01") for name in ("a", "b,ü", "c")]
    write_scores(tmp_path, {}, videos, {1: VideoError('it is "broken"')})
    assert (tmp_path / "failed.csv").read_bytes().decode() == 'video,reason\r\n"A/b,ü.avi","it is ""broken"""\r\n'


def relocated(run: Run, folder: Path, callbacks: list[Callback]) -> dict[str, Any]:
    states = torch.load(run.path, weights_only=True)["callbacks"]
    relocate_states(states, callbacks, folder / "checkpoints")
    return states


def test_a_run_that_goes_on_in_another_folder_has_its_best_checkpoint_there(run: Path, tmp_path: Path):
    new, before = tmp_path / "new", load_checkpoint(run / "checkpoints" / "last.ckpt")
    prepare_folder(before, new)
    states = relocated(before, new, CALLBACKS).values()
    best, last = [state for state in states if "dirpath" in state]
    assert best["dirpath"] == last["dirpath"] == str(new / "checkpoints")
    assert best["best_model_path"] == str(new / "checkpoints" / "best.ckpt") == next(iter(best["best_k_models"]))
    assert last["best_model_path"] == str(new / "checkpoints" / "last.ckpt")
    shutil.rmtree(run)
    assert load_run(new).class_names == ["ApplyEyeMakeup", "Archery"]
    assert [path.name for path in (new / "checkpoints").iterdir()] == ["best.ckpt"]


def test_a_run_that_goes_on_in_its_own_folder_loses_nothing(run: Path):
    before = {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    prepare_folder(load_checkpoint(run / "checkpoints" / "last.ckpt"), run)
    after = {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after.pop("metrics.previous.json") == before.pop("metrics.json")
    assert after == before


def test_what_callbacks_are_set_to_now_holds_and_not_what_they_were(run: Path, tmp_path: Path):
    early = EarlyStopping("val/loss", patience=3)
    last = run / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["callbacks"] |= {early.state_key: early.state_dict(), "Another": {"a": 1}}
    torch.save(content, last)
    states = relocated(load_checkpoint(last), tmp_path, [EarlyStopping("val/loss", patience=9)])
    assert states == {early.state_key: {**early.state_dict(), "patience": 9}}
    assert relocated(load_checkpoint(last), tmp_path, [EarlyStopping("val/top1", mode="max")]) == {}


def test_a_run_of_the_second_version_names_classes_where_they_were(run: Path):
    path = checkpoint_of(run)
    content = torch.load(path, weights_only=True)
    content["vidclf"]["config"]["split"]["_target_"] = "vidclf.data.datasets.ucf101.Official"
    content["vidclf"]["config"]["callbacks"]["view_sheets"] = {"_target_": "vidclf.evaluation.sheets.ViewSheets"}
    torch.save(content, path)
    config = load_run(run).config
    assert config["split"]["_target_"] == "vidclf.data.splits.Official"
    assert config["callbacks"]["view_sheets"]["_target_"] == "vidclf.evaluation.figures.ViewSheets"


def test_a_checkpoint_that_is_broken_off_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files, path = CheckpointFiles(), tmp_path / "checkpoints" / "last.ckpt"
    files.save_checkpoint({"epoch": 1}, path)

    def half(checkpoint: object, file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        files.save_checkpoint({"epoch": 2}, path)
    monkeypatch.undo()
    assert torch.load(path) == {"epoch": 1}
    files.save_checkpoint({"epoch": 3}, path)
    assert torch.load(path) == {"epoch": 3}
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_that_the_disk_has_no_room_for_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "open", lambda *_: open("/dev/full", "wb"))  # noqa: SIM115
    with pytest.raises(
        VidclfError, match=r"cannot write \(No space left on device\); what was written before is whole"
    ):
        CheckpointFiles().save_checkpoint({"weights": torch.zeros(1_000_000)}, tmp_path / "last.ckpt")

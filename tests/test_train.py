"""`vidclf train`: the files that it writes, seeds, resumed runs, and sweeps."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from verbs import SMALL, Outcome

from vidclf.run.config import CONF

SCORES = {"top1", "top5", "mean_class", "loss", "ece"}
COUNTS = {"num_train_groups", "num_videos", "num_failed", "num_skipped", "num_groups"}
BESIDE = {"chance_top1", "majority_top1", "temperature"}
METRICS = SCORES | {f"{name}_{end}" for name in SCORES - {"ece", "top5"} for end in ("low", "high")} | COUNTS | BESIDE
AGGREGATIONS = {path.stem for path in Path(CONF, "aggregation").glob("*.yaml")} - {"custom"}


@pytest.fixture
def train(vidclf: Callable[..., Outcome], clips: Path) -> Callable[..., Outcome]:
    """`train("seed=1")` trains the small network on the session's clips."""
    return lambda *arguments: vidclf("train", f"dataset.root={clips}", *SMALL, *arguments)


def events_of(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard")).Reload()


def test_train_leaves_a_runs_folder_and_nothing_else(trained: Outcome):
    files = {str(path.relative_to(trained.run)) for path in trained.run.rglob("*") if path.is_file()}
    assert {file for file in files if not file.startswith("tensorboard/")} == {
        ".hydra/config.yaml",
        ".hydra/hydra.yaml",
        ".hydra/overrides.yaml",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "failed.csv",
        "metrics.json",
        "predictions.csv",
        "split.csv",
    }
    project = trained.run.parents[2]
    assert trained.run.parent == project / "runs" / "train"
    assert {path.name for path in project.iterdir()} == {"runs", "data"}


def test_metrics_are_numbers_of_the_validation_videos(trained: Outcome):
    metrics = json.loads((trained.run / "metrics.json").read_text())
    assert set(metrics) == METRICS | {f"top1/{name}" for name in AGGREGATIONS}
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert (metrics["num_videos"], metrics["num_failed"]) == (4, 0)  # one group of each class
    assert metrics["top1/mean"] == metrics["top1"]


def test_the_part_of_every_video_is_written(trained: Outcome):
    with (trained.run / "split.csv").open(newline="") as file:
        parts = {row["video"]: row["side"] for row in csv.DictReader(file)}
    assert len(parts) == 20
    assert {name for name, part in parts.items() if part == "test"} == {
        f"{action}/v_{action}_g{group:02d}_c{clip:02d}.avi"
        for action in ("ApplyEyeMakeup", "Archery")
        for group in (1, 2)
        for clip in (1, 2)
    }


def test_no_feature_of_a_test_video_is_computed(trained: Outcome):
    assert "Extracting features of 12 videos" in trained.err


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(train: Callable[..., Outcome], trained: Outcome):
    metrics = (trained.run / "metrics.json").read_bytes()
    assert (train().run / "metrics.json").read_bytes() == metrics
    assert (train("seed=1").run / "metrics.json").read_bytes() != metrics


def test_a_run_that_was_interrupted_and_resumed_equals_one_that_was_not(
    train: Callable[..., Outcome], vidclf: Callable[..., Outcome]
):
    whole = train("head.dropout=0.5", "trainer.max_epochs=3").run
    cut = train("head.dropout=0.5", "trainer.max_epochs=1").run
    outcome = vidclf("train", f"resume={cut}", "trainer.max_epochs=3")  # with the other settings of the run
    assert outcome.status == 0, outcome.err
    resumed = outcome.run
    assert OmegaConf.load(resumed / ".hydra" / "config.yaml").sampling.rate_hz == 10
    assert (resumed / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    heads = [
        torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"]
        for name in ("best.ckpt", "last.ckpt")
        for run in (whole, resumed)
    ]
    for expected, state in (heads[:2], heads[2:]):
        assert all(torch.equal(expected[name], state[name]) for name in expected)


def test_an_earlier_best_epoch_survives_a_resume(train: Callable[..., Outcome]):
    diverging = ("optimizer=sgd", "optimizer.lr=1e4")
    cut = train(*diverging, "trainer.max_epochs=1").run
    resumed = train(*diverging, "trainer.max_epochs=2", f"resume={cut}").run
    best = [torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"] for run in (cut, resumed)]
    whole = train(*diverging, "trainer.max_epochs=2").run
    assert (resumed / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    assert best[0].keys() == best[1].keys()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("resume=no where",), "resume=no where: neither a checkpoint nor a run"),
        (("resume={run}",), "is complete and scored, with 2 of trainer.max_epochs=2 trained. Set more epochs"),
        (("resume={run}", "experiment=demo"), "experiment=demo: a run keeps its own settings"),
        (
            ("resume={run}", "trainer.max_epochs=3", "head.dropout=0.1"),
            "trained with other settings or data: head.dropout=0.1",
        ),
        (("resume={run}/metrics.json", "trainer.max_epochs=3"), "metrics.json: not a checkpoint of vidclf"),
    ],
)
def test_resuming_something_else_is_refused(
    arguments: tuple[str, ...], sentence: str, train: Callable[..., Outcome], run: Path
):
    outcome = train(*(argument.format(run=run) for argument in arguments))
    assert (outcome.status, outcome.out) == (1, "")
    assert sentence in outcome.err
    assert "Traceback" not in outcome.err


def test_a_run_that_was_interrupted_before_scoring_is_finished(
    vidclf: Callable[..., Outcome], run: Path, monkeypatch: pytest.MonkeyPatch
):
    metrics = (run / "metrics.json").read_bytes()
    (run / "metrics.json").unlink()
    monkeypatch.setattr("lightning.Trainer.fit", None)  # nothing is trained
    outcome = vidclf("train", f"resume={run / 'checkpoints' / 'best.ckpt'}")
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith("Validation, epoch 2 (the best of 2)")
    assert (outcome.run / "metrics.json").read_bytes() == metrics
    assert (vidclf("evaluate", f"run={outcome.run}", "part=val")).status == 0


def test_more_or_less_patience_than_before_takes_effect(train: Callable[..., Outcome], vidclf: Callable[..., Outcome]):
    never = ("callbacks=early_stopping", "+callbacks.early_stopping.min_delta=9", "trainer.max_epochs=9")
    first = train(*never, "callbacks.early_stopping.patience=2").run
    assert epochs_of(first) == 3  # the first is better than none
    assert "is complete and scored, with 3 of" in vidclf("train", f"resume={first}").err
    assert "is complete" in vidclf("train", f"resume={first}", "callbacks.early_stopping.patience=1").err
    second = vidclf("train", f"resume={first}", "callbacks.early_stopping.patience=4")
    assert second.status == 0, second.err
    assert epochs_of(second.run) == 5
    third = vidclf("train", f"resume={second.run}", "callbacks.early_stopping.monitor=val/top1")
    assert third.status == 0, third.err  # what it watches now has not stopped it
    assert epochs_of(third.run) == 9


def epochs_of(run: Path) -> int:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1


def test_a_sweep_has_a_folder_for_each_job_named_by_its_overrides_without_paths(
    vidclf: Callable[..., Outcome], clips: Path, tmp_path: Path
):
    sweep = ("head=linear,mlp", "sampling.rate_hz=10")
    outcome = vidclf(
        "train", f"dataset.root={clips}", *SMALL[:2], "~callbacks.view_sheets", "-m", "trainer.max_epochs=1", *sweep
    )
    assert outcome.status == 0, outcome.err
    (folder,) = (tmp_path / "runs" / "train").iterdir()
    assert sorted(path.parent.name for path in folder.glob("*/metrics.json")) == [
        "0_backbone-tiny_head-linear_sampling.rate_hz-10_trainer.max_epochs-1_-callbacks.view_sheets-null",
        "1_backbone-tiny_head-mlp_sampling.rate_hz-10_trainer.max_epochs-1_-callbacks.view_sheets-null",
    ]
    assert outcome.out.count(": top1 ") == 2  # a line a job


def test_a_failing_job_does_not_end_the_others_of_a_sweep(train: Callable[..., Outcome], tmp_path: Path):
    outcome = train("-m", "split.number=4,1", "trainer.max_epochs=1")
    assert outcome.status == 1
    assert "split.number=4" in outcome.err
    assert "1, 2, 3" in outcome.err
    assert "Traceback" not in outcome.err
    assert len(list(tmp_path.rglob("metrics.json"))) == 1


def experiment(folder: Path, content: str) -> tuple[str, str]:
    (folder / "conf" / "experiment").mkdir(parents=True)
    (folder / "conf" / "experiment" / "mine.yaml").write_text(content)
    return "--config-dir=conf", "experiment=mine"


def test_a_users_experiment_names_the_folder_of_its_runs(train: Callable[..., Outcome], tmp_path: Path):
    outcome = train(*experiment(tmp_path, "# @package _global_\nseed: 3\ntrainer: {max_epochs: 1}\n"))
    assert outcome.status == 0, outcome.err
    assert outcome.run.parent == tmp_path / "runs" / "mine"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("# @package _global_\nbatchsize: 3\n", "batchsize: unknown top-level key(s), from an experiment file"),
        ("batch_size: 3\n", "Begin the file with `# @package _global_`"),
    ],
)
def test_an_unknown_top_level_key_in_an_experiment_is_named(
    content: str, sentence: str, train: Callable[..., Outcome], tmp_path: Path
):
    outcome = train(*experiment(tmp_path, content))
    assert (outcome.status, outcome.out) == (1, "")
    assert sentence in outcome.err


def test_an_unknown_top_level_key_on_the_command_line_is_named(train: Callable[..., Outcome]):
    outcome = train("+batchsize=3")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith("VidclfError: batchsize: unknown top-level key(s)")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["dataset.root=absent"], "absent: there is no such folder"),
        (["dataset=folder", "dataset.root=videos"], "dataset.group must say"),
        (
            ["dataset=folder", "dataset.root=videos", "dataset.group=file"],
            "split=official: Folder has no official split",
        ),
        (["dataset=folder", "dataset.root=videos", "dataset.group=file", "split=grouped"], "fewer than three groups"),
        (["dataset=folder", "dataset.root=one", "dataset.group=file", "split=kfold"], "run: nothing to tell apart"),
    ],
)
def test_a_data_set_is_looked_through_before_weights_are_fetched(
    settings: list[str], message: str, vidclf: Callable[..., Outcome], tmp_path: Path
):
    """VGG16's weights are not there: whoever asks for them first ends the verb."""
    for name in ("videos/run/a.mp4", "videos/walk/b.mp4", *(f"one/run/{number}.mp4" for number in range(9))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    outcome = vidclf("train", "backbone=vgg16", *settings)
    assert outcome.status == 1
    assert message in outcome.err
    assert "vgg16" not in outcome.err
    assert "Examining" not in outcome.err


def test_a_key_that_must_be_given_is_named(train: Callable[..., Outcome]):
    outcome = train("aggregation=custom")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith("VidclfError: aggregation._target_ must be given")


def test_a_key_that_a_head_does_not_take_is_named(train: Callable[..., Outcome]):
    outcome = train("+head.hiden=3")
    assert (outcome.status, outcome.out) == (1, "")
    assert "head.hiden: MLP takes no hiden." in outcome.err
    assert "Traceback" not in outcome.err


def test_tensorboard_shows_curves_views_the_configuration_and_hyperparameters(trained: Outcome):
    events = events_of(trained.run)
    tags = events.Tags()
    curves = {"train/loss", "train/view_top1", "val/loss", "val/top1", "val/view_top1", "lr-Adam"}
    assert curves <= set(tags["scalars"])
    assert [event.step for event in events.Scalars("val/loss")] == sorted({e.step for e in events.Scalars("val/loss")})
    assert len(events.Scalars("train/loss")) == 2
    assert {"views/train", "views/val"} <= set(tags["images"])
    (text,) = events.Tensors("configuration/text_summary")
    assert b"rate_hz: 10" in text.tensor_proto.string_val[0]
    hparams = EventAccumulator(str(trained.run / "tensorboard" / "best")).Reload()
    plugin = hparams.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"sampling.rate_hz" in plugin
    assert b"head.dropout" in plugin  # a default, but other runs may have varied it
    assert b"store.root" not in plugin
    best = json.loads((trained.run / "metrics.json").read_text())
    shown = {tag: hparams.Scalars(tag)[0].value for tag in hparams.Tags()["scalars"]}
    assert shown == pytest.approx({"val/top1": best["top1"], "val/loss": best["loss"]})


def test_a_run_can_log_plain_csv_files_instead(train: Callable[..., Outcome]):
    run = train("logger=csv", "trainer.max_epochs=1").run
    with (run / "csv" / "metrics.csv").open(newline="") as file:
        assert {"train/loss", "val/loss", "val/top1"} <= set(next(csv.reader(file)))
    assert not (run / "tensorboard").exists()
    outcome = train("logger=null", "trainer.max_epochs=1")
    assert outcome.status == 0, outcome.err
    assert "logger=null: the learning rate is not logged" in outcome.err
    assert not (outcome.run / "csv").exists()


def test_train_runs_in_a_new_process_without_a_warning(clips: Path, tmp_path: Path):
    command = [sys.executable, "-m", "vidclf", "train", f"dataset.root={clips}", *SMALL, "trainer.max_epochs=1"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Validation, epoch 1 (the best of 1)\ntop1 ")
    first, *rest = result.stderr.splitlines()
    assert re.fullmatch(r"train: ucf101 with tiny, mlp -> runs/train/[\d_-]+", first)
    assert [line[:9] for line in rest] == ["Examining", "Extractin", "12 videos", "epoch 1/1", "next: vid"]

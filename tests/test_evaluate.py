"""`vidclf evaluate`: a run scored with its settings or changed ones, never on data that does not fit it."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from verbs import SMALL, Outcome

FOLDERS = ["a b,c=d (1) Übung", '~${x} it\'s "said" [x]{y} %03d;&#!']


def metrics_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def evaluate(vidclf: Callable[..., Outcome], run: Path, store: Path) -> Callable[..., Outcome]:
    """`evaluate("part=val")` scores the test's copy of the small run."""
    return lambda *arguments: vidclf("evaluate", f"run={run}", f"store.root={store}", *arguments)


@pytest.fixture
def store(trained: Outcome) -> Path:
    """The session's feature store."""
    return trained.run.parents[2] / "data" / "features"


@pytest.fixture
def own_clips(clips: Path, tmp_path: Path) -> Path:
    """A copy of the session's clips, to be changed."""
    return shutil.copytree(clips, tmp_path / "UCF-101")


def test_evaluate_writes_scores_logits_predictions_and_images(evaluate: Callable[..., Outcome], run: Path):
    before = {path.name for path in run.iterdir()}
    outcome = evaluate()
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[-1] == f"results {run / 'test'}"
    assert {path.name for path in run.iterdir()} - before == {"test"}
    assert {path.name for path in (run / "test").iterdir()} == {
        "metrics.json",
        "logits.safetensors",
        "videos.txt",
        "predictions.csv",
        "failed.csv",
        "confusion.png",
        "aggregations.csv",
        "classes.csv",
        "groups.csv",
        "reliability.csv",
        "reliability.png",
        "views.csv",
    }
    assert len({path.stat().st_mode for path in run.rglob("*") if path.is_file()}) == 1  # none is closed to others
    metrics, on_val = metrics_of(run / "test"), metrics_of(run)
    moved = {f"top1/{row['aggregation']}" for row in rows_of(run / "test" / "aggregations.csv")}
    assert on_val.keys() - metrics.keys() == moved  # so that nobody chooses an aggregation on test
    assert metrics.keys() - on_val.keys() == {"calibrated_loss", "calibrated_ece"}
    assert metrics["temperature"] == on_val["temperature"]
    assert metrics["num_videos"] + metrics["num_failed"] == 8
    with Image.open(run / "test" / "confusion.png") as image:
        assert min(image.size) > 200
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert {"confusion/test", "views/test"} <= {*events.Tags()["images"]}
    shown = EventAccumulator(str(run / "tensorboard" / "best")).Reload().Scalars("test/top1")
    assert [event.value for event in shown] == pytest.approx([metrics["top1"]])


def test_scores_follow_from_the_stored_logits(evaluate: Callable[..., Outcome], run: Path):
    evaluate()
    stored = load_file(run / "test" / "logits.safetensors")
    names = (run / "test" / "videos.txt").read_text().splitlines()
    predictions = rows_of(run / "test" / "predictions.csv")
    num_correct = 0
    for row in predictions:
        of_video = stored["video"] == names.index(row["video"])
        probabilities = stored["logits"][of_video].softmax(1).mean(0)
        assert float(row["probability"]) == pytest.approx(probabilities.max().item())
        assert row["label"] == row["video"].split("/")[0]
        assert ["ApplyEyeMakeup", "Archery"][int(probabilities.argmax())] == row["predicted"]
        num_correct += row["label"] == row["predicted"]
    assert metrics_of(run / "test")["top1"] == num_correct / len(predictions) == num_correct / 8
    assert stored["view"].tolist() == [0, 1, 2, 3, 4, 5] * 8  # every second of 12 frames


def test_the_validation_part_is_scored_as_train_scored_it(evaluate: Callable[..., Outcome], run: Path):
    outcome = evaluate("part=val")
    assert outcome.status == 0, outcome.err
    assert (run / "val" / "metrics.json").read_bytes() == (run / "metrics.json").read_bytes()


def test_a_training_that_did_not_come_to_its_end_is_scored_and_named(
    evaluate: Callable[..., Outcome], run: Path, monkeypatch: pytest.MonkeyPatch
):
    assert "training stopped" not in evaluate("part=val").err
    (run / "metrics.json").unlink()
    assert "training stopped" not in evaluate("part=val").err  # trained to the end, and not scored
    monkeypatch.setattr("vidclf.evaluate.load_checkpoint", lambda path: SimpleNamespace(num_epochs=1))
    outcome = evaluate("part=val")
    assert outcome.status == 0
    assert f"{run}: training stopped after epoch 1 of 2" in outcome.err


def test_frames_and_stored_features_give_the_same_bits(evaluate: Callable[..., Outcome], run: Path):
    evaluate()
    stored = (run / "test" / "logits.safetensors").read_bytes()
    shutil.rmtree(run / "test")
    assert evaluate("features=frames").status == 0
    assert (run / "test" / "logits.safetensors").read_bytes() == stored


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["sampling.rate_hz=5"], "test-sampling.rate_hz-5"),
        (["aggregation=mode"], "test-aggregation-mode"),
        (["sampling=uniform", "sampling.num_frames=3"], "test-sampling-uniform-sampling.num_frames-3"),
        (["sampling=rate", "part=val"], "val-sampling-rate"),
        (["sampling.rate_hz=10", "head.widths=[16]"], "test"),
    ],
)
def test_results_of_changed_settings_are_written_into_a_separate_folder(
    overrides: list[str], name: str, evaluate: Callable[..., Outcome], run: Path
):
    (run / "test").mkdir()
    outcome = evaluate(*overrides)
    assert outcome.status == 0, outcome.err
    assert (run / name / "metrics.json").is_file()
    if name != "test":
        assert not list((run / "test").iterdir())


def test_a_sweep_of_evaluations_writes_a_folder_for_each(evaluate: Callable[..., Outcome], run: Path, tmp_path: Path):
    before = {path.name for path in tmp_path.iterdir()}
    outcome = evaluate("-m", "aggregation=mode,max", "sampling.rate_hz=5")
    assert outcome.status == 0, outcome.err
    assert {path.parent.name for path in run.glob("*/metrics.json")} == {
        "test-aggregation-mode-sampling.rate_hz-5",
        "test-aggregation-max-sampling.rate_hz-5",
    }
    assert {path.name for path in tmp_path.iterdir()} - before == set()  # no multirun.yaml
    assert not [*run.glob("multirun.yaml"), *run.glob(".sweep-*")]
    assert "HYDRA" not in outcome.err


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_runs_and_data_may_have_any_name(
    name: str, vidclf: Callable[..., Outcome], trained: Outcome, clips: Path, tmp_path: Path
):
    run = shutil.copytree(trained.run, tmp_path / name / "0_head=mlp,sampling.rate_hz=10")
    root = shutil.copytree(clips, tmp_path / name / "UCF-101")
    outcome = vidclf("evaluate", f"run={run.relative_to(tmp_path)}", f"dataset.root={root.relative_to(tmp_path)}")
    assert outcome.status == 0, outcome.err
    assert metrics_of(run / "test")["num_videos"] == 8  # the same videos in another place


def test_a_run_trained_from_a_folder_of_any_name_is_evaluated(
    vidclf: Callable[..., Outcome], clips: Path, tmp_path: Path
):
    root = shutil.copytree(clips, tmp_path / "it's ${a,b}=(Ü)")
    run = vidclf("train", f"dataset.root={root}", *SMALL, "~callbacks.view_sheets", "trainer.max_epochs=1").run
    outcome = vidclf("evaluate", f"run={run}")
    assert outcome.status == 0, outcome.err
    assert (run / "test" / "metrics.json").is_file()


def test_a_damaged_test_video_is_an_error_or_is_counted_and_listed(
    evaluate: Callable[..., Outcome], run: Path, own_clips: Path
):
    clip = own_clips / "Archery" / "v_Archery_g02_c01.avi"
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) // 2])
    (own_clips / "Archery" / "v_Archery_g01_c01.avi").write_text("no video")
    outcome = evaluate(f"dataset.root={own_clips}")
    assert (outcome.status, outcome.out) == (1, "")
    assert "VideoError: " in outcome.err
    assert not list(run.glob("test*"))

    outcome = evaluate(f"dataset.root={own_clips}", "dataset.on_error=skip")
    assert outcome.status == 0, outcome.err
    (folder,) = run.glob("test-*")
    metrics = metrics_of(folder)
    assert (metrics["num_videos"], metrics["num_failed"]) == (6, 2)
    failed = rows_of(folder / "failed.csv")
    assert [row["video"] for row in failed] == ["Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g02_c01.avi"]
    assert all(row["reason"] in outcome.err for row in failed)
    assert outcome.err.count("left out: ") == 2


def test_a_folder_that_is_not_a_run_is_an_error(vidclf: Callable[..., Outcome], tmp_path: Path):
    for folder, sentence in ((tmp_path / "nowhere", "no such folder"), (tmp_path, "this folder has nothing")):
        outcome = vidclf("evaluate", f"run={folder}")
        assert (outcome.status, outcome.out) == (1, "")
        assert outcome.err.startswith(f"VidclfError: run={folder}: ")
        assert sentence in outcome.err
        assert "Traceback" not in outcome.err


def test_a_run_must_be_given(vidclf: Callable[..., Outcome]):
    outcome = vidclf("evaluate")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith("VidclfError: run must be given: vidclf evaluate run=...")


def refused(outcome: Outcome, sentence: str) -> None:
    assert (outcome.status, outcome.out) == (1, "")
    assert sentence in outcome.err
    assert "Traceback" not in outcome.err


def test_a_damaged_checkpoint_is_refused(evaluate: Callable[..., Outcome], run: Path):
    path = run / "checkpoints" / "best.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    refused(evaluate(), "best.ckpt: not a checkpoint of vidclf")


def test_other_classes_than_the_runs_are_refused(evaluate: Callable[..., Outcome], own_clips: Path):
    (own_clips / "Archery").rename(own_clips / "Biking")
    refused(evaluate(f"dataset.root={own_clips}"), "only the run has Archery; only the data set has Biking")
    refused(evaluate("dataset.classes=[Archery]"), "has 2 classes, the data set has 1")


def test_other_weights_than_the_runs_are_refused(evaluate: Callable[..., Outcome]):
    refused(evaluate("seed=1"), "was trained on a backbone with weights")  # the weights are drawn from the seed


def test_another_head_than_the_runs_is_refused(evaluate: Callable[..., Outcome]):
    refused(evaluate("head.widths=[8]"), "The head does not fit the checkpoint")


def test_another_split_than_the_runs_is_refused_if_it_leaks(evaluate: Callable[..., Outcome]):
    refused(evaluate("split.number=2"), "part=test: 12 views or videos were in another part")


def test_an_unknown_part_is_refused(evaluate: Callable[..., Outcome]):
    refused(evaluate("part=all"), "part=all: must be one of train, val, test")


def test_a_run_is_evaluated_from_its_checkpoint_alone(evaluate: Callable[..., Outcome], run: Path, tmp_path: Path):
    path = run / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content["vidclf"]["config"]["split"]["val_fraction"] = 0.3  # as if conf/ had changed since
    torch.save(content, path)
    shutil.rmtree(run / ".hydra")
    (tmp_path / "best.ckpt").symlink_to(path)
    shown = evaluate("--cfg", "job", "sampling.rate_hz=5")
    assert shown.status == 0, shown.err
    config = OmegaConf.create(shown.out)
    assert (config.split.val_fraction, config.sampling.rate_hz, config.head.widths) == (0.3, 5, [16])
    assert not list(run.glob("test*"))
    outcome = evaluate(f"run={tmp_path / 'best.ckpt'}")
    assert outcome.status == 0, outcome.err
    assert (run / "test" / "metrics.json").is_file()


HEAD = """
from torch import nn

class MyHead(nn.Module):
    def __init__(self, feature_dim, num_classes, hidden):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(feature_dim, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))

    def forward(self, features):
        return self.layers(features.mean(1))
"""
PARTS = """
from vidclf.data.sampling import Rate
from vidclf.models.aggregation import mean
from vidclf.models.backbones.tiny import Tiny

class Twice(Rate):
    def __call__(self, num_frames, fps, generator=None):
        return super().__call__(num_frames, fps).repeat(2, 1)

def halved(logits):
    return mean(logits / 2)

class MyBackbone(Tiny):
    pass
"""


def test_a_users_stages_are_trained_and_need_trust_afterwards(
    vidclf: Callable[..., Outcome], clips: Path, tmp_path: Path
):
    (tmp_path / "my_heads.py").write_text(HEAD)
    (tmp_path / "my_parts.py").write_text(PARTS)
    stages = ("head=custom", "head._target_=my_heads.MyHead", "+head.hidden=8")
    stages += ("sampling=custom", "sampling._target_=my_parts.Twice", "+sampling.rate_hz=10.0")
    stages += ("aggregation=custom", "aggregation._target_=my_parts.halved")
    stages += ("backbone=custom", "backbone._target_=my_parts.MyBackbone", "+backbone.weights=null")
    trained = vidclf("train", f"dataset.root={clips}", *stages, "trainer.max_epochs=1", "~callbacks.view_sheets")
    assert trained.status == 0, trained.err
    refused(vidclf("evaluate", f"run={trained.run}"), "pass trust=true")
    refused(vidclf("predict", f"run={trained.run}", f"source={clips}"), "pass trust=true")
    outcome = vidclf("evaluate", f"run={trained.run}", "trust=true")
    assert outcome.status == 0, outcome.err
    assert len(load_file(trained.run / "test" / "logits.safetensors")["logits"]) == 8 * 2 * 6
    assert vidclf("predict", f"run={trained.run}", f"source={clips}", "trust=true").out.count("\n") == 20

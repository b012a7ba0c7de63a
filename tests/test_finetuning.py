"""`vidclf train`, `evaluate` and `predict` with a trained backbone, augmented frames or mixed views."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from verbs import Outcome, call

TINY3D = (
    "backbone=tiny3d",
    "backbone.width=2",
    "head=linear",
    "sampling=uniform",
    "sampling.num_frames=4",
    "batch_size=4",
    "num_threads=1",
    "callbacks.view_sheets.num_views=1",
)
CUT = """
from lightning.pytorch.callbacks import Callback

class Cut(Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt
"""


@pytest.fixture(scope="module")
def tuned(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A run in which the whole backbone was trained."""
    folder = tmp_path_factory.mktemp("tuned")
    outcome = call("train", f"dataset.root={clips}", *TINY3D, "trainer.max_epochs=2", folder=folder)
    assert outcome.status == 0, outcome.err
    return outcome


def state_of(run: Path, name: str = "best") -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def metrics_of(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.json").read_text())


def test_frames_are_read_and_a_message_says_so(tuned: Outcome):
    assert "features=auto reads frames, not the store: the backbone is trained" in tuned.err


def test_the_checkpoint_holds_the_trained_backbone(tuned: Outcome):
    assert {name.split(".")[0] for name in state_of(tuned.run)} == {"backbone", "head"}


def test_evaluate_and_predict_use_it_and_agree_to_the_last_bit(
    tuned: Outcome, vidclf: Callable[..., Outcome], clips: Path
):
    outcome = vidclf("evaluate", f"run={tuned.run}")
    assert outcome.status == 0, outcome.err
    predicted = vidclf("predict", f"run={tuned.run}", f"source={clips}")
    assert predicted.status == 0, predicted.err
    lines = {Path(line["path"]).name: line for line in map(json.loads, predicted.out.splitlines())}
    with (tuned.run / "test" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows:
        line = lines[Path(row["video"]).name]
        assert (line["label"], line["probability"]) == (row["predicted"], float(row["probability"]))


def test_a_tuned_run_is_not_scored_as_a_frozen_one(tuned: Outcome, vidclf: Callable[..., Outcome]):
    outcome = vidclf("evaluate", f"run={tuned.run}", "backbone.trainable=none")
    assert outcome.status == 1
    assert "was trained, but would be frozen here. Leave out backbone.trainable" in outcome.err


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_that_is_interrupted_and_resumed_equals_an_uninterrupted_one(
    precision: str, clips: Path, vidclf: Callable[..., Outcome], tmp_path: Path
):
    """With everything that has a state: averaged weights, a schedule, random images, mixing and dropout."""
    (tmp_path / "my_callbacks.py").write_text(CUT)
    settings = (
        "train", f"dataset.root={clips}", *TINY3D, "head=mlp", "head.widths=[8]", "scaling=standard",
        "augmentation=crop", "augmentation.scale=[0.3,1.0]", "augmentation.flip=0.5", "mixing=mixup",
        "loss.label_smoothing=0.1", "loss.class_weights=balanced", "optimizer=adamw", "scheduler=warmup_cosine",
        "callbacks=ema", "callbacks.ema.decay=0.5", "layer_decay=0.5", "trainer.max_epochs=4",
        "trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1", f"trainer.precision={precision}",
    )  # fmt: skip
    whole = vidclf(*settings)
    assert whole.status == 0, whole.err
    cut = vidclf(*settings, "+callbacks.cut._target_=my_callbacks.Cut", "hydra.run.dir=cut")
    assert cut.status == 130, cut.err
    resumed = vidclf(*settings, "resume=cut")
    assert resumed.status == 0, resumed.err
    assert metrics_of(resumed.run) == metrics_of(whole.run)
    states = [state_of(outcome.run, "last") for outcome in (whole, resumed)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    raw = torch.load(whole.run / "checkpoints" / "last.ckpt", weights_only=True)
    assert any("current_model" in key or "averag" in key for key in raw)  # the trained weights beside the averaged ones


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("features=store",), "features=store: the backbone is trained, so its features change. Use features=frames"),
        (
            ("features=store", "backbone.trainable=none", "augmentation=crop"),
            "features=store: Augmentation is random",
        ),
        (("batch_size=1", "mixing=mixup"), "batch_size=1: mixing needs two views or more in a batch"),
        (
            ("backbone.trainable=5",),
            "backbone.trainable=5: allowed are none, last, all, or a number of",
        ),
        (("scheduler=one_cycle", "trainer.max_epochs=-1"), "Set trainer.max_epochs, or use scheduler=constant"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: tuple[str, ...], message: str, clips: Path, vidclf: Callable[..., Outcome]
):
    outcome = vidclf("train", f"dataset.root={clips}", *TINY3D, "trainer.max_epochs=1", *settings)
    assert outcome.status == 1
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_all_weights_of_a_trained_backbone_change_and_its_features_are_not_scaled(tuned: Outcome, clips: Path):
    from vidclf.models.backbones.tiny3d import Tiny3D

    state = state_of(tuned.run, "last")
    assert not [name for name in state if "scaling" in name]
    assert "scaling" not in tuned.err
    fresh = Tiny3D(width=2).state_dict()
    for name, value in fresh.items():
        if "running" in name or "num_batches" in name:
            assert not torch.equal(state[f"backbone.backbone.{name}"], value)


@pytest.mark.parametrize(
    "changed", ["callbacks=default", "trainer.accumulate_grad_batches=1", "trainer.precision=64-true"]
)
def test_a_resume_that_would_train_otherwise_is_refused(
    changed: str, clips: Path, vidclf: Callable[..., Outcome], tmp_path: Path
):
    (tmp_path / "my_callbacks.py").write_text(CUT)
    settings = ["train", f"dataset.root={clips}", *TINY3D, "callbacks=ema", "trainer.max_epochs=3"]
    settings += ["trainer.accumulate_grad_batches=2"]
    assert vidclf(*settings, "+callbacks.cut._target_=my_callbacks.Cut", "hydra.run.dir=cut").status == 130
    outcome = vidclf(*settings, changed, "resume=cut")
    assert outcome.status == 1
    assert "was trained with other settings or data: " + changed.split("=")[0] in outcome.err


def test_a_planned_learning_rate_keeps_its_plan(clips: Path, vidclf: Callable[..., Outcome]):
    settings = ["train", f"dataset.root={clips}", *TINY3D, "scheduler=cosine"]
    trained = vidclf(*settings, "trainer.max_epochs=1")
    outcome = vidclf(*settings, "trainer.max_epochs=2", f"resume={trained.run}")
    assert outcome.status == 1
    assert "was planned for 1 epochs" in outcome.err


def test_mixing_works_on_stored_features(clips: Path, vidclf: Callable[..., Outcome]):
    settings = ("backbone=tiny", "++backbone.weights=null", "head.widths=[8]", "mixing=mixup", "trainer.max_epochs=1")
    outcome = vidclf("train", f"dataset.root={clips}", *settings, *TINY3D[-2:])
    assert outcome.status == 0, outcome.err
    assert "Extracting features" in outcome.err
    refused = vidclf("train", f"dataset.root={clips}", *settings, "mixing=cutmix", *TINY3D[-2:])
    assert refused.status == 1
    assert "mixing.cutmix: needs images" in refused.err


def test_a_custom_augmentation_is_a_function_of_the_picture_format(
    clips: Path, vidclf: Callable[..., Outcome], tmp_path: Path
):
    (tmp_path / "mine.py").write_text(AUGMENTATION)
    settings = ("augmentation=custom", "augmentation._target_=mine.noisy", "trainer.max_epochs=1")
    outcome = vidclf("train", f"dataset.root={clips}", *TINY3D, *settings)
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "called").exists()


AUGMENTATION = """
from pathlib import Path
import torch

def noisy(picture_format):
    def augment(frames):
        Path("called").touch()
        return torch.randn(*frames.shape[:3], picture_format.size, picture_format.size)
    return augment
"""

"""A run and what it is used on must agree, and a run's configuration may only be made of known parts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vidclf.data.splits import Split
from vidclf.errors import VidclfError
from vidclf.run.compatible import (
    MAX_NAME_BYTES,
    check_classes,
    check_resumed,
    check_split,
    check_trusted,
    check_weights,
    differences,
    flatten,
    results_name,
)
from vidclf.run.folder import Run, write_csv

CONFIG: dict[str, Any] = {
    "sampling": {"_target_": "vidclf.data.sampling.Rate", "rate_hz": 1},
    "head": {"widths": [16]},
    "optimizer": {"lr": 0.1},
    "trainer": {"max_epochs": 3},
    "dataset": {"root": "here"},
    "seed": 0,
}
SPLIT = Split(["A/1.avi", "A/2.avi", "B/3.avi"], ["train", "val", "test"], [2, 2, 2])
RUN = Run(Path("runs/x"), 2, {}, ["A", "B"], CONFIG, SPLIT.fingerprint, "c0ffee")


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    return {**CONFIG, **sections}


def test_nested_keys_are_dotted():
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_what_differs_is_named_by_the_override_that_says_so():
    config = changed(sampling={**CONFIG["sampling"], "rate_hz": 5}, trainer={"max_epochs": 9})
    assert differences(RUN, config, ["run=x", "part=val", "sampling.rate_hz=5"]) == ["sampling.rate_hz=5"]
    assert differences(RUN, CONFIG, ["run=x", "sampling.rate_hz=1"]) == []


def test_a_difference_that_nobody_asked_for_is_a_changed_conf():
    config = changed(sampling={**CONFIG["sampling"], "rate_hz": 5})
    with pytest.raises(VidclfError, match=r"sampling.rate_hz is 5, but .* trained with 1: conf/ has changed since"):
        differences(RUN, config, ["run=x", "head=linear"])


def test_results_are_named_by_part_and_differences():
    assert results_name("test", []) == "test"
    assert results_name("val", ["+head.k=2", "sampling.rate_hz=5"]) == "val-head.k-2-sampling.rate_hz-5"
    assert results_name("test", ["dataset.root='/a b/(ü)'"]) == "test-dataset.root-a-b-ü"


def test_long_names_of_results_fit_a_file_system_and_differ():
    names = {results_name("test", [f"dataset.classes=[{'ü' * 150},{last}]"]) for last in "ab"}
    assert len(names) == 2
    assert all(len(name.encode()) <= MAX_NAME_BYTES for name in names)


def test_the_runs_own_classes_are_accepted():
    check_classes(RUN, ["A", "B"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["A", "C"], r"only the run has B; only the data set has C"),
        (["A", "B", "C"], r"knows 2 classes, the data set has 3: only the run has none; only the data set has C"),
        (["A"], r"only the run has B; only the data set has none"),
        (["B", "A"], r"in another order: A, B in the run and B, A in the data set"),
    ],
)
def test_other_classes_than_the_runs_are_refused(names: list[str], message: str):
    with pytest.raises(VidclfError, match=message):
        check_classes(RUN, names)


def test_other_weights_than_the_runs_are_refused():
    check_weights(RUN, "c0ffee")
    with pytest.raises(VidclfError, match="trained on a backbone with weights c0ffee, these are deadbeef"):
        check_weights(RUN, "deadbeef" * 8)


def run_in(folder: Path) -> Run:
    write_csv(folder / "split.csv", ("video", "side"), SPLIT.rows())
    return replace(RUN, folder=folder)


def test_a_video_that_was_trained_on_is_never_scored_as_test(tmp_path: Path):
    now = Split(SPLIT.names, ["test", "val", "test"], [2, 2, 2])
    with pytest.raises(VidclfError, match=r"part=test: 1 .* on another side when .* trained: A/1.avi"):
        check_split(run_in(tmp_path), now, "test")


def test_new_and_missing_videos_are_told_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    now = Split(["A/1.avi", "A/2.avi", "B/4.avi", "B/5.avi"], ["train", "val", "test", "test"], [2] * 4)
    check_split(run_in(tmp_path), now, "test")
    assert capsys.readouterr().err == "The data differ from the run's: 1 videos are gone, 2 are new.\n"


def test_a_split_that_is_not_known_any_more_is_no_licence(tmp_path: Path):
    now = Split(SPLIT.names, ["test", "val", "test"], [2, 2, 2])
    with pytest.raises(VidclfError, match=r"split\.csv: missing, and the data's split is not the run's"):
        check_split(replace(RUN, folder=tmp_path), now, "test")


def test_single_views_on_another_side_are_refused_for_validation_only(tmp_path: Path):
    now = Split(SPLIT.names, SPLIT.sides, SPLIT.num_views, {0: frozenset({1})})
    run = run_in(tmp_path)
    check_split(run, now, "test")
    with pytest.raises(VidclfError, match=r"part=val: 1 .* on another side"):
        check_split(run, now, "val")


@pytest.mark.parametrize(
    "target",
    [
        "vidclf.data.datasets.ucf101.UCF101",
        "vidclf.data.sampling.Rate",
        "vidclf.models.aggregation.mode",
        "vidclf.models.heads.mlp.MLP",
        "torch.nn.Linear",
        "torch.optim.Adam",
        "torch.optim.lr_scheduler.CosineAnnealingLR",
        "torchvision.models.resnet18",
        "torchvision.transforms.v2.Resize",
        "torchmetrics.Accuracy",
        "lightning.Trainer",
        "lightning.pytorch.callbacks.ModelCheckpoint",
        "lightning.pytorch.loggers.TensorBoardLogger",
    ],
)
def test_parts_of_a_classifier_are_trusted(target: str):
    check_trusted({"a": [{"b": {"_target_": target}}]}, [], trust=False)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "my_heads.MyHead",
        "torch.os.system",
        "vidclf.cli.os.execv",
        "torch.hub.load",
        "torch.load",
        "torch.utils.collect_env.run",
        "vidclf.system.disk.write_atomically",
        "vidclf.run.build.instantiate",
        "lightning.pytorch.cli.LightningCLI",
        "lightning.LightningModule.load_from_checkpoint",
        "torchvision.datasets.utils.download_url",
        "vidclf.nowhere.Nothing",
        "torch",
    ],
)
def test_anything_else_in_a_run_needs_trust(target: str):
    config = {"a": [{"b": {"_target_": target}}]}
    with pytest.raises(VidclfError, match=rf"wants to run {target} \(a.0.b._target_\).*pass trust=true"):
        check_trusted(config, [], trust=False)
    check_trusted(config, [], trust=True)


def test_a_target_that_this_command_line_names_is_trusted():
    config = {"aggregation": {"_target_": "my_aggregations.vote"}}
    check_trusted(config, ["run=x", "aggregation=custom", "aggregation._target_=my_aggregations.vote"], trust=False)
    with pytest.raises(VidclfError, match=r"my_aggregations\.vote"):
        check_trusted(config, ["run=x", "aggregation=custom"], trust=False)


def test_training_goes_on_where_only_the_number_of_epochs_or_the_folder_changed():
    check_resumed(RUN, changed(dataset={"root": "there"}), SPLIT)


@pytest.mark.parametrize(
    ("config", "split", "message"),
    [
        (changed(trainer={"max_epochs": 2}), SPLIT, r"trainer.max_epochs=2: .* trained 2 already; ask for more"),
        (changed(optimizer={"lr": 0.2}), SPLIT, r"trained otherwise: optimizer.lr=0.2 \(was 0.1\)"),
        (changed(seed=1), SPLIT, r"trained otherwise: seed=1 \(was 0\)"),
        (CONFIG, Split(SPLIT.names, ["val", "train", "test"], [2] * 3), "the videos or their sides"),
    ],
)
def test_training_does_not_go_on_otherwise(config: dict[str, Any], split: Split, message: str):
    with pytest.raises(VidclfError, match=message):
        check_resumed(RUN, config, split)

"""A run must fit the data and settings it is used with."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import EarlyStopping

from vidclf.contracts import Video
from vidclf.data.splits import Split
from vidclf.errors import VidclfError
from vidclf.run.compatible import (
    MAX_NAME_BYTES,
    check_classes,
    check_split,
    check_weights,
    differences,
    flatten,
    results_name,
    split_table,
)
from vidclf.run.folder import Run
from vidclf.run.resume import check_resumed, is_complete
from vidclf.system.disk import write_csv

CONFIG: dict[str, Any] = {
    "sampling": {"_target_": "vidclf.data.sampling.Rate", "rate_hz": 1},
    "head": {"widths": [16]},
    "optimizer": {"lr": 0.1},
    "trainer": {"max_epochs": 3},
    "dataset": {"root": "here"},
    "scheduler": {"_target_": "vidclf.models.schedules.constant"},
    "seed": 0,
}
SPLIT = Split(["A/1.avi", "A/2.avi", "B/3.avi"], ["train", "val", "test"], [2, 2, 2])
RUN = Run(Path("runs/x/checkpoints/best.ckpt"), 2, {}, {}, ["A", "B"], CONFIG, SPLIT.fingerprint, "c0ffee")


def changed(**sections: dict[str, Any]) -> dict[str, Any]:
    return {**CONFIG, **sections}


def test_nested_keys_are_dotted():
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_settings_that_differ_are_named_by_their_overrides():
    config = changed(sampling={**CONFIG["sampling"], "rate_hz": 5}, trainer={"max_epochs": 9})
    explicit = ["run=x", "part=val", "sampling.rate_hz=5", "trainer.max_epochs=9", "head.widths=[16]"]
    assert differences(RUN, config, explicit, True) == ["sampling.rate_hz=5"]
    assert differences(RUN, config, ["sampling=rate", "++sampling.rate_hz=5"], True) == [
        "sampling=rate",
        "++sampling.rate_hz=5",
    ]
    assert differences(RUN, changed(head={}), ["~head.widths", "~head.none"], True) == ["~head.widths"]


@pytest.mark.parametrize("same_videos", [True, False])
def test_another_place_is_a_difference_if_its_videos_are_others(same_videos: bool):
    moved = changed(dataset={"root": "elsewhere"})
    explicit = ["dataset.root=elsewhere"]
    assert differences(RUN, moved, explicit, same_videos) == ([] if same_videos else explicit)


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
        (["A", "B", "C"], r"has 2 classes, the data set has 3: only the run has none; only the data set has C"),
        (["A"], r"only the run has B; only the data set has none"),
        (["B", "A"], r"in another order than .*: A, B in the run, B, A in the data set"),
    ],
)
def test_classes_that_differ_from_the_run_are_refused(names: list[str], message: str):
    with pytest.raises(VidclfError, match=message):
        check_classes(RUN, names)


def test_weights_that_differ_from_the_run_are_refused():
    check_weights(RUN, "c0ffee")
    with pytest.raises(VidclfError, match="trained on a backbone with weights c0ffee, these are deadbeef"):
        check_weights(RUN, "deadbeef" * 8)


def corpus_of(split: Split, contents: str = "abc", segments: Sequence[tuple[float, float] | None] = ()) -> Any:
    """Return what is read of a corpus: its split, and the content (a letter) and segment of each file."""
    times = [segment or (None, None) for segment in segments] or [(None, None)] * len(split.names)
    videos = [
        Video(Path(name), 0, "g", start_s=start, end_s=end)
        for name, (start, end) in zip(split.names, times, strict=True)
    ]
    facts = {position: SimpleNamespace(content=content) for position, content in enumerate(contents)}
    return SimpleNamespace(split=split, videos=videos, facts=facts)


def run_in(folder: Path, corpus: Any = None) -> Run:
    """Return a run that was trained on a corpus; None: an older one, which kept no contents."""
    run = replace(RUN, path=folder / "checkpoints" / "best.ckpt")
    if corpus is None:
        write_csv(folder / "split.csv", ("video", "side"), SPLIT.rows())
        return run
    table = split_table(corpus)
    (folder / "split.csv").write_bytes(table)
    digest = hashlib.sha256(table).hexdigest()
    return replace(run, split_fingerprint=corpus.split.fingerprint, split_digest=digest)


def test_a_video_that_was_trained_on_is_never_scored_as_test(tmp_path: Path):
    now = corpus_of(Split(SPLIT.names, ["test", "val", "test"], [2, 2, 2]))
    for trained_on in (corpus_of(SPLIT), None):
        with pytest.raises(VidclfError, match=r"part=test: 1 .* in another part when .* trained: A/1.avi"):
            check_split(run_in(tmp_path, trained_on), now, "test")


def test_a_video_that_was_trained_on_is_known_by_its_content_whatever_its_name(tmp_path: Path):
    run = run_in(tmp_path, corpus_of(SPLIT))
    renamed = Split(["C/1.avi", "C/2.avi", "C/3.avi"], SPLIT.parts, [2, 2, 2])
    check_split(run, corpus_of(renamed), "test")
    for names, contents in ((renamed.names, "cba"), (SPLIT.names, "cba")):
        with pytest.raises(VidclfError, match=rf"part=test: 1 .* when .* trained: {names[2]}"):
            check_split(run, corpus_of(Split(names, SPLIT.parts, [2, 2, 2]), contents), "test")
    check_split(run, corpus_of(renamed, "abd"), "test")


def test_copies_that_were_in_two_parts_before_are_scored_as_before(tmp_path: Path):
    twins = corpus_of(SPLIT, "aba")
    check_split(run_in(tmp_path, twins), twins, "test")


def test_segments_of_one_file_are_the_same_only_where_they_overlap(tmp_path: Path):
    run = run_in(tmp_path, corpus_of(SPLIT, "aaa", [(0, 4), (4, 6), (6, 9)]))
    names = Split(["a", "b", "c"], SPLIT.parts, [2, 2, 2])
    check_split(run, corpus_of(names, "aaa", [(0, 4), (4, 6), (6, 8)]), "test")
    for third in ((3.5, 4), None):
        with pytest.raises(VidclfError, match=r"part=test: 1 .* trained: c"):
            check_split(run, corpus_of(names, "aaa", [(0, 4), (4, 6), third]), "test")


def test_new_and_missing_videos_are_reported_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    now = Split(["A/1.avi", "A/2.avi", "B/4.avi", "B/5.avi"], ["train", "val", "test", "test"], [2] * 4)
    check_split(run_in(tmp_path, corpus_of(SPLIT)), corpus_of(now, "abde"), "test")
    assert capsys.readouterr().err == "The data differ from the run's: 1 videos are missing, 2 are new.\n"


@pytest.mark.parametrize("table", ["", "video,side\r\n", "video,side\r\nA/1.avi,test\r\n", "x", '"', "a,b\r\n1\r\n"])
@pytest.mark.parametrize("is_old", [True, False])
def test_a_split_that_was_changed_after_training_is_refused(table: str, is_old: bool, tmp_path: Path):
    run = run_in(tmp_path, None if is_old else corpus_of(SPLIT))
    (tmp_path / "split.csv").write_text(table)
    now = corpus_of(Split(SPLIT.names, ["test", "val", "test"], [2, 2, 2]))
    with pytest.raises(VidclfError, match=r"split\.csv: not the split that the run was trained with"):
        check_split(run, now, "test")


def test_a_run_with_a_lost_split_is_not_scored_on_another_split(tmp_path: Path):
    now = corpus_of(Split(SPLIT.names, ["test", "val", "test"], [2, 2, 2]))
    with pytest.raises(VidclfError, match=r"split\.csv: missing, so it is unknown which videos"):
        check_split(replace(RUN, path=tmp_path / "checkpoints" / "best.ckpt"), now, "test")


def test_single_views_in_another_part_are_refused_for_validation_only(tmp_path: Path):
    now = corpus_of(Split(SPLIT.names, SPLIT.parts, SPLIT.num_views, {0: frozenset({1})}))
    run = run_in(tmp_path, corpus_of(SPLIT))
    check_split(run, now, "test")
    with pytest.raises(VidclfError, match=r"part=val: 1 .* in another part"):
        check_split(run, now, "val")


def test_training_goes_on_if_only_the_number_of_epochs_or_a_path_changed():
    now = changed(dataset={"root": "there"}, trainer={"max_epochs": 9}, backbone={"weights": "there"}, store={})
    check_resumed(RUN, now, ["A", "B"], SPLIT, "", "c0ffee")


@pytest.mark.parametrize(
    ("config", "split", "message"),
    [
        (changed(trainer={"max_epochs": 1}), SPLIT, "trainer.max_epochs=1: .* has trained 2 already"),
        (
            changed(trainer={"max_epochs": 3, "precision": "16-mixed"}),
            SPLIT,
            r"trainer.precision=16-mixed \(was None\)",
        ),
        (changed(scheduler={"_target_": "x.cosine"}, trainer={"max_epochs": 4}), SPLIT, "was planned for 3 epochs"),
        (changed(optimizer={"lr": 0.2}), SPLIT, r"trained with other settings or data: optimizer.lr=0.2 \(was 0.1\)"),
        (changed(seed=1), SPLIT, r"trained with other settings or data: seed=1 \(was 0\)"),
        (changed(callbacks={"a": {"_target_": "x.EMAWeightAveraging"}}), SPLIT, "callbacks.a._target_=x.EMAWeightAv"),
        (CONFIG, Split(SPLIT.names, ["val", "train", "test"], [2] * 3), "the videos, their contents or their parts"),
    ],
)
def test_training_does_not_go_on_with_other_settings_or_data(config: dict[str, Any], split: Split, message: str):
    with pytest.raises(VidclfError, match=message):
        check_resumed(RUN, config, ["A", "B"], split, "", "c0ffee")


def test_training_does_not_go_on_with_other_contents(tmp_path: Path):
    run = run_in(tmp_path, corpus_of(SPLIT))
    digest = hashlib.sha256(split_table(corpus_of(SPLIT, "xbc"))).hexdigest()
    check_resumed(run, CONFIG, ["A", "B"], SPLIT, run.split_digest, "c0ffee")
    with pytest.raises(VidclfError, match="the videos, their contents or their parts"):
        check_resumed(run, CONFIG, ["A", "B"], SPLIT, digest, "c0ffee")


def stopping(patience: int = 3, **state: Any) -> tuple[Run, list[EarlyStopping]]:
    """Return a run with a state of early stopping, and the callback."""
    callback = EarlyStopping("val/loss", patience=patience)
    return replace(RUN, callbacks={callback.state_key: {**callback.state_dict(), **state}}), [callback]


@pytest.mark.parametrize(
    ("max_epochs", "patience", "state", "complete"),
    [
        (3, 3, {}, False),
        (2, 3, {}, True),
        (None, 3, {"wait_count": 2}, False),
        (-1, 3, {"wait_count": 3, "stopping_reason": 3}, True),
        (3, 4, {"wait_count": 3, "stopping_reason": 3}, False),  # more patience than when it stopped
        (3, 1, {"wait_count": 1}, True),  # less
        (3, 3, {"wait_count": 0, "stopping_reason": 1}, True),  # at its threshold
    ],
)
def test_a_run_is_complete_when_its_epochs_are_done_or_it_was_stopped(
    max_epochs: int | None, patience: int, state: dict[str, Any], complete: bool, tmp_path: Path
):
    run, callbacks = stopping(patience, **state)
    run, config = replace(run, path=tmp_path / "checkpoints" / "last.ckpt"), {"trainer": {"max_epochs": max_epochs}}
    assert is_complete(run, config, callbacks) == complete
    (tmp_path / "metrics.json").touch()
    if complete:
        with pytest.raises(VidclfError, match=r"is complete and scored, with 2 of trainer\.max_epochs="):
            is_complete(run, config, callbacks)
    else:
        assert not is_complete(run, config, callbacks)
    assert not is_complete(run, {"trainer": {"max_epochs": 3, "min_epochs": 3}}, callbacks)


def test_another_smoothing_has_a_folder_of_its_own_and_does_not_overwrite_the_scores():
    run = replace(RUN, config={"timeline": {"smooth_s": None}, "seed": 0})
    config = {"timeline": {"smooth_s": 0}, "seed": 1}
    assert differences(run, config, ["timeline.smooth_s=0", "seed=1"], True) == ["timeline.smooth_s=0"]

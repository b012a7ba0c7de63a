"""Scores along the time of films: from the windows' predictions to files, with the values worked out by hand."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import make_corpus
from videos import encode_video

from vidclf.data.corpus import Corpus
from vidclf.data.datasets.events import Events
from vidclf.data.splits import Given
from vidclf.errors import VidclfError
from vidclf.evaluation.ethogram import report_timelines, write_coverage
from vidclf.evaluation.intervals import Clusters
from vidclf.evaluation.scores import VideoPredictions

PARTS = {"a.avi": "train", "b.avi": "val", "c.avi": "test", "d.avi": "test"}
SETTINGS: dict[str, Any] = {"step_s": 0.2, "smooth_s": None, "min_bout_s": None}
# Seven windows of 1 s, one every 0.5 s, of which class 1 has the last three or none. Their middles are 0.5 to 3.5 s.
LAST_THREE, NONE = "0000111", "0000000"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four films of 4 s, which must not change."""
    folder = tmp_path_factory.mktemp("films")
    for seed, name in enumerate(PARTS):
        encode_video(folder / name, 100, size=(32, 32), seed=seed)
    return folder


@pytest.fixture
def filmed(folder: Path, tmp_path: Path) -> Callable[..., Corpus]:
    """`filmed((2, 4, "walk"))` returns the corpus of the films, each with these events."""

    def make(*events: tuple[float, float, str], **settings: Any) -> Corpus:
        table = tmp_path / "events.csv"
        rows = [f"{name},{start},{end},{label},{part}" for name, part in PARTS.items() for start, end, label in events]
        table.write_text("\n".join(["path,start_s,end_s,label,part", *rows]))
        dataset = Events(table, folder, window_s=1, stride_s=0.5, **settings)
        return make_corpus(folder, dataset=dataset, split=Given())

    return make


def predict(corpus: Corpus, part: str, *films: str, probability: float = 0.9) -> VideoPredictions:
    """Return predictions of a part: of each film, the class of each window."""
    positions = [position for position, video in enumerate(corpus.videos) if video.part == part]
    of_windows = torch.tensor([int(label) for label in "".join(films)])
    rows = torch.full((len(of_windows), 2), 1 - probability).scatter(1, of_windows[:, None], probability)
    labels = torch.tensor([corpus.videos[position].label for position in positions])
    clusters = Clusters.of([corpus.videos[position].unit for position in positions])
    return VideoPredictions(rows.log(), labels, positions, clusters)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_films_are_scored_at_every_instant(filmed: Callable[..., Corpus], tmp_path: Path):
    """Walk lasts from 2 to 4 s. It is found in c.avi from 2.25 s on, 1 of 20 instants late, and not in d.avi."""
    corpus = filmed((2, 4, "walk"))
    (tmp_path / "metrics.json").write_text('{"smooth_s": 0, "min_bout_s": 0}')
    metrics = report_timelines(tmp_path, predict(corpus, "test", LAST_THREE, NONE), corpus, SETTINGS, tmp_path)
    assert metrics["frame_accuracy"] == pytest.approx(29 / 40)
    assert (metrics["frame_accuracy_low"], metrics["frame_accuracy_high"]) == pytest.approx((10 / 20, 19 / 20))
    assert metrics["segment_f1_50"] == pytest.approx(2 / 3)  # a hit, no false alarm, a miss
    assert metrics["edit"] == 0.5  # of c.avi 1, of d.avi 0
    assert rows_of(tmp_path / "bouts.csv") == [
        {"path": path, "source": source, "start_s": start_s, "end_s": end_s, "label": label}
        for path, source, start_s, end_s, label in (
            ("c.avi", "truth", "0.0", "2.0", "other"),
            ("c.avi", "truth", "2.0", "4.0", "walk"),
            ("c.avi", "prediction", "0.0", "2.2", "other"),
            ("c.avi", "prediction", "2.2", "4.0", "walk"),
            ("d.avi", "truth", "0.0", "2.0", "other"),
            ("d.avi", "truth", "2.0", "4.0", "walk"),
            ("d.avi", "prediction", "0.0", "4.0", "other"),
        )
    ]
    instants = rows_of(tmp_path / "timeline.csv")
    assert len(instants) == 40
    assert list(instants[0].items())[:4] == [
        ("path", "c.avi"),
        ("time_s", "0.1"),
        ("truth", "other"),
        ("predicted", "other"),
    ]
    assert float(instants[0]["p_walk"]) == pytest.approx(0.1)
    walk = rows_of(tmp_path / "timeline_classes.csv")[1]
    assert (walk["class"], float(walk["precision"]), float(walk["recall"])) == ("walk", 1, pytest.approx(9 / 20))
    assert (float(walk["true_s"]), float(walk["predicted_s"])) == pytest.approx((4.0, 1.8))
    assert (tmp_path / "ethogram.png").read_bytes().startswith(b"\x89PNG")


def test_the_clock_alone_finds_what_is_always_at_the_same_time(filmed: Callable[..., Corpus], tmp_path: Path):
    corpus = filmed((2, 4, "walk"))
    metrics = report_timelines(tmp_path, predict(corpus, "test", NONE, NONE), corpus, SETTINGS, tmp_path)
    assert metrics["clock_frame_accuracy"] == 1
    assert metrics["majority_frame_accuracy"] == 0.5
    assert metrics["majority_frame_macro_f1"] == pytest.approx(1 / 3)  # F1 of other is 2/3, of walk 0


def test_the_cleaning_is_chosen_on_val_and_used_on_test(
    filmed: Callable[..., Corpus], tmp_path: Path, capsys: pytest.CaptureFixture
):
    """Walk is predicted for 1.8 s, which bouts of at least 2 s do not allow."""
    corpus = filmed((2, 4, "walk"))
    val = report_timelines(tmp_path, predict(corpus, "val", LAST_THREE), corpus, SETTINGS, None)
    assert (val["smooth_s"], val["min_bout_s"]) == (0, 0)  # of choices that are as good, the smallest
    assert val["frame_accuracy"] == pytest.approx(19 / 20)
    assert "frame_accuracy_low" not in val  # of one film

    def scored(settings: dict[str, Any]) -> float:
        predictions = predict(corpus, "test", LAST_THREE, LAST_THREE)
        return report_timelines(tmp_path, predictions, corpus, settings, tmp_path)["frame_accuracy"]

    capsys.readouterr()
    assert scored(SETTINGS) == pytest.approx(19 / 20)
    assert "no smoothing was chosen on val, so timelines are not smoothed" in capsys.readouterr().err
    (tmp_path / "metrics.json").write_text(json.dumps({"smooth_s": 0, "min_bout_s": 2}))
    assert scored(SETTINGS) == 0.5
    assert scored({**SETTINGS, "min_bout_s": 0}) == pytest.approx(19 / 20)


def test_instants_without_a_label_do_not_count_where_there_is_no_background(
    filmed: Callable[..., Corpus], tmp_path: Path
):
    """Sit lasts from 0 to 1.5 s, 7 instants, and walk from 2 to 4 s, 10 instants; the 3 between them have no label."""
    corpus = filmed((0, 1.5, "sit"), (2, 4, "walk"), background=None)
    assert corpus.class_names == ["sit", "walk"]
    metrics = report_timelines(tmp_path, predict(corpus, "val", "0001111"), corpus, SETTINGS, None)
    assert metrics["frame_accuracy"] == 1
    assert [float(row["true_s"]) for row in rows_of(tmp_path / "timeline_classes.csv")] == pytest.approx([1.4, 2.0])
    truths = [row["truth"] for row in rows_of(tmp_path / "timeline.csv")]
    assert truths == ["sit"] * 7 + [""] * 3 + ["walk"] * 10
    assert "" not in [row["label"] for row in rows_of(tmp_path / "bouts.csv")]


@pytest.mark.parametrize("step_s", [0, -1, 11])
def test_a_step_that_is_not_allowed_is_refused(step_s: float, filmed: Callable[..., Corpus], tmp_path: Path):
    corpus = filmed((2, 4, "walk"))
    with pytest.raises(VidclfError, match=f"timeline.step_s={step_s}: must be above 0 and at most 10 seconds"):
        report_timelines(tmp_path, predict(corpus, "val", NONE), corpus, {**SETTINGS, "step_s": step_s}, None)


def test_coverage_says_how_many_predictions_are_sure_and_how_many_of_these_are_right(
    filmed: Callable[..., Corpus], tmp_path: Path
):
    """Three of seven windows are other. All are predicted as other, with 0.9, which a temperature of 2 makes 0.75."""
    predictions = predict(filmed((2, 4, "walk")), "val", NONE)
    write_coverage(tmp_path, predictions, 2.0)
    rows = {float(row["threshold"]): row for row in rows_of(tmp_path / "coverage.csv")}
    assert {threshold: float(row["coverage"]) for threshold, row in rows.items()} == {
        **dict.fromkeys((0.5, 0.6, 0.7), 1),
        **dict.fromkeys((0.8, 0.9, 0.95, 0.99), 0),
    }
    assert float(rows[0.5]["top1"]) == pytest.approx(3 / 7)
    assert rows[0.8]["top1"] == ""

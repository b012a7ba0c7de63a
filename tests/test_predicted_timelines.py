"""`vidclf predict` of long videos: windows with the bits of evaluation, and bouts that settle one after the other."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles import Clips, Counter, Images, TwoCrops, make_corpus, make_stored
from torch import nn
from verbs import Outcome, call
from videos import encode_video

from vidclf.contracts import Sampling, Transform
from vidclf.data.datasets.events import Events
from vidclf.data.decoding import VideoInfo, inspect
from vidclf.data.events import read_events
from vidclf.data.sampling import Dense, Rate, Uniform
from vidclf.data.splits import Given
from vidclf.data.transforms import BackboneTransform
from vidclf.errors import VidclfError, VideoError
from vidclf.evaluation.segments import bouts_of
from vidclf.evaluation.timeline import average_windows, drop_short, smooth
from vidclf.features.batches import StoredFeatures
from vidclf.models.aggregation import mean
from vidclf.models.backbones.wrap import wrap
from vidclf.models.classifier import Classifier
from vidclf.models.heads.mean_pool import MeanPool
from vidclf.models.scaling import Scaling
from vidclf.predict import _choose_windows
from vidclf.prediction import timeline
from vidclf.prediction.files import Predictor
from vidclf.prediction.timeline import (
    Timeliner,
    average_settled,
    check_target,
    clean_settled,
    merge,
    smooth_settled,
    write_bouts,
)
from vidclf.prediction.windows import Windows, score_windows

LEARNS = (
    *("backbone=pixels", "head=linear", "sampling.rate_hz=10", "trainer.max_epochs=30", "optimizer.lr=0.1"),
    *("num_threads=1", "callbacks.view_sheets.num_views=1"),
)
NAMES = ["other", "run", "walk"]
COLOURS = {"other": (40, 40, 200), "run": (40, 200, 40), "walk": (200, 40, 40)}
FILMS: dict[str, Any] = {  # rate, seconds, part, events
    "a.avi": (25, 8, "train", [(0, 3, "walk"), (3, 5.5, "run")]),
    "b.mp4": (29.97, 5, "val", [(0, 1.5, "walk"), (1.5, 3.5, "run")]),
    "c.avi": (25, 4, "test", [(1, 3, "walk")]),
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three films, a colour for each class, and a table of their events, which must not change."""
    folder = tmp_path_factory.mktemp("films")
    rows = ["path,start_s,end_s,label,part"]
    for name, (fps, duration_s, part, events) in FILMS.items():
        times = np.arange(round(duration_s * fps)) / fps
        labels = [next((label for first, stop, label in events if first <= time < stop), "other") for time in times]
        noise = np.random.default_rng(0).integers(-30, 30, (len(times), 32, 32, 3))
        frames = (
            np.clip(COLOURS[label] + one, 0, 255).astype(np.uint8) for label, one in zip(labels, noise, strict=True)
        )
        codec = "libx264" if name.endswith(".mp4") else "mpeg4"
        encode_video(folder / name, fps=fps, size=(32, 32), frames=frames, codec=codec)
        rows += [f"{name},{first},{stop},{label},{part}" for first, stop, label in events]
    (folder / "events.csv").write_text("\n".join(rows))
    return folder


def make_predictor(backbone: nn.Module, sampling: Sampling, transform: Transform | None = None) -> Predictor:
    """Return a predictor with random weights."""
    wrapped = wrap(backbone)
    torch.manual_seed(0)
    head = MeanPool(backbone.feature_dim, len(NAMES))
    for parameter in head.parameters():
        parameter.data.normal_(std=0.5)
    classifier = Classifier(wrapped, Scaling(backbone.feature_dim, "none"), head, mean)
    made = transform or BackboneTransform(wrapped.picture_format)
    return Predictor(classifier, sampling, made, NAMES, torch.device("cpu"))


@pytest.mark.parametrize(
    ("backbone", "sampling", "transform"),
    [
        (Images, Rate(10), None),
        (Images, Uniform(8), None),
        (Images, Rate(4), TwoCrops),
        (Clips, Dense(2, 4, 2), None),
    ],
)
def test_windows_have_the_bits_of_evaluation(
    backbone: type, sampling: Any, transform: Any, films: Path, tmp_path: Path
):
    made = transform(backbone.picture_format) if transform else None
    rate_hz = getattr(sampling, "rate_hz", None)
    dataset = Events(films / "events.csv", window_s=1, stride_s=0.5, rate_hz=rate_hz)
    store = str(tmp_path / "store")
    corpus = make_corpus(films, dataset=dataset, split=Given(), sampling=sampling, store=store)
    source: StoredFeatures = make_stored(corpus, tmp_path / "films", backbone(), transform=made)
    source.prepare(corpus.all_views())
    predictor = make_predictor(backbone(), sampling, made)
    expected: dict[str, list[torch.Tensor]] = {}
    for views in corpus.all_views():
        name = corpus.videos[views.video].path.name
        expected.setdefault(name, []).append(predictor.score(source._labelled([views]).inputs, name))
    assert len(expected) == 3
    for name, rows in expected.items():
        info = inspect(films / name)
        times = Windows(1, 0.5, rate_hz).times_of(films / name, info)
        scored = list(score_windows(predictor, films / name, info, *times))
        assert torch.equal(torch.stack(scored), torch.stack(rows))
    assert len({tuple(row.tolist()) for rows in expected.values() for row in rows}) > 1


def test_frames_that_windows_share_are_computed_once(films: Path):
    backbone = Images()
    counter, predictor = Counter(backbone), make_predictor(backbone, Rate(5))
    info = inspect(films / "a.avi")
    times = Windows(2, 0.4, 5).times_of(films / "a.avi", info)
    assert len(list(score_windows(predictor, films / "a.avi", info, *times))) == 16
    assert counter.count == 40  # 8 s at 5 a second; each is in five windows


@pytest.mark.parametrize("window_s", [2.0, 0.75])  # with gaps
@pytest.mark.parametrize("stride_s", [0.5, 1.3])
def test_settled_averages_are_those_of_all_windows(window_s: float, stride_s: float):
    starts = np.arange(20) * stride_s
    ends = starts + window_s
    times = (np.arange(round(ends[-1] / 0.1) + 4) + 0.5) * 0.1  # some after the last window
    windows = np.random.default_rng(0).dirichlet([1, 1, 1], 20)
    blocks = list(average_settled(iter(windows), starts, ends, times))
    assert len(blocks) > 10
    assert np.concatenate(blocks) == pytest.approx(average_windows(windows, starts, ends, times), abs=1e-12)


@pytest.mark.parametrize("num_steps", [1, 2, 5, 20, 500])
@pytest.mark.parametrize("length", [1, 7, 64])
def test_settled_smoothing_is_that_of_the_whole_video(num_steps: int, length: int):
    rows = np.random.default_rng(1).dirichlet([1, 1, 1], 200)
    blocks = np.split(rows, range(length, 200, length))
    smoothed = np.concatenate(list(smooth_settled(blocks, num_steps)))
    assert smoothed == pytest.approx(smooth(rows, num_steps), abs=1e-12)


@pytest.mark.parametrize("min_steps", [0, 1, 3, 10, 1000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_settled_bouts_are_those_of_the_whole_video(min_steps: int, seed: int):
    generator = np.random.default_rng(seed)
    labels = np.repeat(generator.integers(0, 3, 60), generator.integers(1, 12, 60))
    rows = 0.1 + 0.7 * np.eye(3)[labels]
    blocks = np.split(rows, np.sort(generator.choice(len(rows), 30, replace=False)))
    found = list(merge(clean_settled(blocks, min_steps)))
    expected = bouts_of(drop_short(labels, min_steps))
    assert [bout[:2] for bout in found] == [(bout.label, bout.stop - bout.first) for bout in expected]
    for (label, _, probability), (first, stop, _) in zip(found, expected, strict=True):
        assert probability == pytest.approx(rows[first:stop, label].mean())


def test_a_bout_is_given_as_soon_as_nothing_can_change_it():
    """Bouts shorter than 3 steps are dropped: the first bout is settled when the third step of the second is seen."""
    given: list[int] = []

    def blocks() -> Any:
        for number, label in enumerate([0] * 5 + [1] * 4 + [0] * 9):
            given.append(number)
            yield np.eye(2)[[label]]

    assert next(merge(clean_settled(blocks(), 3)))[:2] == (0, 5)
    assert given[-1] == 8  # the step after


@pytest.mark.parametrize("stride_s", [0.5, 1.0, 2.0])
def test_perfect_windows_give_bouts_within_half_a_stride(stride_s: float, monkeypatch: pytest.MonkeyPatch):
    """The truth changes at 30.3 s and at 47.9 s."""
    info = VideoInfo(1500, 25.0, 32, 32)

    def perfect(predictor: Any, path: Path, info: VideoInfo, starts_s: np.ndarray, ends_s: np.ndarray) -> Any:
        middles = (starts_s + ends_s) / 2
        for is_walk in ((middles > 30.3) & (middles < 47.9)).tolist():
            yield torch.tensor([0.01, 0.01, 0.98] if is_walk else [0.98, 0.01, 0.01]).log()

    monkeypatch.setattr(timeline, "score_windows", perfect)
    bouts = list(Timeliner(make_predictor(Images(), Rate(5)), Windows(2, stride_s)).bouts(Path("film.avi"), info))
    assert [bout.label for bout in bouts] == ["other", "walk", "other"]
    assert bouts[1].start_s == pytest.approx(30.3, abs=stride_s / 2 + 0.1)
    assert bouts[1].end_s == pytest.approx(47.9, abs=stride_s / 2 + 0.1)
    assert (bouts[0].start_s, bouts[2].end_s) == (0, 60)
    assert bouts[1].probability == pytest.approx(0.98, abs=0.2)


def test_windows_that_are_not_sure_enough_have_no_label(films: Path):
    """The temperature makes 0.6 and 0.4 of 0.75 and 0.25, roughly."""
    log_probabilities = torch.tensor([0.75, 0.25, 1e-6]).log()
    unsure = Timeliner(make_predictor(Images(), Rate(5)), Windows(1, 1), threshold=0.7, temperature=2.7)
    assert unsure._probabilities(log_probabilities).tolist() == [0, 0, 0, 1]
    sure = Timeliner(make_predictor(Images(), Rate(5)), Windows(1, 1), threshold=0.7)
    assert sure._probabilities(log_probabilities).tolist() == pytest.approx([0.75, 0.25, 0, 0], abs=1e-5)
    nothing = Timeliner(make_predictor(Images(), Rate(5)), Windows(1, 1), threshold=1, temperature=20.0)
    bouts = list(nothing.bouts(films / "a.avi", inspect(films / "a.avi")))
    assert bouts == [(0, 8, None, None)]


def test_a_video_shorter_than_a_window_is_an_error(films: Path):
    with pytest.raises(VideoError, match=r"c\.avi: it is 4\.00 s long, and a window 5 s\. Choose a shorter window_s"):
        Windows(5, 1).times_of(films / "c.avi", inspect(films / "c.avi"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"window_s": 0}, "window_s=0: must be a number, at least 0.001, in seconds."),
        ({"stride_s": 0}, "stride_s=0: must be a number, at least 0.001, in seconds."),
        ({"dataset": {"window_s": "long"}}, "window_s=long: must be a number"),
        ({"threshold": 1.5}, "threshold=1.5: must be above 0 and at most 1, a probability."),
        ({"threshold": 0}, "threshold=0: must be above 0 and at most 1, a probability."),
        (
            {"threshold": 0.5},
            "threshold=0.5: each file gets one label, as this run was trained on clips. Add win",
        ),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused(setting: dict, message: str):
    config = {**dict.fromkeys(("window_s", "stride_s", "threshold", "to")), "dataset": {}, "sampling": {}, **setting}
    with pytest.raises(VidclfError, match=re.escape(message)):
        _choose_windows(config, is_live=False)


@pytest.mark.parametrize(
    ("setting", "windows"),
    [
        ({}, Windows(2, 1, 4)),
        ({"window_s": 3}, Windows(3, 1, 4)),
        ({"stride_s": 0.5}, Windows(2, 0.5, 4)),
    ],
)
def test_windows_are_those_of_the_run_unless_the_call_says_otherwise(setting: dict, windows: Windows):
    of_run = {"dataset": {"window_s": 2, "stride_s": 1, "rate_hz": 4}, "sampling": {"rate_hz": 5}}
    config = {**dict.fromkeys(("window_s", "stride_s", "threshold", "to")), **of_run, **setting}
    assert _choose_windows(config, is_live=False) == windows


def test_windows_of_a_run_trained_on_clips_overlap_by_half():
    config = {**dict.fromkeys(("window_s", "stride_s", "threshold", "to")), "dataset": {}, "sampling": {"rate_hz": 5}}
    assert _choose_windows(config, is_live=False) is None
    assert _choose_windows({**config, "window_s": 3}, is_live=False) == Windows(3, 1.5, 5)
    assert _choose_windows(config, is_live=True).window_s == 10


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("out.txt", "out.txt: the name must end in .boris, .csv,"),
        ("out.vtt", "out.vtt: the events are of 2 videos"),
        ("there.csv", "there.csv: the file exists. Choose another name or delete it."),
        ("nowhere/out.csv", "nowhere. Make it, or choose another."),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_at_once(to: str, message: str, tmp_path: Path):
    (tmp_path / "there.csv").touch()
    with pytest.raises(VidclfError, match=re.escape(message)):
        check_target(tmp_path / to, [tmp_path / "a.avi", tmp_path / "b.avi"])
    check_target(tmp_path / "out.csv", [tmp_path / "a.avi", tmp_path / "b.avi"])
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]


def test_a_video_is_named_by_its_path_below_the_events_or_by_its_whole_path(tmp_path: Path):
    paths = [tmp_path / "deep" / "a.avi", Path("/elsewhere/b.avi"), tmp_path / "c.avi"]
    films = dict.fromkeys(paths, VideoInfo(100, 25.0, 32, 32))
    a, b, c = map(str, paths)
    lines = [
        {"path": a, "start_s": 0.0, "end_s": 2.0, "label": "walk", "probability": 0.9},
        {"path": a, "start_s": 2.0, "end_s": 3.0, "label": None, "probability": None},
        {"path": a, "start_s": 3.0, "end_s": 4.0, "label": "other", "probability": 0.9},
        {"path": b, "start_s": 0.0, "end_s": 4.0, "label": "run", "probability": 0.9},
        {"path": c, "start_s": 0.0, "end_s": 1.0, "label": "run", "probability": 0.9},
        {"path": c, "error": "it broke off"},
    ]
    assert write_bouts(tmp_path / "out.csv", lines, films, "other") == (2, 2)
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "path,start_s,end_s,label",
        "/elsewhere/b.avi,0,4,run",
        "deep/a.avi,0,2,walk",
    ]
    assert write_bouts(tmp_path / "out.jsonl", lines, films, "other") == (2, 2)
    assert list(map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())) == lines


# The verb


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory, films: Path) -> Path:
    """Train and evaluate a small run on windows of the films; its folder must not change."""
    folder = tmp_path_factory.mktemp("project")
    dataset = ("dataset=events", f"dataset.file={films}/events.csv", "dataset.window_s=1", "dataset.stride_s=0.5")
    trained = call("train", *dataset, "split=given", *LEARNS, folder=folder)
    assert trained.status == 0, trained.err
    evaluated = call("evaluate", f"run={trained.run}", folder=folder)
    assert evaluated.status == 0, evaluated.err
    return folder / trained.run


@pytest.fixture
def predict(filmed: Path, vidclf: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """`predict(source)` labels with the run that knows windows."""
    return lambda source, *arguments: vidclf("predict", f"run={filmed}", f"source={source}", *arguments)


@pytest.mark.slow
def test_predict_gives_the_bouts_that_evaluate_wrote(predict: Callable[..., Outcome], filmed: Path, films: Path):
    outcome = predict(films / "c.avi")
    assert outcome.status == 0, outcome.err
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    with (filmed / "test" / "bouts.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "prediction"]
    assert [(line["start_s"], line["label"]) for line in lines] == [
        (float(row["start_s"]), row["label"]) for row in rows
    ]
    assert len(lines) > 1
    assert (lines[-1]["end_s"], rows[-1]["end_s"]) == (4, "3.5")  # evaluate ends with the last window
    assert list(lines[0]) == ["path", "start_s", "end_s", "label", "probability"]
    assert "labelling 6 windows" in outcome.err


@pytest.mark.slow
def test_bouts_that_are_not_background_are_written_as_events(
    predict: Callable[..., Outcome], films: Path, tmp_path: Path
):
    for name in "ac":
        shutil.copy(films / f"{name}.avi", tmp_path / f"{name}.avi")
    lines = [json.loads(line) for line in predict(tmp_path).out.splitlines()]
    shown = [
        (Path(line["path"]).name, line["start_s"], line["end_s"], line["label"])
        for line in lines
        if line["label"] != "other"
    ]
    outcome = predict(tmp_path, "to=out.tsv")
    assert outcome.status == 0, outcome.err
    assert outcome.out == f"{len(shown)} events of 2 video(s)\nresults out.tsv\n"
    events = read_events(tmp_path / "out.tsv")
    assert [(event.path, event.start_s, event.end_s, event.label) for event in events] == shown


@pytest.mark.slow
def test_a_film_that_fails_does_not_end_the_others(predict: Callable[..., Outcome], films: Path, tmp_path: Path):
    for name in "ac":
        shutil.copy(films / f"{name}.avi", tmp_path / f"{name}.avi")
    (tmp_path / "b.avi").write_bytes((films / "a.avi").read_bytes()[:2000])
    printed = predict(tmp_path)
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert list(dict.fromkeys(Path(line["path"]).name for line in lines)) == ["a.avi", "b.avi", "c.avi"]
    assert [list(line) for line in lines if "error" in line] == [["path", "error"]]
    for to, found in (("out.jsonl", lines), ("out.tsv", None)):
        outcome = predict(tmp_path, f"to={to}")
        for failed in (printed, outcome):
            assert failed.status == 1
            assert f"failed: {tmp_path}/b.avi: " in failed.err
            assert "VidclfError: 1 of 3 videos failed, for the reasons above; the others are done." in failed.err
        assert outcome.err.index("failed: ") < outcome.err.index("labelling")
        if found:
            written = [json.loads(line) for line in (tmp_path / to).read_text().splitlines()]
            assert sorted(written, key=str) == sorted(found, key=str)
    assert {event.path for event in read_events(tmp_path / "out.tsv")} <= {"a.avi", "c.avi"}
    assert predict(tmp_path, "dataset.on_error=skip", "to=skipped.tsv").status == 0
    assert (tmp_path / "skipped.tsv").read_bytes() == (tmp_path / "out.tsv").read_bytes()


@pytest.mark.slow
def test_a_stride_above_the_window_leaves_gaps_and_says_so(predict: Callable[..., Outcome], films: Path):
    outcome = predict(films / "a.avi", "stride_s=3")
    assert outcome.status == 0, outcome.err
    assert "stride_s=3: windows of 1 s leave gaps, in which instants get the label of the nearest" in outcome.err
    assert json.loads(outcome.out.splitlines()[-1])["end_s"] == 8


def test_a_run_trained_on_clips_gives_a_timeline_where_windows_are_asked_for(
    trained: Outcome, vidclf: Callable[..., Outcome], films: Path
):
    def predict(*arguments: str) -> Outcome:
        return vidclf("predict", f"run={trained.run}", f"source={films / 'a.avi'}", *arguments)

    lines = [json.loads(line) for line in predict("window_s=2").out.splitlines()]
    assert (lines[0]["start_s"], lines[-1]["end_s"]) == (0, 8)
    assert all(one["end_s"] == other["start_s"] for one, other in pairwise(lines))
    (whole,) = predict().out.splitlines()
    assert "top5" in json.loads(whole)

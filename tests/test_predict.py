"""`vidclf predict`: files, folders and streams in, JSON lines out, with the same bits as evaluate."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from verbs import Outcome
from videos import encode_video, numbered_frame


@pytest.fixture
def predict(vidclf: Callable[..., Outcome], trained: Outcome) -> Callable[..., Outcome]:
    """`predict(source)` labels with the session's small run."""
    return lambda source, *arguments: vidclf("predict", f"run={trained.run}", f"source={source}", *arguments)


def lines_of(outcome: Outcome) -> list[dict[str, Any]]:
    """Parse every printed line."""
    assert outcome.status == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_a_file_is_one_line_with_its_label_and_the_five_most_probable(predict: Callable[..., Outcome], clips: Path):
    clip = clips / "Archery" / "v_Archery_g01_c01.avi"
    (line,) = lines_of(predict(clip))
    assert list(line) == ["path", "label", "probability", "top5"]
    assert line["path"] == str(clip)
    assert line["top5"][0] == {"label": line["label"], "probability": line["probability"]}
    assert {top["label"] for top in line["top5"]} == {"ApplyEyeMakeup", "Archery"}
    assert sum(top["probability"] for top in line["top5"]) == pytest.approx(1)


@pytest.mark.parametrize("overrides", [[], ["sampling=dense", "sampling.num_frames=4", "aggregation=mode"]])
def test_predict_and_evaluate_give_the_same_probabilities_to_the_last_bit(
    overrides: list[str], predict: Callable[..., Outcome], vidclf: Callable[..., Outcome], run: Path, clips: Path
):
    outcome = vidclf("evaluate", f"run={run}", *overrides)
    assert outcome.status == 0, outcome.err
    (path,) = run.glob("test*/predictions.csv")
    with path.open(newline="") as file:
        scored = {row["video"]: (row["predicted"], float(row["probability"])) for row in csv.DictReader(file)}
    labelled = {
        "/".join(Path(line["path"]).parts[-2:]): (line["label"], line["probability"])
        for line in lines_of(predict(clips, *overrides))
    }
    assert len(labelled) == 20
    assert {name: labelled[name] for name in scored} == scored
    assert len({probability for _, probability in scored.values()}) > 1


def test_a_folder_is_searched_for_videos_in_order_and_other_files_are_ignored(
    predict: Callable[..., Outcome], tmp_path: Path
):
    folder = tmp_path / "my videos, (Ü) = ${x}"
    (folder / "deep").mkdir(parents=True)
    for name, codec in (("b.MP4", "libx264"), ("a.avi", "mpeg4"), ("deep/c.mkv", "ffv1")):
        encode_video(folder / name, codec=codec)
    (folder / "notes.txt").write_text("no video")
    assert [line["path"] for line in lines_of(predict(folder))] == [
        str(folder / name) for name in ("a.avi", "b.MP4", "deep/c.mkv")
    ]


def test_a_folder_without_videos_is_an_error(predict: Callable[..., Outcome], tmp_path: Path):
    outcome = predict(tmp_path)
    assert (outcome.status, outcome.out) == (1, "")
    assert f"source={tmp_path}: no video below this folder; looked for .264, .265, .3g2," in outcome.err


def test_a_folder_is_searched_through_links_and_ignored_files_are_listed(
    predict: Callable[..., Outcome], shared: Path, tmp_path: Path
):
    source = shutil.copytree(shared / "cases/predict_folder/src", tmp_path / "src", ignore=lambda *_: ["clips"])
    (source / "clips").symlink_to(shared / "cases/predict_folder/real")
    (source / "circle").symlink_to(source)
    outcome = predict(source)
    names = ["UPPER.MTS", "b.mp4", "clips/a.mp4"]
    assert [line["path"] for line in lines_of(outcome)] == [str(source / name) for name in names]
    assert "1 file(s) are ignored, because their endings are not those of videos: an.gif." in outcome.err


def test_a_file_name_that_is_not_utf_8_is_predicted(predict: Callable[..., Outcome], tmp_path: Path):
    path = tmp_path / os.fsdecode(b"\xff\xe4.avi")
    encode_video(tmp_path / "clip.avi").rename(path)
    (line,) = lines_of(predict(path))
    assert line["path"] == str(path)


def test_a_damaged_file_is_a_line_with_its_error_and_the_others_go_on_or_it_is_skipped(
    predict: Callable[..., Outcome], clips: Path, tmp_path: Path
):
    folder = shutil.copytree(clips / "Archery", tmp_path / "clips")
    paths = sorted(folder.iterdir())
    paths[3].write_bytes(paths[3].read_bytes()[:2000])
    paths[5].write_text("no video")
    outcome = predict(folder)
    assert outcome.status == 1
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert [line["path"] for line in lines] == [*map(str, paths)]
    assert [list(line) for line in lines if "label" not in line] == [["path", "error"]] * 2
    assert lines[5]["error"].startswith("FFmpeg finds no video in its 8 bytes")
    assert f"failed: {paths[3]}: " in outcome.err
    assert f"VidclfError: 2 of {len(paths)} videos failed, for the reasons above; the others are done." in outcome.err
    assert "Traceback" not in outcome.err

    outcome = predict(folder, "dataset.on_error=skip")
    kept = [path for path in paths if path not in (paths[3], paths[5])]
    assert [line["path"] for line in lines_of(outcome)] == list(map(str, kept))
    assert outcome.err.count("left out: ") == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"just words\n" * 100, "FFmpeg finds no video in its 1,100 bytes"),
        (None, "the file cannot be read (No such file or directory)"),
    ],
)
def test_a_file_that_is_not_a_video_is_an_error(
    content: bytes | None, sentence: str, predict: Callable[..., Outcome], tmp_path: Path
):
    path = tmp_path / "clip.avi"
    if content is not None:
        path.write_bytes(content)
    outcome = predict(path)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith(f"VideoError: {path}: ")
    assert sentence in outcome.err
    assert "Traceback" not in outcome.err


def test_a_stream_is_labelled_window_by_window(
    predict: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clip = encode_video(tmp_path / "clip.avi", 60)
    with clip.open("rb") as stdin:
        monkeypatch.setattr(sys, "stdin", SimpleStdin(stdin))
        lines = lines_of(predict("-", "window_s=1", f"to={tmp_path / 'labels.csv'}"))
    # 60 frames at 25 a second; the second window begins at the nearest frame that sampling=rate takes.
    assert [(line["start_s"], line["end_s"], line["time"]) for line in lines] == [
        (0, 1, 1),
        (1.04, 2.04, 2.04),
        (2, 2.4, 2.4),
    ]
    assert [line["path"] for line in lines] == ["-"] * 3
    assert len({line["probability"] for line in lines}) > 1
    assert [line["dropped"] for line in lines] == [0, 0, 0]
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [(float(row["end_s"]), row["label"]) for row in rows] == [(line["end_s"], line["label"]) for line in lines]


class SimpleStdin:
    """Standard input; PyAV reads its buffer."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer


def test_a_window_of_a_stream_is_labelled_as_a_file_of_its_frames(
    predict: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lossless = {"codec": "ffv1", "pix_fmt": "bgr0"}
    whole = encode_video(tmp_path / "whole.mkv", 52, **lossless)
    second = (numbered_frame(number) for number in range(26, 51))
    (file,) = lines_of(predict(encode_video(tmp_path / "second.mkv", frames=second, **lossless)))
    with whole.open("rb") as stdin:
        monkeypatch.setattr(sys, "stdin", SimpleStdin(stdin))
        window = lines_of(predict("-", "window_s=1"))[1]
    assert window["probability"] == file["probability"]


def test_a_window_of_no_length_is_an_error(predict: Callable[..., Outcome]):
    outcome = predict("-", "window_s=0")
    assert outcome[:2] == (1, "")
    assert outcome.err == "VidclfError: window_s=0: must be a number, at least 0.001, in seconds.\n"


def test_a_pipe_into_a_new_process_gives_json_lines_and_imports_nothing_that_trains_or_draws(
    trained: Outcome, clips: Path
):
    code = "import sys; sys.argv.insert(1, 'predict'); from vidclf.cli import main; main(); print(*sys.modules)"
    command = (sys.executable, "-c", code, f"run={trained.run}", "source=-")
    with (clips / "Archery" / "v_Archery_g01_c01.avi").open("rb") as stdin:
        result = subprocess.run(command, stdin=stdin, capture_output=True, text=True, cwd=trained.run, check=False)
    assert result.returncode == 0
    assert result.stderr == f"predict: {trained.run} -> standard output, or what to=FILE names\n"
    text, modules = result.stdout.splitlines()
    line = json.loads(text)
    assert (line["path"], line["start_s"]) == ("-", 0)
    assert not (trained.run / "runs").exists()
    heavy = {"lightning", "torchmetrics", "sklearn", "scipy", "matplotlib", "tensorboard", "jinja2", "rich"}
    assert not heavy & set(modules.split())
    assert "vidclf.models.classifier" in modules.split()


def test_an_empty_source_is_an_error(run: Path, vidclf: Callable[..., Outcome]):
    outcome = vidclf("predict", f"run={run}", "source=")
    assert (outcome.status, outcome.out) == (1, "")
    assert "source=: must not be empty" in outcome.err

"""`vidclf predict ... to=FILE`: a row for each file, and a job that goes on."""

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from verbs import Outcome
from videos import encode_video

from vidclf.errors import VideoError
from vidclf.features.extract import images_of
from vidclf.prediction.files import Predictor, look_at


@pytest.fixture
def videos(clips: Path, tmp_path: Path) -> Path:
    """A folder with four videos and a damaged one."""
    folder = tmp_path / "videos"
    folder.mkdir()
    found = sorted((clips / "Archery").iterdir())
    for name, source in zip("aceg", found, strict=False):
        shutil.copy(source, folder / f"{name}.avi")
    (folder / "d.avi").write_bytes(found[0].read_bytes()[:2000])
    return folder


@pytest.fixture
def predict(vidclf: Callable[..., Outcome], trained: Outcome) -> Callable[..., Outcome]:
    """`predict(words)` labels with the session's small run."""
    return lambda *words: vidclf("predict", f"run={trained.run}", *map(str, words))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were scored, in order."""
    found: list[str] = []
    score = Predictor.score

    def note(self: Predictor, features: Any, name: str) -> Any:
        found.append(Path(name).name)
        return score(self, features, name)

    monkeypatch.setattr(Predictor, "score", note)
    return found


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_a_table_has_a_row_a_file_in_order_with_the_label_that_is_printed(
    predict: Callable[..., Outcome], videos: Path, tmp_path: Path
):
    outcome = predict(videos, "missing.avi", "to=out.csv")
    assert outcome.status == 1
    assert outcome.out == "4 of 6 videos have labels\nresults out.csv\n"
    assert "VidclfError: 2 of 6 videos failed, for the reasons above; the others are done." in outcome.err
    rows = rows_of(tmp_path / "out.csv")
    assert list(rows[0]) == [
        *("path", "start_s", "end_s", "label", "probability", "p_ApplyEyeMakeup", "p_Archery"),
        *("error", "content", "run"),
    ]
    assert [Path(row["path"]).name for row in rows] == ["a.avi", "c.avi", "d.avi", "e.avi", "g.avi", "missing.avi"]
    lines = [json.loads(line) for line in predict(videos, "missing.avi").out.splitlines()]
    for row, line in zip(rows, lines, strict=True):
        assert row["path"] == line["path"]
        assert row["error"] == line.get("error", "")
        assert row["label"] == line.get("label", "")
        if not row["error"]:
            assert (
                float(row["probability"])
                == line["probability"]
                == max(float(row[f"p_{x['label']}"]) for x in line["top5"])
            )
            assert (len(row["content"]), row["run"]) == (64, rows[0]["run"])


def test_called_again_only_what_is_new_or_failed_is_computed(
    predict: Callable[..., Outcome], videos: Path, tmp_path: Path, scored: list[str]
):
    assert predict(f"{videos}/[ac].avi", "to=out.csv").status == 0
    assert scored == ["a.avi", "c.avi"]
    first = rows_of(tmp_path / "out.csv")
    scored.clear()
    shutil.copy(videos / "a.avi", videos / "b.avi")  # the same content
    shutil.copy(videos / "e.avi", videos / "c.avi")  # another one
    assert predict(videos, "to=out.csv").status == 1
    assert scored == ["c.avi", "e.avi", "g.avi"]
    rows = {Path(row["path"]).name: row for row in rows_of(tmp_path / "out.csv")}
    assert list(rows) == ["a.avi", "c.avi", "b.avi", "d.avi", "e.avi", "g.avi"]
    assert rows["a.avi"] == first[0]
    assert rows["b.avi"] == {**first[0], "path": rows["b.avi"]["path"]}
    assert rows["c.avi"] == {**rows["e.avi"], "path": rows["c.avi"]["path"]}
    scored.clear()
    shutil.copy(videos / "g.avi", videos / "d.avi")  # mended
    assert predict(videos, "to=out.csv").status == 0
    assert scored == []
    assert [row["error"] for row in rows_of(tmp_path / "out.csv")] == [""] * 6


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_killed_while_it_labels_it_goes_on_with_the_file_in_hand(
    ending: str,
    predict: Callable[..., Outcome],
    videos: Path,
    tmp_path: Path,
    scored: list[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """A kill runs no code, so the files that it leaves are copied while the process still lives."""
    assert predict(videos, f"to=whole{ending}").status == 1
    scored.clear()
    score = Predictor.score

    def copy(self: Predictor, features: Any, name: str) -> Any:
        if Path(name).name == "e.avi":
            (left,) = tmp_path.glob(".out*.journal")
            (tmp_path / "left").write_bytes(left.read_bytes() + b'["' + os.fsencode(name))  # half a line
        return score(self, features, name)

    monkeypatch.setattr(Predictor, "score", copy)
    predict(videos, f"to=out{ending}")
    monkeypatch.setattr(Predictor, "score", score)
    (tmp_path / f"out{ending}").unlink()
    (tmp_path / "left").rename(tmp_path / f".out{ending}.journal")
    scored.clear()
    assert predict(videos, f"to=out{ending}").status == 1
    assert scored == ["e.avi", "g.avi"]
    assert (tmp_path / f"out{ending}").read_bytes() == (tmp_path / f"whole{ending}").read_bytes()
    assert {path.name for path in tmp_path.iterdir() if "out" in path.name} == {f"out{ending}"}


def test_interrupted_it_writes_the_table_of_what_is_done(
    predict: Callable[..., Outcome], videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    score = Predictor.score

    def interrupt(self: Predictor, features: Any, name: str) -> Any:
        if Path(name).name == "e.avi":
            raise KeyboardInterrupt
        return score(self, features, name)

    monkeypatch.setattr(Predictor, "score", interrupt)
    outcome = predict(videos, "to=out.csv")
    assert outcome.status == 130
    assert "What was written is kept. To go on: vidclf predict run=" in outcome.err
    assert [Path(row["path"]).name for row in rows_of(tmp_path / "out.csv")] == ["a.avi", "c.avi", "d.avi"]


def test_names_come_back_byte_for_byte(predict: Callable[..., Outcome], tmp_path: Path):
    names = [b"\xff\xe4.avi", b'two\nlines, "a".avi', b"=1+1.avi", b"\r.avi"]
    (tmp_path / "hard").mkdir()
    for number, name in enumerate(names):
        encode_video(tmp_path / "hard" / "clip.avi", seed=number).rename(tmp_path / "hard" / os.fsdecode(name))
    (tmp_path / "list.txt").write_bytes(b"\0".join(b"hard/" + name for name in names))
    assert predict("@list.txt", "to=out.csv").status == 0
    assert [os.fsencode(row["path"]) for row in rows_of(tmp_path / "out.csv")] == [b"hard/" + name for name in names]
    again = predict("@list.txt", "to=out.csv")
    assert again.status == 0, again.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["to=out.txt"], "to=out.txt: the name must end in .csv, .jsonl, .parquet"),
        (["to=nowhere/out.csv"], "to=nowhere/out.csv: there is no folder"),
        (["to=notes.csv"], "to=notes.csv: it is no table of predictions. Choose another name or delete it."),
        (["to=other.csv"], "to=other.csv: its rows are of another run, or of other settings (run "),
    ],
)
def test_a_target_that_does_not_fit_is_refused_before_anything_is_decoded(
    words: list[str],
    message: str,
    predict: Callable[..., Outcome],
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    (tmp_path / "notes.csv").write_text("path,label\n")
    if words == ["to=other.csv"]:
        assert predict(videos / "a.avi", "to=other.csv", "aggregation=mode").status == 0
    monkeypatch.setattr("vidclf.prediction.files.inspect", lambda path: pytest.fail("decodes"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    outcome = predict(videos, *words)
    assert (outcome.status, outcome.out) == (1, "")
    assert message in outcome.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_skipped_files_have_no_row(predict: Callable[..., Outcome], videos: Path, tmp_path: Path):
    assert predict(videos, "to=out.csv").status == 1
    outcome = predict(videos, "to=out.csv", "dataset.on_error=skip")
    assert outcome.status == 0
    assert "left out: " in outcome.err
    assert outcome.out == "4 of 5 videos have labels\nresults out.csv\n"
    assert [Path(row["path"]).name for row in rows_of(tmp_path / "out.csv")] == ["a.avi", "c.avi", "e.avi", "g.avi"]


def test_a_single_file_that_fails_is_an_error(predict: Callable[..., Outcome], videos: Path, tmp_path: Path):
    outcome = predict(videos / "d.avi", "to=out.csv")
    assert (outcome.status, outcome.out) == (1, "")
    assert f"VideoError: {videos}/d.avi: " in outcome.err
    assert not (tmp_path / "out.csv").exists()


def test_features_of_the_store_are_not_computed_again(
    predict: Callable[..., Outcome], videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = (f"{videos}/[aceg].avi", "features=store", f"store.root={tmp_path}/store")
    first = predict(*words, "to=out.csv")
    assert first.status == 0, first.err
    monkeypatch.setattr("vidclf.features.extract.images_of", lambda *_: pytest.fail("computes"))
    monkeypatch.setattr("vidclf.data.catalogue.inspect", lambda *_: pytest.fail("decodes"))
    for again in (predict(*words), predict(*words, "to=again.csv")):
        assert again.status == 0, again.err
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()


@pytest.mark.parametrize("words", [[], ["features=store"]])
def test_a_file_that_is_replaced_while_it_is_read_is_an_error(
    words: list[str], predict: Callable[..., Outcome], videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Otherwise the old content would get the new label."""

    def replace(path: Path, *arguments: Any) -> Any:
        yield from images_of(path, *arguments)
        if path.name == "c.avi":
            path.write_bytes((videos / "e.avi").read_bytes())

    monkeypatch.setattr("vidclf.features.extract.images_of", replace)
    assert predict(f"{videos}/[ac].avi", "to=out.csv", *words).status == 1
    errors = [row["error"] for row in rows_of(tmp_path / "out.csv")]
    assert errors[0] == ""
    assert errors[1].startswith("the file changed while it was read.")


def test_features_of_training_are_used(
    vidclf: Callable[..., Outcome], trained: Outcome, clips: Path, monkeypatch: pytest.MonkeyPatch
):
    store = trained.run.parents[2] / "data" / "features"
    monkeypatch.setattr("vidclf.features.extract.images_of", lambda *_: pytest.fail("computes"))
    source = f"source={clips}/Archery/*_g08_*.avi"  # train or val
    outcome = vidclf("predict", f"run={trained.run}", source, "features=store", f"store.root={store}")
    assert outcome.status == 0, outcome.err
    assert len(outcome.out.splitlines()) == 2


def test_on_a_terminal_there_is_a_table(predict: Callable[..., Outcome], videos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vidclf.predict._is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    outcome = predict(videos)
    assert re.search(r"g\.avi\s+(label )?A\S+\s+(probability )?0\.\d{3}\s*\n", outcome.out)
    assert max(map(len, outcome.out.splitlines())) <= 80
    assert "d.avi" not in outcome.out
    assert "d.avi" in outcome.err
    one = predict(videos / "a.avi")
    table = one.out.partition("a.avi\n")[2].splitlines()  # below its path, which may be of several lines
    assert table[0].split() == ["label", "probability"]
    assert len(table) == 4


def test_kept_files_pass_while_others_wait_for_a_full_batch(
    clips: Path, trained: Outcome, monkeypatch: pytest.MonkeyPatch
):
    """Files whose label is there fill no batch; without a limit all would wait for the end."""
    from vidclf.api import load

    predictor = load(trained.run).predictor
    path = next((clips / "Archery").iterdir())
    (looked,) = look_at([path], 1)
    taken = 0

    def files() -> Any:
        nonlocal taken
        yield looked
        for number in range(10_000):
            taken += 1
            yield Path(f"{number}.avi"), f"content {number}"

    monkeypatch.setattr("vidclf.features.extract.MAX_WAITING", 1)
    first, _, features = next(predictor.embed(files(), 1))
    assert (first, features is None) == (path, False)
    assert taken < 1000


def test_errors_and_kept_files_stay_in_order(clips: Path, trained: Outcome):
    from vidclf.api import load

    predictor = load(trained.run).predictor
    path = next((clips / "Archery").iterdir())
    (looked,) = look_at([path], 1)
    error = VideoError("bad.avi: damaged")
    files = [(Path("bad.avi"), error), looked, (Path("kept.avi"), "content"), looked, (Path("bad.avi"), error)]
    found = list(predictor.embed(iter(files), 2))
    assert [(path, facts) for path, facts, _ in found] == files
    kinds = [type(features) for *_, features in found]
    assert kinds == [VideoError, torch.Tensor, type(None), torch.Tensor, VideoError]

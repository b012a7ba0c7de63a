"""A table has one row for each view, is written in bounded memory, and appears only when complete."""

from pathlib import Path

import pytest
import torch
from doubles import Clips, TwoCrops, make_corpus, make_stored

from vidclf.data.corpus import Corpus
from vidclf.data.sampling import Dense, Rate
from vidclf.errors import VidclfError
from vidclf.features import table
from vidclf.features.batches import StoredFeatures
from vidclf.features.table import check_target, write_table

COLUMNS = ["video", "label", "group", "side", "view", "start_s", "embedding"]


def filled(corpus: Corpus, source: StoredFeatures) -> StoredFeatures:
    source.prepare([video for part in ("train", "val", "test") for video in corpus.views(part)])
    return source


def test_a_row_is_a_view_with_its_video_part_start_and_features(clips: Path, tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    corpus = make_corpus(clips, store=tmp_path)
    source = filled(corpus, make_stored(corpus, tmp_path / "x"))
    num_rows = write_table(tmp_path / "e.parquet", corpus, source)
    rows = parquet.read_table(tmp_path / "e.parquet").to_pylist()
    assert len(rows) == num_rows == 20 * 6
    assert list(rows[0]) == COLUMNS
    assert {path.name for path in tmp_path.glob("*.parquet*")} == {"e.parquet"}
    first = next(views for views in corpus.views("test") if corpus.videos[views.video].name == rows[-1]["video"])
    mine = [row for row in rows if row["video"] == rows[-1]["video"]]
    assert [row["view"] for row in mine] == list(range(6))
    fps = corpus.facts[first.video].info.fps
    assert [row["start_s"] for row in mine] == pytest.approx([frame / fps for frame in first.frames[:, 0].tolist()])
    assert {(row["label"], row["group"], row["side"]) for row in mine} == {("Archery", "g02", "test")}
    features = source.features([first])[:, 0]
    torch.testing.assert_close(torch.tensor([row["embedding"] for row in mine]), features)


def test_crops_are_views_and_steps_are_nested_lists(clips: Path, tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    corpus = make_corpus(clips, store=tmp_path, sampling=Dense(2, 4, 1))
    backbone = Clips()
    source = filled(corpus, make_stored(corpus, tmp_path / "x", backbone, transform=TwoCrops(backbone.picture_format)))
    write_table(tmp_path / "e.parquet", corpus, source)
    rows = parquet.read_table(tmp_path / "e.parquet").to_pylist()
    assert [row["view"] for row in rows[:4]] == [0, 1, 2, 3]  # two views of two crops
    assert rows[0]["start_s"] == rows[1]["start_s"] < rows[2]["start_s"]
    assert torch.tensor(rows[0]["embedding"]).shape == (2, 5)  # S, D


def test_row_groups_are_written_one_by_one(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(table, "GROUP_BYTES", 1500)  # five videos of 6 views of 6 numbers, with their names
    corpus = make_corpus(clips, store=tmp_path)
    write_table(tmp_path / "e.parquet", corpus, filled(corpus, make_stored(corpus, tmp_path / "x")))
    written = parquet.ParquetFile(tmp_path / "e.parquet")
    assert written.metadata.num_row_groups > 3
    assert written.metadata.num_rows == 120


def test_an_interrupted_table_leaves_no_file(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    corpus = make_corpus(clips, store=tmp_path, sampling=Rate(1))
    source = make_stored(corpus, tmp_path / "x")  # not filled: a unit is missing
    source.prepare(corpus.views("train"))
    with pytest.raises(VidclfError, match="Run vidclf extract first"):
        write_table(tmp_path / "e.parquet", corpus, source)
    assert not list(tmp_path.glob("*.parquet*"))
    assert not list(tmp_path.glob(".e.parquet*"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("e.csv", r"to=.*e\.csv: the name must end in \.parquet"),
        ("e", "the name must end in"),
        ("there.parquet", r"there\.parquet: the file exists"),
        ("nowhere/e.parquet", "there is no folder .*nowhere. Create it first"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_before_any_work(name: str, sentence: str, tmp_path: Path):
    (tmp_path / "there.parquet").touch()
    check_target(tmp_path / "e.parquet")
    with pytest.raises(VidclfError, match=sentence):
        check_target(tmp_path / name)


def test_an_old_pyarrow_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vidclf.system.extras.version", lambda name: "13.0.0")
    with pytest.raises(VidclfError, match=r"Parquet needs pyarrow 17\.0\.0 or newer.*pip install 'vidclf\[parquet\]'"):
        check_target(Path("e.parquet"))

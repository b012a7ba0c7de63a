"""Segments in a table, and names that are not UTF-8, through every verb; README's folder is in test_readme.py."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from verbs import SMALL, Outcome
from videos import encode_video

pytestmark = pytest.mark.filterwarnings("ignore:Glyph .* missing from font")


def test_a_table_of_segments_with_names_that_are_not_utf_8_survives_every_verb(
    vidclf: Callable[..., Outcome], tmp_path: Path
):
    """A label of the table is UTF-8 and may have any letters; the name of its folder may have any bytes."""
    folder = tmp_path / os.fsdecode(b"p\xe2tisserie")
    folder.mkdir()
    rows = ["path,label,split,start_s,end_s"]
    for number, part in enumerate(["train", "train", "val", "test"]):
        encode_video(tmp_path / "clip.avi", 30, seed=number).rename(folder / f"{number}\n\r.avi")
        rows += [f'"{number}\n\r.avi",Café ☕ $x^,{part},0,0.6', f'"{number}\n\r.avi",../../x,{part},0.6,']
    (folder / "videos.csv").write_text("\n".join(rows), encoding="utf-8", newline="")
    trained = vidclf(
        "train", "dataset=manifest", f"dataset.file={folder}/videos.csv", "dataset.group=file", "split=given", *SMALL
    )
    assert trained.status == 0, trained.err
    assert vidclf("evaluate", f"run={trained.run}").status == 0
    with (trained.run / "test/predictions.csv").open(newline="", encoding="utf-8") as file:
        assert [(row["video"], row["label"]) for row in csv.DictReader(file)] == [
            ("3\n\r.avi#0-0.6", "Café ☕ $x^"),
            ("3\n\r.avi#0.6-", "../../x"),
        ]
    compared = vidclf("compare", str(trained.run))
    assert compared.status == 0, compared.err
    predicted = vidclf("predict", f"run={trained.run}", f"source={folder}")
    assert [json.loads(line)["path"] for line in predicted.out.splitlines()] == [
        str(folder / f"{n}\n\r.avi") for n in range(4)
    ]
    assert "1 file(s) are ignored, because their endings are not those of videos: videos.csv." in predicted.err
    assert not list(tmp_path.glob("x*"))


def test_classes_and_files_that_are_not_utf_8_are_trained_drawn_and_evaluated(
    vidclf: Callable[..., Outcome], tmp_path: Path
):
    for seed, name in enumerate([b"P\xe2tisserie", b"run"]):
        for group in (1, 8, 9):
            clip = tmp_path / "UCF" / os.fsdecode(name) / os.fsdecode(b"v_" + name + b"_g%02d_c01.avi" % group)
            clip.parent.mkdir(parents=True, exist_ok=True)
            encode_video(tmp_path / "clip.avi", seed=10 * group + seed).rename(clip)
    trained = vidclf("train", f"dataset.root={tmp_path / 'UCF'}", "split.val_fraction=0.5", *SMALL)
    assert trained.status == 0, trained.err
    evaluated = vidclf("evaluate", f"run={trained.run}")
    assert evaluated.status == 0, evaluated.err
    assert (trained.run / "test/confusion.png").is_file()
    assert b"P\xe2tisserie/v_P\xe2tisserie_g01_c01.avi" in (trained.run / "test/predictions.csv").read_bytes()

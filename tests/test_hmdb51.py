"""HMDB51: real clip names, and the format of its official lists."""

import shutil
from pathlib import Path

import pytest

from vidclf.data.datasets.hmdb51 import HMDB51
from vidclf.data.splits import Official
from vidclf.errors import VidclfError

FILMS = {"wave": ["RATRACE", "TrumanShow", "April_09"], "walk": ["RATRACE", "Die_Hard_walk", "KungFu"]}


def write(root: Path) -> Path:
    """Three films of each action, two clips each; listing reads names only."""
    for action, films in FILMS.items():
        (root / action).mkdir(parents=True)
        for film in films:
            for number in (0, 1):
                (root / action / f"{film}_{action}_f_nm_np1_fr_goo_{number}.avi").touch()
    return root


def write_lists(folder: Path, root: Path, parts: dict[str, str]) -> Path:
    """Write lists as published, with a blank at each line's end; `parts` maps a piece of a clip's name to its digit."""
    folder.mkdir()
    for number in (1, 2, 3):
        for action in FILMS:
            names = sorted(path.name for path in (root / action).iterdir())
            digits = [next((digit for text, digit in parts.items() if text in name), "1") for name in names]
            lines = [f"{name} {digit} " for name, digit in zip(names, digits, strict=True)]
            (folder / f"{action}_test_split{number}.txt").write_bytes("\r\n".join(lines).encode())
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "HMDB51")


def parts_of(dataset: HMDB51) -> dict[str, str]:
    videos = dataset.videos()
    split = Official(lists=dataset.lists, val_fraction=0.5)
    return dict(split(videos, [1] * len(videos), dataset.official_parts(videos, 1)).rows())


def test_the_group_is_the_text_before_the_action(root: Path):
    videos = HMDB51(root).videos()
    assert HMDB51(root).class_names == ["walk", "wave"]
    assert {video.group for video in videos if video.label == 0} == {*FILMS["walk"]}
    assert {video.unit for video in videos if video.group == "RATRACE"} == {(0, "RATRACE"), (1, "RATRACE")}


def test_the_names_of_real_clips_have_groups(shared: Path, tmp_path: Path):
    (tmp_path / "wave").mkdir()
    for path in (shared / "clips/foreign").glob("*_wave_*.avi"):
        shutil.copy(path, tmp_path / "wave")
    assert {video.group for video in HMDB51(tmp_path).videos()} == {
        "RATRACE", "SchoolRulesHowTheyHelpUs", "TrumanShow"
    }  # fmt: skip


def test_lists_put_videos_into_train_test_or_unused(root: Path, tmp_path: Path):
    lists = write_lists(tmp_path / "lists", root, {"KungFu": "2", "April": "2", "Show_wave_f_nm_np1_fr_goo_1": "0"})
    parts = parts_of(HMDB51(root, lists=lists))
    assert {name.split("_")[0] for name, part in parts.items() if part == "test"} == {"walk/KungFu", "wave/April"}
    assert [name for name, part in parts.items() if part == "unused"] == ["wave/TrumanShow_wave_f_nm_np1_fr_goo_1.avi"]
    assert {part for name, part in parts.items() if "RATRACE" in name} <= {"train", "val"}


def test_a_group_that_crosses_parts_is_reported_and_counted(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    lists = write_lists(tmp_path / "lists", root, {"KungFu": "2", "April": "2", "RATRACE_wave_f_nm_np1_fr_goo_1": "2"})
    assert len(parts_of(HMDB51(root, lists=lists))) == 12
    assert "split 1 puts 1 group(s) into two parts: RATRACE of wave (" in capsys.readouterr().err


def test_lists_that_do_not_fit_are_refused(root: Path, tmp_path: Path):
    with pytest.raises(VidclfError, match=r"dataset\.lists: .* need their lists"):
        parts_of(HMDB51(root))
    lists = write_lists(tmp_path / "lists", root, {})
    (root / "walk/New_walk_x.avi").touch()
    with pytest.raises(VidclfError, match=r"1 of 13 videos .* are named by no list .*: walk/New_walk_x\.avi"):
        HMDB51(root, lists=lists).videos()
    (root / "walk/New_walk_x.avi").rename(root / "walk/New.avi")
    with pytest.raises(VidclfError, match=r"New\.avi: the file name has no group; expected is <film>_walk_<tags>"):
        HMDB51(root).videos()
    (root / "walk/New.avi").unlink()
    (lists / "walk_test_split1.txt").write_text("a_walk_b.avi 3\n")
    with pytest.raises(VidclfError, match=r"walk_test_split1\.txt: 'a_walk_b\.avi 3': a line is a clip's name, once"):
        parts_of(HMDB51(root, lists=lists, classes=["wave", "walk"]))


def test_other_kinds_of_video_are_counted_and_skipped(root: Path, capsys: pytest.CaptureFixture):
    (root / "walk/Film_walk_x.mp4").touch()
    assert len(HMDB51(root).videos()) == 12
    assert (
        "1 video file(s) are not .avi, as HMDB51's are, and are skipped: walk/Film_walk_x.mp4"
        in capsys.readouterr().err
    )

"""`dataset=folder`: a folder per class, any container, groups from the paths."""

import os
from pathlib import Path

import pytest

from vidclf.data.corpus import Corpus
from vidclf.data.datasets.folder import Folder
from vidclf.data.listing import DatasetError, find_videos
from vidclf.data.sampling import Rate
from vidclf.data.splits import Official
from vidclf.errors import VidclfError

NAMES = ["run/anna/a.MP4", "run/ben/b.mov", "walk/anna/deep/c.MTS", "walk/ben/d.webm"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Listing reads names only, so empty files stand for videos."""
    return write(tmp_path / "my videos", *NAMES)


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def groups_of(dataset: Folder) -> dict[str, str]:
    return {video.path.relative_to(dataset.root).as_posix(): video.group for video in dataset.videos()}


def test_the_label_is_the_folder_and_any_container_is_taken(root: Path):
    dataset = Folder(root, group="parent")
    assert dataset.class_names == ["run", "walk"]
    assert [(video.path, video.label) for video in dataset.videos()] == [
        (root / name, label) for name, label in zip(NAMES, (0, 0, 1, 1), strict=True)
    ]


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("parent", ["anna", "ben", "anna/deep", "ben"]),
        (r"/(anna|ben)/", ["anna", "ben", "anna", "ben"]),
        ("file", NAMES),
    ],
)
def test_groups_come_from_sub_folders_a_regular_expression_or_each_file(root: Path, group: str, expected: list[str]):
    assert groups_of(Folder(root, group=group)) == dict(zip(NAMES, expected, strict=True))


def test_classes_share_groups_unless_groups_is_of_class(root: Path):
    shared, of_class = (
        {video.unit for video in Folder(root, "/(anna|ben)/", groups=groups).videos()}
        for groups in ("shared", "of_class")
    )
    assert (len(shared), len(of_class)) == (2, 4)


def test_a_group_per_file_warns_that_the_score_may_be_too_high(root: Path, capsys: pytest.CaptureFixture):
    Folder(root, group="file").videos()
    assert "each file is a separate group" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (None, r"dataset\.group must say which videos belong together(.|\n)*parent(.|\n)*file"),
        ("person", "it has 0 groups in parentheses"),
        ("(a)(b)", "it has 2 groups in parentheses"),
        ("(person", r"dataset\.group=\(person: not a regular expression"),
        (r"run/(x*)", r"4 of 4 videos do not match it: run/anna/a\.MP4"),
        (r"(person\d+)", r"4 of 4 videos do not match it: run/anna/a\.MP4, run/ben/b\.mov, walk"),
    ],
)
def test_a_group_setting_that_does_not_fit_is_refused(root: Path, group: str | None, message: str):
    with pytest.raises(VidclfError, match=message):
        Folder(root, group=group).videos()


def test_classes_may_be_called_by_numbers(root: Path):
    write(root, "7/a.mp4")
    assert Folder(root, group="file", classes=[7, "run"]).class_names == ["7", "run"]


def test_a_file_beside_the_sub_folders_has_no_parent(root: Path):
    write(root, "run/loose.mp4")
    with pytest.raises(VidclfError, match=r"1 of 5 videos .* no sub-folder .*: run/loose\.mp4\."):
        Folder(root, group="parent").videos()


def test_a_root_without_classes_is_refused(root: Path, tmp_path: Path):
    for folder, message in [
        (tmp_path / "absent", "there is no such folder"),
        (write(tmp_path / "flat", "a.mp4"), r"there is no class folder in it; expected is .*flat/<class>/<video>"),
        (write(root, "sit/notes.txt"), "my videos/sit: the class folder holds no video"),
    ]:
        with pytest.raises(VidclfError, match=message):
            Folder(folder, group="file").videos()


def test_problems_are_collected_and_the_other_videos_kept(root: Path):
    write(root, "sit/notes.txt", "run/loose.mp4")
    with pytest.raises(DatasetError, match=r"sit: the class folder holds no video.* 1 more problem") as refused:
        Folder(root, group="parent").videos()
    assert [problem.partition(":")[0] for problem in refused.value.problems] == [
        str(root / "sit"),
        "dataset.group=parent",
    ]
    assert len(refused.value.videos) == 5


def test_what_vidclf_writes_into_the_folder_is_no_class(root: Path):
    write(root, "data/features/videos-5-av1.sqlite", "data/demo/0/v_0_g01_c01.avi", "runs/train/1/metrics.json")
    write(root, "multirun/1/x.txt", "my_store/videos-5-av1.sqlite", ".hidden/a.mp4", "run/._a.mp4")
    dataset = Folder(root, group="file")
    assert dataset.class_names == ["run", "walk"]
    assert len(dataset.videos()) == 4
    assert Folder(write(root, "runs/a.mp4", "data/b.mp4"), group="file").class_names == ["data", "run", "runs", "walk"]


def test_skipped_files_are_counted_and_listed(root: Path, capsys: pytest.CaptureFixture):
    write(root, "loose.mp4", "walk/notes.txt", "walk/.DS_Store", "walk/anna/._c.MTS")
    assert len(Folder(root, group="file").videos()) == 4
    said = capsys.readouterr().err
    assert "1 video(s) are in no class folder and are skipped: loose.mp4." in said
    assert "1 file(s) are not videos and are skipped: walk/notes.txt." in said


def test_two_spellings_of_a_class_are_reported_and_kept_apart(root: Path, capsys: pytest.CaptureFixture):
    write(root, "Walk /a.mp4")
    assert Folder(root, group="file").class_names == ["run", "walk", "Walk "]
    assert "'walk' and 'Walk ' may be one class in 2 spellings; kept apart." in capsys.readouterr().err


# Folders of parts


def test_folders_named_like_parts_are_parts(tmp_path: Path, capsys: pytest.CaptureFixture):
    names = ["Testing/run/cem/d.mp4", "train/run/anna/a.mp4", "train/walk/ben/b.mp4", "valid/walk/dora/c.mp4"]
    dataset = Folder(write(tmp_path, *names), group="parent")
    assert dataset.class_names == ["run", "walk"]
    found = {v.path.relative_to(tmp_path).as_posix(): (v.class_name, v.group, v.part) for v in dataset.videos()}
    assert list(found) == [names[0], names[1], names[2], names[3]]
    assert list(found.values()) == [
        ("run", "cem", "test"), ("run", "anna", "train"), ("walk", "ben", "train"), ("walk", "dora", "val")
    ]  # fmt: skip
    assert "Testing, train, valid are taken as parts. split=given uses them" in capsys.readouterr().err


@pytest.mark.parametrize("other", ["test/p0/a.mp4", "test/a.mp4", "extra/run/a.mp4"])
def test_folders_named_like_parts_that_hold_no_classes_are_refused(tmp_path: Path, other: str):
    root = write(tmp_path, "train/run/a.mp4", "train/walk/b.mp4", "test/c.mp4", other)
    with pytest.raises(VidclfError, match="test, train look like parts of a split, not like classes"):
        Folder(root, group="file")


def test_a_class_may_be_called_train(tmp_path: Path):
    assert Folder(write(tmp_path, "train/a.mp4", "bus/b.mp4"), group="file").class_names == ["bus", "train"]


def test_a_split_must_be_chosen(root: Path):
    with pytest.raises(VidclfError, match=r"split=official: Folder has no official split.* split=grouped"):
        Corpus(Folder(root, group="file"), Official(), Rate(1))


# Folders in general


def test_links_are_followed_and_circles_end(tmp_path: Path):
    write(tmp_path / "real", "a.mp4", "deep/b.mp4")
    source = write(tmp_path / "source", "c.mp4", "playlist.m3u8")
    (source / "linked").symlink_to(tmp_path / "real")
    (source / "again").symlink_to(source)
    (tmp_path / "real" / "deep" / "up").symlink_to(source)
    (source / "nowhere.mp4").symlink_to(tmp_path / "absent")
    videos, remaining = find_videos(source)
    assert [path.relative_to(source).as_posix() for path in videos] == ["c.mp4", "linked/a.mp4", "linked/deep/b.mp4"]
    assert [path.name for path in remaining] == ["nowhere.mp4", "playlist.m3u8"]


def test_names_that_are_not_utf_8_are_listed(root: Path):
    name = os.fsdecode(b"run/caf\xe9/\xff.mp4")
    write(root, name)
    assert groups_of(Folder(root, group="parent"))[name] == os.fsdecode(b"caf\xe9")

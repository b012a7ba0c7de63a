"""`vidclf check`: what is in a data set, what is wrong with it, what could cheat, and a page that is safe to open."""

import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from doubles import halve
from verbs import Outcome
from videos import encode_video

from vidclf.evaluation.shortcuts import measure_shortcut

HOSTILE = "<script>alert(1)</script>"


def write_folder(root: Path, classes: tuple[str, ...] = ("run", "walk"), people: int = 4, **of_class: dict) -> Path:
    """Write a video of each of the `people` in each class: `<root>/<class>/<person>/clip.mp4`."""
    for label, name in enumerate(classes):
        for person in range(people):
            folder = root / name / f"person{person}"
            folder.mkdir(parents=True)
            encode_video(folder / "clip.mp4", 6, seed=100 * label + person, codec="libx264", **of_class.get(name, {}))
    return root


@pytest.fixture
def check(vidclf: Callable[..., Outcome], tmp_path: Path) -> Callable[..., Outcome]:
    """`check("check.strict=true")` runs the verb on `tmp_path / "my_videos"`."""
    settings = ("dataset=folder", f"dataset.root={tmp_path / 'my_videos'}", "dataset.group=parent", "split=grouped")
    return lambda *others: vidclf("check", *settings, *others)


def test_a_sound_data_set_is_counted_and_leaves_one_page(check: Callable[..., Outcome], tmp_path: Path):
    write_folder(tmp_path / "my_videos")
    outcome = check()
    assert outcome.status == 0, outcome.err
    assert "num_videos 8\nnum_failed 0\nnum_copies 0\nnum_leaks 0\n" in outcome.out
    assert "run: videos 4, groups 4, train 2, val 1, test 1, shortest 0.2 s" in outcome.err
    assert {entry.name for entry in tmp_path.iterdir()} == {"my_videos", "data", "check.html"}
    assert "Nothing was found" in (tmp_path / "check.html").read_text()
    assert check("check.page=null").status == 0


def test_a_damaged_file_is_listed_and_ends_with_status_1(check: Callable[..., Outcome], tmp_path: Path):
    damaged = halve(write_folder(tmp_path / "my_videos") / "run" / "person1" / "clip.mp4")
    outcome = check()
    assert outcome.status == 1
    assert "num_failed 1" in outcome.out
    assert outcome.err.endswith("VidclfError: 1 of 8 videos cannot be read; see above.\n")
    assert f"cannot be read: {damaged}" in outcome.err
    assert "run/person1/clip.mp4" in (tmp_path / "check.html").read_text()


def test_copies_on_two_sides_are_leaks_and_count_where_it_is_strict(check: Callable[..., Outcome], tmp_path: Path):
    root = write_folder(tmp_path / "my_videos")
    for person in (1, 2, 3):  # each person's clip is person 0's, so that one side has another's
        shutil.copyfile(root / "run" / "person0" / "clip.mp4", root / "run" / f"person{person}" / "clip.mp4")
    outcome = check()
    assert outcome.status == 0, outcome.err
    assert "num_copies 1\nnum_leaks 1\n" in outcome.out
    assert "1 file(s) stand on two sides of the split under several names: run/person0/clip.mp4 = run/" in outcome.err
    outcome = check("check.strict=true")
    assert outcome.status == 1
    assert outcome.err.endswith("VidclfError: check.strict: 1 file(s) stand on two sides of the split; see above.\n")


def test_one_file_under_two_labels_and_unequal_classes_are_told(check: Callable[..., Outcome], tmp_path: Path):
    root = write_folder(tmp_path / "my_videos")
    shutil.copyfile(root / "run" / "person0" / "clip.mp4", root / "walk" / "person0" / "clip.mp4")
    for number in range(12):
        encode_video(root / "run" / "person1" / f"more{number}.mp4", 6, seed=1000 + number, codec="libx264")
    said = check().err
    assert "1 file(s) have several labels: run/person0/clip.mp4 = walk/person0/clip.mp4." in said
    assert "The classes are unequal: run has 16 videos, walk 4." in said


def test_a_class_that_its_files_give_away_is_told(check: Callable[..., Outcome], tmp_path: Path):
    write_folder(tmp_path / "my_videos", people=24, run={"audio": "aac", "fps": 30})
    outcome = check("split.test_fraction=0.5")
    assert "container_top1 1.0000" in outcome.out
    assert "Files tell their class without their pictures: a small tree names 100% of the test videos" in outcome.err


def test_a_shortcut_is_measured_on_test_and_only_where_there_is_one():
    labels = [index % 2 for index in range(80)]
    sides = ["train", "train", "val", "val", "train", "train", "test", "test"] * 10
    groups = [index // 2 for index in range(80)]
    told = measure_shortcut([{"codec": ("a", "b")[label], "rate": 25.0} for label in labels], labels, sides, groups)
    assert (told.top1, told.low, told.high, told.majority, told.is_one) == (1, 1, 1, 0.5, True)
    assert told.used == [("codec", 1.0)]
    # What holds on train alone is none: there the length says the label, on test it is the other one's.
    lengths = [1 - label if side == "test" else label for label, side in zip(labels, sides, strict=True)]
    assert measure_shortcut([{"length": float(one)} for one in lengths], labels, sides, groups).top1 == 0
    assert not measure_shortcut([{"rate": 25.0}] * 80, labels, sides, groups).is_one


class Page(HTMLParser):
    """The elements of a page and the addresses in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action") or name[:2] == "on"]


@pytest.mark.parametrize("name", [HOSTILE.replace("/", ""), "{{ 7 * 7 }}", "caf\udce9", "a'b\"c&amp;"])
def test_names_of_any_kind_do_nothing_on_the_page(name: str, check: Callable[..., Outcome], tmp_path: Path):
    root = write_folder(tmp_path / "my_videos", classes=(name, "walk"))
    halve(root / name / "person1" / "clip.mp4").rename(root / name / "person1" / f"{name}.mp4")
    assert check().status == 1
    text = (tmp_path / "check.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.tags & {"script", "img", "iframe", "link", "object", "a"}
    assert not page.addresses
    assert {"table", "td"} <= page.tags
    assert "&lt;td" not in text
    assert """content="default-src 'none'; style-src 'unsafe-inline'; img-src data:\"""" in text
    assert "49" not in text.partition("</style>")[2] or "7 * 7" in text
    assert not (tmp_path / "my_videos" / ".." / "x").exists()


def test_a_data_set_without_a_split_of_its_own_is_told_which_to_choose(vidclf: Callable[..., Outcome], tmp_path: Path):
    root = write_folder(tmp_path / "my_videos")
    outcome = vidclf("check", "dataset=folder", f"dataset.root={root}", "dataset.group=parent")
    assert (outcome.status, outcome.out) == (1, "")
    assert "split=grouped" in outcome.err
    assert "Traceback" not in outcome.err


def test_three_real_classes_of_ucf101_tell_their_label_by_their_containers(
    shared: Path, vidclf: Callable[..., Outcome], tmp_path: Path
):
    outcome = vidclf("check", f"dataset.root={shared / 'ucf3'}")
    assert outcome.status == 0, outcome.err
    told = dict(line.split(" ", 1) for line in outcome.out.splitlines()[1:])
    assert (told["num_videos"], told["num_failed"], told["num_copies"]) == ("363", "0", "0")
    assert float(told["container_low"]) > 0.7 > 0.34 > float(told["majority_top1"])

"""`vidclf check`: problems of a data set, shortcuts, and a page that is safe to open."""

import csv
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from doubles import halve, make_corpus
from verbs import Outcome
from videos import encode_video, numbered_frame

from vidclf.audit import findings
from vidclf.audit.page import shortcut_sentences
from vidclf.audit.shortcuts import (
    LabelledVideos,
    Shortcut,
    keep_shortcuts,
    kept_shortcuts,
    measure_containers,
    measure_one_frame,
)
from vidclf.contracts import Video
from vidclf.data.splits import Official

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
    root = f"dataset.root={tmp_path / 'my_videos'}"
    settings = ("dataset=folder", root, "dataset.group=parent", "split=grouped", "backbone=pixels")
    return lambda *others: vidclf("check", *settings, *others)


def test_a_data_set_without_problems_is_counted_and_gets_one_page(check: Callable[..., Outcome], tmp_path: Path):
    write_folder(tmp_path / "my_videos")
    outcome = check()
    assert outcome.status == 0, outcome.err
    counts = "videos 8\ngroups 4\ncannot be read 0\ncopied files 0\nlook-alike pairs 0\nleaks between parts 0\n"
    assert counts in outcome.out
    assert "run: videos 4, groups 4, train 2, val 1, test 1, shortest 0.2 s" in outcome.err
    assert {entry.name for entry in tmp_path.iterdir()} == {"my_videos", "data", "check.html"}
    assert "No problem was found" in (tmp_path / "check.html").read_text()
    assert check("check.page=null").status == 0


def test_a_damaged_file_is_listed_and_the_status_is_1(check: Callable[..., Outcome], tmp_path: Path):
    damaged = halve(write_folder(tmp_path / "my_videos") / "run" / "person1" / "clip.mp4")
    outcome = check()
    assert outcome.status == 1
    assert "cannot be read 1" in outcome.out
    assert outcome.err.endswith("VidclfError: 1 of 8 videos cannot be read; see above.\n")
    assert f"cannot be read: {damaged}" in outcome.err
    assert "run/person1/clip.mp4" in (tmp_path / "check.html").read_text()


def test_copies_in_two_parts_are_leaks_and_an_error_if_strict(check: Callable[..., Outcome], tmp_path: Path):
    root = write_folder(tmp_path / "my_videos")
    for person in (1, 2, 3):  # each person's clip is person 0's, so that one side has another's
        shutil.copyfile(root / "run" / "person0" / "clip.mp4", root / "run" / f"person{person}" / "clip.mp4")
    outcome = check()
    assert outcome.status == 0, outcome.err
    assert "copied files 1\nlook-alike pairs 0\nleaks between parts 1\n" in outcome.out
    assert "1 file(s) are in several parts of the split under different names: run/person0/" in outcome.err
    outcome = check("check.strict=true")
    assert outcome.status == 1
    assert outcome.err.endswith("VidclfError: check.strict: 1 leak(s) between the parts of the split; see above.\n")


def test_one_file_under_two_labels_and_unequal_classes_are_reported(check: Callable[..., Outcome], tmp_path: Path):
    root = write_folder(tmp_path / "my_videos")
    shutil.copyfile(root / "run" / "person0" / "clip.mp4", root / "walk" / "person0" / "clip.mp4")
    for number in range(12):
        encode_video(root / "run" / "person1" / f"more{number}.mp4", 6, seed=1000 + number, codec="libx264")
    said = check().err
    assert "1 file(s) have several labels: run/person0/clip.mp4 = walk/person0/clip.mp4." in said
    assert "The classes are unequal: run has 16 videos, walk 4." in said


def test_a_class_that_its_files_give_away_is_reported(check: Callable[..., Outcome], tmp_path: Path):
    write_folder(tmp_path / "my_videos", people=24, run={"audio": "aac", "fps": 30})
    outcome = check("split.test_fraction=0.5")
    assert "its file's container alone" not in outcome.err  # said once, as a problem
    assert "a small decision tree classifies 100% of the test videos" in outcome.err


def test_a_shortcut_that_a_problem_tells_is_not_called_unmeasured():
    corpus = object.__new__(findings.CheckedCorpus)
    shortcuts = {"container": Shortcut(0.9, 0.8, 0.95, 0.5)}
    assert shortcut_sentences(findings.Findings(corpus, {}, [], [], [], shortcuts, [])) == []


def test_a_shortcut_is_measured_on_test_videos():
    labels = [index % 2 for index in range(80)]
    parts = ["train", "train", "val", "val", "train", "train", "test", "test"] * 10
    videos = LabelledVideos(labels, parts, [index // 2 for index in range(80)])
    assert videos.can_be_measured
    shortcut = measure_containers([{"codec": ("a", "b")[label], "rate": 25.0} for label in labels], videos)
    assert (shortcut.top1, shortcut.high, shortcut.majority, shortcut.is_significant) == (1, 1, 0.5, True)
    assert shortcut.low == pytest.approx(0.025 ** (1 / 10))  # ten groups, all correct, are not certain
    assert shortcut.used == [("codec", 1.0)]
    # A rule of train alone is not a shortcut: on test, length and label are the other way round.
    lengths = [1 - label if part == "test" else label for label, part in zip(labels, parts, strict=True)]
    assert measure_containers([{"length": float(length)} for length in lengths], videos).top1 == 0
    assert not measure_containers([{"rate": 25.0}] * 80, videos).is_significant
    assert measure_one_frame(np.array([[float(label), 3.0] for label in labels]), videos).top1 == 1
    assert measure_one_frame(np.array([[float(length), 3.0] for length in lengths]), videos).top1 == 0
    assert not LabelledVideos(labels, parts, [index // 20 for index in range(80)]).can_be_measured
    assert not LabelledVideos(labels, ["test"] * 80, videos.groups).can_be_measured


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """Write a table of 7 videos a class in 3 parts; 2 test videos are train videos, encoded again or mirrored."""
    rows = ["path,label,group,split"]
    for number, name in enumerate(["run", "walk"] * 7):
        frames = [numbered_frame(index, seed=number) for index in range(6)]
        encode_video(tmp_path / f"{number}.mp4", frames=frames, codec="libx264")
        rows.append(f"{number}.mp4,{name},person{number},{('train', 'train', 'train', 'val', 'test')[number % 5]}")
        if number < 2:
            encode_video(tmp_path / f"again{number}.avi", frames=[frame[:, :: 1 - 2 * number] for frame in frames])
            rows.append(f"again{number}.avi,{name},again{number},test")
    (tmp_path / "videos.csv").write_text("\n".join(rows))
    return tmp_path / "videos.csv"


def test_a_video_encoded_again_or_mirrored_in_another_part_is_listed_and_shown(
    twins: Path, vidclf: Callable[..., Outcome], tmp_path: Path
):
    settings = ("dataset=manifest", f"dataset.file={twins}", "split=given", "backbone=pixels")
    outcome = vidclf("check", *settings, "out=lists/clean.csv")
    assert outcome.status == 0, outcome.err
    assert "cannot be read 0\ncopied files 0\nlook-alike pairs 2\nleaks between parts 2\n" in outcome.out
    assert "2 pair(s) of videos in different parts of the split look alike: " in outcome.err
    for pair in ("0.mp4 ~ again0.avi", "1.mp4 ~ again1.avi"):
        assert pair in outcome.err
    page = Page((tmp_path / "check.html").read_text())
    assert len(page.addresses) == 2 + 4  # a still of each class, a strip of each look-alike
    assert all(address and address.startswith("data:image/jpeg;base64,/9j/") for address in page.addresses)
    assert "again0   =   person0" in page.text or "person0   =   again0" in page.text
    with (tmp_path / "lists" / "clean.csv").open(newline="") as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert len(rows) == 16
    assert rows["0.mp4"]["group"] == rows["again0.avi"]["group"]
    assert rows["1.mp4"]["group"] == rows["again1.avi"]["group"] != rows["0.mp4"]["group"]
    assert "dataset.anywhere=true" in outcome.err  # the videos lie outside the table's folder
    assert vidclf("check", *settings, "check.strict=true", "check.page=null").status == 1
    settings = ("dataset=manifest", "dataset.file=lists/clean.csv", "dataset.anywhere=true", "split=grouped")
    outcome = vidclf("check", *settings, "backbone=pixels", "check.strict=true")
    assert outcome.status == 0, outcome.err
    assert "look-alike pairs 0\n" in outcome.out


def test_overlapping_segments_of_one_file_in_two_parts_are_leaks(vidclf: Callable[..., Outcome], tmp_path: Path):
    rows = ["path,label,group,split,start_s,end_s"]
    for number, name in enumerate(["run", "walk"] * 3):
        encode_video(tmp_path / f"{number}.mp4", 50, seed=number, codec="libx264")
        rows.append(f"{number}.mp4,{name},a{number},{('train', 'val', 'test')[number // 2]},0,1")
    rows += ["0.mp4,run,b0,test,0.9,1.5", "2.mp4,run,b2,test,1,", "4.mp4,run,b4,test,0,1.0"]
    (tmp_path / "videos.csv").write_text("\n".join(rows[:-1]))
    settings = ("dataset=manifest", f"dataset.file={tmp_path / 'videos.csv'}", "split=given", "backbone=pixels")
    outcome = vidclf("check", *settings, "check.strict=true")
    assert outcome.status == 1
    assert "copied files 0\nlook-alike pairs 1\nleaks between parts 1\n" in outcome.out
    assert "look alike: 0.mp4#0-1 ~ 0.mp4#0.9-1.5." in outcome.err
    assert "run: videos 5, groups 5, train 1, val 1, test 3, shortest 0.6 s, median 1.0 s, longest 1.0 s" in outcome.err
    rows[-1] = "4.mp4,run,b4,test,,1.00"
    (tmp_path / "videos.csv").write_text("\n".join(rows))
    assert "copied files 1\n" in vidclf("check", *settings).out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("out=clean.parquet", "out=clean.parquet: the name must end in .csv"),
        ("check.page=notes.txt", "check.page=notes.txt: the name must end in .html"),
        ("check.page=folder.html", "check.page=folder.html: the name must end in .html"),
        ("out=notes.txt/clean.csv", "cannot write"),
    ],
)
def test_a_file_that_cannot_be_written_is_an_error_before_the_work(
    setting: str, message: str, check: Callable[..., Outcome], tmp_path: Path
):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder.html").mkdir()
    outcome = check(setting)
    assert (outcome.status, outcome.out) == (1, "")
    assert message in outcome.err
    assert "Examining" not in outcome.err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_very_wide_video_is_shown(twins: Path, vidclf: Callable[..., Outcome], tmp_path: Path):
    rows = twins.read_text().splitlines()
    for seed, side in enumerate(("train", "test")):
        encode_video(tmp_path / f"wide{side}.mp4", 3, size=(2200, 32), codec="libx264", options={"crf": str(20 + seed)})
        rows.append(f"wide{side}.mp4,run,wide{side},{side}")
    twins.write_text("\n".join(rows))
    outcome = vidclf("check", "dataset=manifest", f"dataset.file={twins}", "split=given", "backbone=pixels")
    assert outcome.status == 0, outcome.err
    assert "widetrain.mp4 ~ widetest.mp4" in outcome.err


def test_the_table_has_each_readable_video_once_and_none_with_two_labels(check: Callable[..., Outcome], tmp_path: Path):
    root = write_folder(tmp_path / "my_videos")
    shutil.copyfile(root / "run" / "person0" / "clip.mp4", root / "run" / "person0" / "again.mp4")
    shutil.copyfile(root / "run" / "person1" / "clip.mp4", root / "walk" / "person1" / "clip.mp4")
    halve(root / "walk" / "person2" / "clip.mp4")
    outcome = check("out=clean.csv")
    assert "out=clean.csv: 5 videos in 3 groups; 1 damaged videos and 3 copies are left out." in outcome.err
    kept = (tmp_path / "clean.csv").read_text().splitlines()
    assert kept[0] == "path,label,group,start_s,end_s"
    assert kept[1] == "my_videos/run/person0/again.mp4,run,person0,,"
    assert not [row for row in kept if "person1" in row]


def test_a_table_is_not_overwritten_and_names_that_are_not_utf_8_are_refused(
    check: Callable[..., Outcome], tmp_path: Path
):
    write_folder(tmp_path / "my_videos", classes=("caf\udce9", "walk"))
    (tmp_path / "kept.csv").write_text("mine")
    outcome = check("out=kept.csv")
    assert (outcome.status, (tmp_path / "kept.csv").read_text()) == (1, "mine")
    assert outcome.err.endswith("the file exists. Choose another name or delete it.\n")
    outcome = check("out=new.csv")
    assert outcome.status == 1
    assert "out=new.csv: 4 name(s) are not UTF-8: my_videos/caf\ufffd/person0/clip.mp4" in outcome.err
    assert not (tmp_path / "new.csv").exists()


@pytest.mark.parametrize("given", ["0", "1", "2.5"])
def test_check_alike_must_be_between_0_and_1(given: str, check: Callable[..., Outcome]):
    outcome = check(f"check.alike={given}")
    assert outcome.status == 1
    assert outcome.err.startswith(f"VidclfError: check.alike={given}: must be between 0")


@pytest.mark.filterwarnings("ignore:split.validation=frame_level")
def test_validation_by_frame_is_a_leak(vidclf: Callable[..., Outcome], clips: Path):
    settings = (f"dataset.root={clips}", "backbone=pixels", "split.validation=frame_level", "check.strict=true")
    outcome = vidclf("check", *settings)
    assert outcome.status == 1
    assert "frames of one video are in both train and val" in outcome.err
    assert "leak(s) between the parts of the split" in outcome.err


def test_without_weights_pixels_are_compared_unless_a_backbone_was_chosen(
    vidclf: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    root = write_folder(tmp_path / "my_videos")
    settings = ("dataset=folder", f"dataset.root={root}", "dataset.group=parent", "split=grouped")
    outcome = vidclf("check", *settings)
    assert outcome.status == 0, outcome.err
    assert "no network" in outcome.err
    assert "Videos are compared by their pixels" in outcome.err
    outcome = vidclf("check", *settings, "backbone=resnet18")
    assert (outcome.status, outcome.out) == (1, "")
    assert "resnet18" in outcome.err


def test_files_that_vanish_while_they_are_checked_are_listed(
    check: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = write_folder(tmp_path / "my_videos")
    describe, choose = findings.describe, findings.choose_frames

    def remove(*arguments: Any) -> Any:
        (root / "run" / "person0" / "clip.mp4").unlink(missing_ok=True)
        return choose(*arguments)

    def remove_another(path: Path, duration_s: float) -> Any:
        (root / "walk" / "person0" / "clip.mp4").unlink(missing_ok=True)
        return describe(path, duration_s)

    monkeypatch.setattr(findings, "choose_frames", remove)
    monkeypatch.setattr(findings, "describe", remove_another)
    outcome = check()
    assert outcome.err.endswith("VidclfError: 2 of 8 videos cannot be read; see above.\n")
    assert outcome.err.count("\ncannot be read: ") == 2
    assert check().status == 0


def test_a_trained_or_clip_backbone_compares_videos_too(check: Callable[..., Outcome], tmp_path: Path):
    write_folder(tmp_path / "my_videos")
    outcome = check("backbone=tiny3d", "sampling.num_frames=16")
    assert outcome.status == 0, outcome.err
    assert "features=auto reads frames" in outcome.err
    assert "Accuracy from one frame" not in (tmp_path / "check.html").read_text()


class Page(HTMLParser):
    """The elements of a page and the addresses in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = text
        self.addresses: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action") or name[:2] == "on"]


@pytest.mark.parametrize("name", [HOSTILE.replace("/", ""), "{{ 7 * 7 }}", "caf\udce9", "a'b\"c&amp;"])
def test_names_of_any_kind_do_nothing_on_the_page(name: str, check: Callable[..., Outcome], tmp_path: Path):
    root = write_folder(tmp_path / "my_videos", classes=(name, "walk"))
    halve(root / name / "person1" / "clip.mp4").rename(root / name / "person1" / f"{name}.mp4")
    outcome = check()
    assert outcome.err.endswith("videos cannot be read; see above.\n"), outcome.err
    text = (tmp_path / "check.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.tags & {"script", "iframe", "link", "object", "a"}
    assert all(address and address.startswith("data:image/jpeg;base64,/9j/") for address in page.addresses)
    assert {"table", "td"} <= page.tags
    assert "&lt;td" not in text
    assert "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src 'sha256-" in text
    assert "script-src" not in text
    assert ("{{ 7 * 7 }}" in text) == ("7 * 7" in name)  # a name is no template


def test_what_cannot_be_split_or_trained_on_is_a_finding_and_everything_else_is_done(
    vidclf: Callable[..., Outcome], tmp_path: Path
):
    """No official split, a class with one group, an empty class, a file without a group, a damaged file, a copy."""
    root = write_folder(tmp_path / "my_videos")
    (root / "empty").mkdir()
    (root / "sit" / "person0").mkdir(parents=True)
    shutil.copyfile(root / "run" / "person0" / "clip.mp4", root / "sit" / "person0" / "clip.mp4")
    shutil.copyfile(root / "run" / "person1" / "clip.mp4", root / "run" / "loose.mp4")
    halve(root / "walk" / "person2" / "clip.mp4")
    settings = ("dataset=folder", f"dataset.root={root}", "dataset.group=parent", "backbone=pixels")
    outcome = vidclf("check", *settings)
    assert outcome.status == 1
    assert "Traceback" not in outcome.err
    page = (tmp_path / "check.html").read_text()
    for text in ("The videos cannot be split: split=official: Folder has no official split", "holds no video", "loose"):
        assert text in outcome.err
        assert text in page
    assert "run: videos 5, groups 5, shortest 0.2 s" in outcome.err
    assert "empty: videos 0, groups 0, shortest -, median -, longest -" in outcome.err
    assert "is not measured: there is no split." in outcome.err
    assert "videos 10\n" in outcome.out
    assert "copied files 2\nlook-alike pairs 0\nleaks between parts no split\n" in outcome.out
    outcome = vidclf("check", *settings, "split=grouped")
    assert "The videos cannot be split: 1 class(es) have fewer than three groups" in outcome.err
    assert outcome.err.endswith("VidclfError: 1 of 10 videos cannot be read; see above.\n")


def test_a_data_set_of_one_class_is_a_finding_and_one_without_videos_an_error(
    check: Callable[..., Outcome], tmp_path: Path
):
    write_folder(tmp_path / "my_videos", classes=("run",))
    outcome = check()
    assert outcome.err.endswith("VidclfError: 1 problem(s) stop a training on these videos; see above.\n")
    assert "There is one class, run: nothing to tell apart." in outcome.err
    shutil.rmtree(tmp_path / "my_videos" / "run")
    (tmp_path / "my_videos" / "run").mkdir()
    outcome = check()
    assert (outcome.status, outcome.out) == (1, "")
    assert "The data set has no videos." in outcome.err


def test_look_alikes_of_different_classes_join_their_groups_only_when_wanted(
    twins: Path, vidclf: Callable[..., Outcome], tmp_path: Path
):
    rows = twins.read_text().replace("again0.avi,run", "again0.avi,walk")
    twins.write_text(rows)
    settings = ("dataset=manifest", f"dataset.file={twins}", "split=given", "backbone=pixels", "check.page=null")
    outcome = vidclf("check", *settings, "out=apart.csv")
    assert "out=apart.csv: 16 videos in 15 groups" in outcome.err
    assert "has 2 videos, 12% of all" in outcome.err
    assert "16 videos in 14 groups" in vidclf("check", *settings, "check.join_classes=true", "out=joined.csv").err


def test_containers_of_three_real_classes_of_ucf101_give_their_label_away(
    shared: Path, vidclf: Callable[..., Outcome], tmp_path: Path
):
    """One clip of each of 25 groups a class: all 363 take half a minute."""
    for path in (shared / "ucf3").glob("*/*_c01.avi"):
        (tmp_path / "UCF" / path.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "UCF" / path.parent.name / path.name).symlink_to(path)
    outcome = vidclf("check", f"dataset.root={tmp_path / 'UCF'}", "backbone=pixels")
    assert outcome.status == 0, outcome.err
    assert "videos 75\ngroups 75\ncannot be read 0\ncopied files 0\n" in outcome.out
    found = re.search(
        r"a small decision tree classifies (\d+)% .*interval (\d+)% to .*most frequent class is (\d+)%", outcome.err
    )
    assert found
    assert int(found[1]) > int(found[2]) > 60 > 34 > int(found[3])


def test_scores_of_shortcuts_are_kept_for_the_same_videos_in_the_same_parts(clips: Path, tmp_path: Path):
    corpus = make_corpus(clips, store=tmp_path)
    keep_shortcuts(tmp_path, corpus, {"container": Shortcut(0.75, 0.6, 0.9, 0.5)})
    assert kept_shortcuts(tmp_path, make_corpus(clips, store=tmp_path)) == {"container_top1": 0.75}
    assert kept_shortcuts(tmp_path, make_corpus(clips, store=tmp_path, split=Official(2))) == {}
    corpus.facts[0] = replace(corpus.facts[0], content="other")
    assert kept_shortcuts(tmp_path, corpus) == {}


def test_events_that_do_not_fit_are_findings_and_the_windows_are_examined(
    vidclf: Callable[..., Outcome], tmp_path: Path
):
    rows = ["path,start_s,end_s,label"]
    for number in range(4):
        encode_video(tmp_path / f"{number}.mp4", 100, seed=number, codec="libx264")
        rows += [f"{number}.mp4,0,2,walk", f"{number}.mp4,2,4,run"]
    (tmp_path / "events.csv").write_text("\n".join([*rows, "0.mp4,1,3,run", "1.mp4,3,9,walk"]))
    settings = ("dataset=events", f"dataset.file={tmp_path}/events.csv", "split=grouped", "backbone=pixels")
    outcome = vidclf("check", *settings)
    assert outcome.status == 1
    assert "walk ends at 9 s, and the video" in outcome.err
    assert "seconds carry two different labels" in outcome.err
    assert "videos 12\n" in outcome.out  # windows
    assert "cannot be split" not in outcome.err


def test_windows_of_the_background_are_not_compared_and_others_are():
    """Two events and two windows of background, each pair identical, and 20 other events."""
    videos = {n: Video(Path(f"{n}.mp4"), int(n not in (1, 3)), f"g{n}") for n in range(24)}
    features = torch.randn(1, 24, 8, 16, generator=torch.Generator().manual_seed(0))
    features[:, 2], features[:, 3] = features[:, 0], features[:, 1]
    for background, expected in ((0, [(0, 2)]), (None, [(0, 2), (1, 3)])):
        assert [pair[:2] for pair in findings._lookalikes(videos, features, 0.5, background)] == expected

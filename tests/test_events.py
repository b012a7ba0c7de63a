"""`dataset=events`: windows of long videos, labelled by a table of events."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import Counter, Images, make_corpus, make_stored
from videos import encode_video

from vidclf.contracts import PARTS, Video
from vidclf.data.catalogue import VideoFacts
from vidclf.data.corpus import window_of
from vidclf.data.datasets.events import Events
from vidclf.data.decoding import VideoInfo
from vidclf.data.events import Event
from vidclf.data.sampling import Rate
from vidclf.data.splits import Given
from vidclf.data.timelines import Stretch, cover, labels_at, lanes, settle, window_starts
from vidclf.errors import VidclfError, VideoError

HEADER = "path,start_s,end_s,label,subject"
ROWS = ("a.avi,0,3,walk,anna", "a.avi,3,5.5,run,anna", "deep/b.avi,1,4,run,ben")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films of 8 and 5 s at 25 fps, which must not change."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "deep").mkdir()
    encode_video(folder / "a.avi", 200, size=(32, 32))
    encode_video(folder / "deep" / "b.avi", 125, size=(32, 32), seed=1)
    return folder


@pytest.fixture
def listed(films: Path, tmp_path: Path) -> Any:
    """`listed(*rows, header=HEADER, **settings)` returns the data set of a table."""

    def make(*rows: str, header: str = HEADER, **settings: Any) -> Events:
        file = tmp_path / "events.csv"
        file.write_text("\n".join([header, *rows]))
        return Events(file, films, **settings)

    return make


def look_up(paths: list[Path]) -> list[VideoFacts]:
    return [VideoFacts("", INFOS[path.name]) for path in paths]


INFOS = {"a.avi": VideoInfo(200, 25.0, 32, 32), "b.avi": VideoInfo(125, 25.0, 32, 32)}


def shown(videos: list[Video]) -> list[tuple]:
    return [(video.path.name, video.start_s, video.end_s, video.class_name) for video in videos]


def test_a_window_has_the_label_that_covers_most_of_it(listed: Any):
    """Walk covers 0 to 3 of a.avi and run 3 to 5.5; run covers 1 to 4 of b.avi. Half a window is enough."""
    dataset = listed(*ROWS)
    assert dataset.class_names == ["other", "run", "walk"]
    videos = dataset.videos(look_up)
    assert shown(videos) == [
        ("a.avi", 0, 2, "walk"),
        ("a.avi", 1, 3, "walk"),
        ("a.avi", 2, 4, "run"),  # as much walk as run: the first in the alphabet
        ("a.avi", 3, 5, "run"),
        ("a.avi", 4, 6, "run"),
        ("a.avi", 5, 7, "other"),
        ("a.avi", 6, 8, "other"),
        ("b.avi", 0, 2, "run"),
        ("b.avi", 1, 3, "run"),
        ("b.avi", 2, 4, "run"),
        ("b.avi", 3, 5, "run"),
    ]
    assert {video.label for video in videos if video.class_name == "run"} == {1}
    assert [video.unit for video in videos[:1] + videos[-1:]] == [(-1, "a.avi"), (-1, "deep/b.avi")]


@pytest.mark.parametrize("times", ["1,3", "1.0004,3.0004", "0.9996,3"])
def test_times_rounded_to_milliseconds_change_no_label(times: str, listed: Any):
    """Exactly half of the first window is walk, and the fifth is as much walk as run."""
    videos = listed(f"a.avi,{times},walk,x", "a.avi,3.0004,8,run,x", stride_s=0.5).videos(look_up)
    assert [label for *_, label in shown(videos)[:5]] == ["walk"] * 4 + ["run"]


def test_windows_without_a_label_are_background_or_left_out(listed: Any, capsys: pytest.CaptureFixture):
    strict = listed(*ROWS, min_cover=0.9, stride_s=2)
    assert [label for *_, label in shown(strict.videos(look_up))] == ["walk", "other", "other", "other", "other", "run"]
    dataset = listed(*ROWS, background=None)
    assert dataset.class_names == ["run", "walk"]
    assert len(dataset.videos(look_up)) == 9
    assert "2 window(s) have no event, and dataset.background is null; they are left out" in capsys.readouterr().err


def test_seconds_of_classes_and_groups_are_reported(listed: Any, capsys: pytest.CaptureFixture):
    listed(*ROWS).videos(look_up)
    said = capsys.readouterr().err
    assert "13.0 s of 2 video(s): run 5.5 s, walk 3.0 s, no event 4.5 s (35%)" in said
    assert "2 group(s): a.avi 8.0 s, deep/b.avi 5.0 s" in said


def test_facts_come_from_decoding_the_files(listed: Any):
    assert shown(listed(*ROWS).videos()) == shown(listed(*ROWS).videos(look_up))


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({"overlap": "first"}, ["walk"] * 4),
        ({"overlap": "shortest"}, ["walk", "walk", "run", "run"]),
        ({"priority": ["run"]}, ["walk", "walk", "run", "run"]),
        ({"priority": ["walk", "run"]}, ["walk"] * 4),
    ],
)
def test_of_contradicting_events_the_chosen_one_counts(settings: dict, labels: list[str], listed: Any):
    rows = ("a.avi,0,4,walk,anna", "a.avi,2,5,run,ben")
    assert [label for *_, label in shown(listed(*rows, window_s=1, **settings).videos(look_up))[:5]] == [*labels, "run"]


def test_contradicting_events_are_refused(listed: Any):
    rows = ("a.avi,0,4,walk,anna", "a.avi,2,4.5,run,ben", "a.avi,4.4995,5,sit,ben")
    with pytest.raises(
        VidclfError,
        match=r"2 seconds carry two different labels: a\.avi from 2 s to 4 s \(walk, line 2; run, line 3\)\. Correct "
        r"the events, or choose a label with dataset\.overlap=first",
    ):
        listed(*rows).videos(look_up)
    with pytest.raises(VidclfError, match="2 seconds carry"):  # a subject that is neither
        listed(*rows, priority=["sit"]).videos(look_up)


def test_point_events_are_left_out_or_given_a_duration(listed: Any, capsys: pytest.CaptureFixture):
    rows = (*ROWS, "deep/b.avi,4.5,4.5,jump,ben")
    dataset = listed(*rows)
    assert dataset.class_names == ["other", "run", "walk"]
    dataset.videos(look_up)
    assert (
        "1 point event(s) have no duration, which dataset.point_s=0.5 gives them; they are left"
        in capsys.readouterr().err
    )
    videos = listed(*rows, point_s=0.5, window_s=0.5, stride_s=0.25).videos(look_up)
    assert [video for video in shown(videos) if video[3] == "jump"] == [
        ("b.avi", 4.0, 4.5, "jump"),
        ("b.avi", 4.25, 4.75, "jump"),
        ("b.avi", 4.5, 5.0, "jump"),
    ]


def test_videos_are_found_by_their_names(listed: Any, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    rows = (r"C:\films\a.avi,0,3,walk,anna", r"deep\b.avi,1,4,run,ben", "/srv/b.avi,4,5,walk,ben")
    videos = listed(*rows).videos(look_up)
    assert {video.path for video in videos} == {films / "a.avi", films / "deep" / "b.avi"}
    assert "2 videos are found by their names, in another folder: C:/films/a.avi, /srv/b.avi" in capsys.readouterr().err
    with pytest.raises(VidclfError, match=r"1 of 2 videos are not below .*: c\.avi \(line 3\)\. Set dataset\.root"):
        listed("a.avi,0,1,walk,x", "c.avi,0,1,run,x").videos(look_up)
    (tmp_path / "d.avi").touch()
    with pytest.raises(VidclfError, match=r"d\.avi \(line 2\).*dataset\.anywhere=true"):
        listed(f"{tmp_path}/d.avi,0,1,walk,x", "a.avi,0,1,run,x").videos(look_up)
    assert (
        listed(f"{films}/a.avi,0,1,walk,x", "a.avi,1,2,run,x", anywhere=True).videos(look_up)[0].path == films / "a.avi"
    )


def test_a_name_of_several_videos_is_refused(tmp_path: Path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.avi").touch()
    (tmp_path / "events.csv").write_text(f"{HEADER}\na.avi,0,1,walk,x\na.avi,1,2,run,x\n")
    with pytest.raises(VidclfError, match=r"a\.avi \(line 2\): x/a\.avi, y/a\.avi\. Write their folders"):
        Events(tmp_path / "events.csv").videos(look_up)


GROUPED = ("a.avi,0,3,walk,anna,g1,train", "deep/b.avi,1,4,run,ben,g2,test")


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (None, ["g1", "g2"]),
        ("file", ["a.avi", "deep/b.avi"]),
        ("subject", ["anna", "ben"]),
        (r"(\w)\.avi", ["a", "b"]),
    ],
)
def test_groups_are_of_files_columns_subjects_or_names(group: str | None, expected: list[str], listed: Any):
    videos = listed(*GROUPED, header=f"{HEADER},group,part", group=group).videos(look_up)
    assert list(dict.fromkeys(video.group for video in videos)) == expected
    assert list(dict.fromkeys(video.part for video in videos)) == ["train", "test"]


def test_files_with_a_subject_in_common_are_one_group(listed: Any):
    rows = (*ROWS, "deep/b.avi,4,5,walk,anna")
    assert {video.group for video in listed(*rows, group="subject").videos(look_up)} == {"anna+ben"}


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (ROWS, {"window_s": 0}, r"dataset\.window_s=0: must be above 0, in seconds"),
        (ROWS, {"stride_s": 0}, r"dataset\.stride_s=0: must be above 0"),
        (ROWS, {"min_cover": 1.5}, r"dataset\.min_cover=1\.5: must be at most 1"),
        (ROWS, {"point_s": -1.0}, r"dataset\.point_s=-1\.0: must be above 0"),
        (ROWS, {"overlap": "last"}, r"dataset\.overlap=last: must be first or shortest"),
        (ROWS, {"priority": ["fly"]}, r"dataset\.priority: there is no label fly"),
        (ROWS, {"coder": "eva"}, r"dataset\.coder=eva: .*events\.csv names no coder"),
        (ROWS, {"group": "parent"}, r"group=parent: 1 of 2 videos are in no sub-folder of dataset\.root: .*a\.avi"),
        (ROWS, {"group": "("}, r"dataset\.group=\(: not a regular expression"),
        (ROWS, {"group": "day"}, r"(?s)dataset\.group=day: it has 0 groups in parentheses.*group=subject"),
        (ROWS, {"window_s": 6.0}, r"window_s=6: 1 video\(s\) are shorter than a window: .*b\.avi \(5\.00 s\)"),
        ((*ROWS, "a.avi,6,9,walk,x"), {}, r"line 5: walk ends at 9 s, and the video .*a\.avi is 8\.00 s long"),
        ((*ROWS, "a.avi,6,7,walk,"), {"group": "subject"}, r"group=subject: 1 events have no subject: line 5"),
    ],
)
def test_what_does_not_fit_is_refused(rows: tuple[str, ...], settings: dict, message: str, listed: Any):
    with pytest.raises(VidclfError, match=message):
        listed(*rows, **settings).videos(look_up)


def test_a_subject_in_two_parts_is_refused(listed: Any):
    header = f"{HEADER},part"
    rows = ("a.avi,0,3,walk,anna,train", "deep/b.avi,1,4,run,anna,test")
    with pytest.raises(VidclfError, match=r"1 subject\(s\) are in two parts: anna \(test and train\).*group=file"):
        listed(*rows, header=header).videos(look_up)
    assert listed(*rows, header=header, group="file").videos(look_up)
    with pytest.raises(VidclfError, match=r"1 video\(s\) are in two parts: .*a\.avi \(test and train\)"):
        listed(rows[0], rows[0].replace("train", "test"), rows[1], header=header).videos(look_up)
    with pytest.raises(VidclfError, match="line 2: part=practice: must be one of train, val, test"):
        listed(rows[0].replace("train", "practice"), rows[1], header=header).videos(look_up)


def test_an_event_may_end_a_little_after_the_last_frame(listed: Any):
    assert len(listed(*ROWS, "a.avi,6,8.09,walk,x").videos(look_up)) == 11


def test_spellings_of_one_class_are_kept_apart_and_reported(listed: Any, capsys: pytest.CaptureFixture):
    dataset = listed("a.avi,0,1,walk,x", "a.avi,1,2,Walk,x", "a.avi,2,3,walk ,x")
    assert dataset.class_names == ["other", "Walk", "walk", "walk "]
    assert "'Walk' and 'walk' and 'walk ' may be one class in 3 spellings" in capsys.readouterr().err


def test_a_damaged_video_is_an_error_or_left_to_the_corpus(listed: Any):
    def fail(paths: list[Path]) -> list[VideoFacts | VideoError]:
        return [VideoError(f"{paths[0]}: damaged"), *look_up(paths[1:])]

    with pytest.raises(VideoError, match="damaged"):
        listed(*ROWS).videos(fail)
    videos = listed(*ROWS, on_error="skip").videos(fail)
    assert [(video.start_s, video.end_s) for video in videos if video.path.name == "a.avi"] == [(None, None)]
    assert len(videos) == 5


def test_a_folder_of_tables_is_read_and_a_list_has_a_coder_each(films: Path, tmp_path: Path):
    for coder, shift in (("eva", 0), ("leo", 1)):
        (tmp_path / coder).mkdir()
        rows = f"a.avi,{shift},4,walk,x\na.avi,4,8,run,x\ndeep/b.avi,{shift},4,run,x\n"
        (tmp_path / f"{coder}.csv").write_text(f"{HEADER}\n{rows}")
        (tmp_path / coder / "film.csv").write_text(f"{HEADER}\n{rows}")
        (tmp_path / coder / "b.srt").write_text("1\n00:00:04,000 --> 00:00:05,000\nwalk\n")
    folder = Events(tmp_path / "eva", films)
    assert ("b.avi", 4, 5, "walk") in shown(folder.__class__(tmp_path / "eva", films, window_s=1).videos(look_up))
    dataset = Events([str(tmp_path / "eva.csv"), str(tmp_path / "leo.csv")], films)
    assert (dataset.coders, dataset.coder) == (["eva", "leo"], "eva")
    first, second = dataset.coded_twice(look_up=look_up)
    assert (first.group, second.group) == ("a.avi", "deep/b.avi")
    assert (len(first.first), len(second.first)) == (80, 50)
    assert first.first[:11] == ["walk"] * 11
    assert first.second[:11] == ["other"] * 10 + ["walk"]


def test_labels_of_frames_get_the_rate_of_the_video(films: Path, tmp_path: Path):
    rows = ["0,1,0"] * 50 + ["1,0,0"] * 75 + ["0,0,1"] * 75
    (tmp_path / "a_labels.csv").write_text("\n".join(["other,walk,run", *rows]))
    videos = Events(tmp_path / "a_labels.csv", films, window_s=1).videos(look_up)
    assert [label for *_, label in shown(videos)] == ["walk"] * 2 + ["other"] * 3 + ["run"] * 3


# Windows that share frames


@pytest.mark.parametrize("fps", [25.0, 30000 / 1001, 12.5])
@pytest.mark.parametrize("rate_hz", [1.0, 2.0, 3.0, 5.0])
def test_overlapping_windows_have_their_frames_in_common(fps: float, rate_hz: float):
    """A stride of half a window takes about the frames that no overlap takes."""
    info = VideoInfo(round(120 * fps), fps, 32, 32)

    def frames(stride_s: float) -> set[int]:
        found: set[int] = set()
        for start_s in window_starts(info, 2.0, stride_s, rate_hz).tolist():
            window = Video(Path("a"), 0, "", start_s=start_s, end_s=round(start_s + 2.0, 4))
            first, num_frames = window_of(window, VideoFacts("", info))
            found |= {first + int(frame) for frame in Rate(rate_hz)(num_frames, fps).flatten()}
        return found

    assert len(frames(1.0)) <= 1.1 * len(frames(2.0))
    assert len(frames(1.0)) <= len(Rate(rate_hz)(info.num_frames, fps))


def test_overlapping_windows_compute_each_frame_once(listed: Any, films: Path):
    header = f"{HEADER},part"
    rows = ["a.avi,0,2,walk,x,train", "a.avi,2,8,run,x,train", "deep/b.avi,0,2,walk,y,val", "deep/b.avi,2,5,run,y,val"]

    def count(stride_s: float, folder: str) -> int:
        dataset = listed(*rows, header=header, stride_s=stride_s, rate_hz=5.0, background=None)
        corpus = make_corpus(films, dataset=dataset, split=Given(), sampling=Rate(5), store=films.parent / folder)
        backbone = Images()
        counter = Counter(backbone)
        source = make_stored(corpus, films.parent / folder / "x", backbone)
        source.prepare([video for part in PARTS for video in corpus.views(part)])
        return counter.count

    assert count(2.0, "apart") == 40 + 20  # two windows of b.avi, the last of which ends at 4 s
    assert count(1.0, "overlapping") == 40 + 25


def test_windows_end_where_the_video_does():
    info = VideoInfo(110, 10.0, 32, 32)
    assert window_starts(info, 2.0, 0.7).tolist() == pytest.approx([0.7 * number for number in range(13)])
    assert window_starts(info, 11.0, 1.0).tolist() == [0]
    assert len(window_starts(info, 11.2, 1.0)) == 0
    assert window_starts(VideoInfo(33, 10.0, 1, 1), 1.1, 1.1).tolist() == [0, 1.1, 2.2]


# Pure functions


def test_events_are_settled_into_stretches():
    events = [Stretch(0, 4, "a"), Stretch(2, 3, "a"), Stretch(4, 5, "a"), Stretch(6, 7, "b"), Stretch(6, 6, "c")]
    assert settle(events) == ([Stretch(0, 5, "a"), Stretch(6, 7, "b")], [])
    stretches, contradictions = settle([Stretch(0, 4, "a"), Stretch(2, 3, "b")])
    assert [one[:2] for one in contradictions] == [(2, 3)]
    stretches, contradictions = settle([Stretch(0, 4, "a"), Stretch(2, 3, "b")], lambda event: event.label != "b")
    assert stretches == [Stretch(0, 2, "a"), Stretch(2, 3, "b"), Stretch(3, 4, "a")]
    assert contradictions == []


def test_how_much_of_a_window_each_label_covers():
    stretches = [Stretch(1, 2, "a"), Stretch(2, 2.5, "b"), Stretch(4, 10, "a")]
    covered = cover(stretches, np.asarray([0.0, 1.5, 3.0, 9.0, 12.0]), 2.0, ["a", "b", "c"])
    assert covered.tolist() == [[1, 0, 0], [0.5, 0.5, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_labels_at_instants_include_the_start_and_not_the_end():
    stretches = [Stretch(1, 2, "a"), Stretch(2, 3, "b")]
    assert labels_at(stretches, np.asarray([0.5, 1, 1.9, 2, 3]), "-") == ["-", "a", "a", "b", "-"]


def test_overlapping_events_are_in_different_lanes():
    events = [Event("a", *times, "walk") for times in ((0, 4), (1, 2), (2, 3), (4, 5))]
    assert lanes(events, ["one"] * 4) == [0, 1, 1, 0]
    assert lanes(events, ["one", "two", "two", "one"]) == [0, 0, 0, 0]

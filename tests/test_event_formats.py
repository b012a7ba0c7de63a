"""Tables of events: what each format says is read, what is written is read again, and what is wrong is refused."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from vidclf.data import events as package
from vidclf.data.decoding import VideoInfo
from vidclf.data.events import Event, formats, read_events, write_events
from vidclf.errors import VidclfError

FILM = VideoInfo(2997, 30000 / 1001, 320, 240)  # 100 s
UNEVEN = VideoInfo(250, 25.0, 320, 240, shown_from=(*range(0, 100, 2), *range(100, 250)))
VIDEOS = {"a.mp4": FILM, "deep/b.avi": VideoInfo(1000, 25.0, 320, 240), "uneven.mp4": UNEVEN}
WALK = [Event("a.mp4", 1.5, 4.25, "walk", "anna"), Event("a.mp4", 6.0, 7.125, "run", "ben")]


def read(folder: Path, name: str, text: str | bytes, format: str | None = None) -> list[Event]:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_events(folder / name, format, VIDEOS.__getitem__)


def rounded(events: Sequence[Event]) -> list[tuple]:
    """Return what a format must keep of each event, times in milliseconds."""
    return sorted((e.label, e.subject, round(e.start_s * 1000), round(e.end_s * 1000), e.path) for e in events)


def draw_events(number: int, paths: Sequence[str]) -> list[Event]:
    """Return some events with times in milliseconds; those of one class and subject may touch and overlap."""
    draw = random.Random(number)
    found = []
    for _ in range(draw.randint(1, 12)):
        start = draw.randint(0, 9000)
        subject = draw.choice(["", "anna", "Zoë <2>", "a,b;c"])
        label = draw.choice(["walk", "walk ", "Walk", 'say "x, y" & <z>', "1", "Übung", "other"])
        times = start / 1000, (start + draw.randint(1, 900)) / 1000
        found.append(Event(draw.choice(paths), *times, label, subject))
    return found


@pytest.mark.parametrize("ending", [ending for one in formats().values() for ending in one.WRITES])
def test_what_is_written_is_read_again_to_the_millisecond(ending: str, tmp_path: Path):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    one_video = ending in (".srt", ".vtt")
    for number in range(10):
        paths = ["a.mp4"] if one_video else [*VIDEOS]
        events = draw_events(number, paths)
        file = tmp_path / f"a{ending}"
        write_events(file, events, VIDEOS)
        again = read_events(file, info_of=VIDEOS.__getitem__)
        if one_video:
            events = [Event("a", e.start_s, e.end_s, e.label, e.subject) for e in events]
        assert rounded(again) == rounded(events)


def test_boris_aggregated_events_are_read(tmp_path: Path):
    header = (
        "Observation id\tObservation date\tDescription\tMedia file\tTotal length\tFPS\tweather\tSubject\t"
        "Behavior\tBehavioral category\tModifiers\tBehavior type\tStart (s)\tStop (s)\tDuration (s)\t"
        "Comment start\tComment stop\n"
    )
    film = "day 1\t2026-01-31T12:00:00\t\tC:\\films\\a.mp4\t100.0\t29.97\tsun\t"
    rows = (
        f"{film}anna\twalk\t\tfast\tSTATE\t1.500\t4.250\t2.750\t\t\n"
        f"{film}No focal subject\tjump\t\t\tPOINT\t5.000\t5.000\t0.000\t\t\n"
    )
    events = read(tmp_path, "events.tsv", header + rows)
    assert events == [Event("C:/films/a.mp4", 1.5, 4.25, "walk", "anna"), Event("C:/films/a.mp4", 5, 5, "jump")]
    with_commas = (header + rows).replace("\t", ";").replace("1.500", "1,500")
    assert read(tmp_path, "events.csv", with_commas) == events
    with pytest.raises(VidclfError, match=r"observation 'day 1', line 2: walk never stops"):
        read(tmp_path, "events.tsv", header + rows.replace("4.250", "NA"))
    with pytest.raises(VidclfError, match=r"observation 'day 1', line 2: walk stops at 0\.5, before it starts at 1\.5"):
        read(tmp_path, "events.tsv", header + rows.replace("4.250", "0.500"))
    with pytest.raises(
        VidclfError, match=r"observation 'day 1', line 2: it is over 2 files, a\.mp4, b\.mp4, whose times"
    ):
        read(tmp_path, "events.tsv", header + rows.replace("C:\\films\\a.mp4", "a.mp4;b.mp4"))


def test_columns_of_newer_versions_of_boris_are_read(tmp_path: Path):
    text = (
        "Observation id,Observation type,Source,Time offset (s),Subject,Behavior,Behavior type,Start (s),Stop (s),"
        "Media file name\n"
        "day 1,Media file,player #1:a.mp4,10.0,No focal subject,walk,STATE,11.5,14.25,a.mp4\n"
    )
    assert read(tmp_path, "events.csv", text) == [Event("a.mp4", 1.5, 4.25, "walk")]
    source_only = text.replace(",Media file name", "").replace("14.25,a.mp4", "14.25")
    assert read(tmp_path, "events.csv", source_only) == [Event("a.mp4", 1.5, 4.25, "walk")]


def project(**observation: object) -> str:
    day = {
        "type": "MEDIA",
        "file": {"1": ["a.mp4"], "2": []},
        "time offset": 0.0,
        "events": [
            [1.5, "anna", "walk", "", ""],
            [2.0, "", "jump", "", "high"],
            [4.25, "anna", "walk", "", "", 127],
        ],
    }
    behaviors = {"0": {"type": "State event", "code": "walk"}, "1": {"type": "Point event", "code": "jump"}}
    live = {"type": "LIVE", "file": [], "events": [[1, "", "walk", "", ""]]}
    return json.dumps({"behaviors_conf": behaviors, "observations": {"day 1": {**day, **observation}, "live": live}})


def test_a_boris_project_is_read(tmp_path: Path, capsys: pytest.CaptureFixture):
    expected = [Event("a.mp4", 2, 2, "jump"), Event("a.mp4", 1.5, 4.25, "walk", "anna")]
    assert read(tmp_path, "x.boris", project()) == expected
    assert "1 observations are live or have no events; left out: live" in capsys.readouterr().err
    with pytest.raises(VidclfError, match=r"observation 'day 1', row 1: walk never stops"):
        read(tmp_path, "x.boris", project(events=[[1.5, "anna", "walk", "", ""]]))
    with pytest.raises(VidclfError, match=r"observation 'day 1', row 1: it is over several files"):
        read(tmp_path, "x.boris", project(file={"1": ["a.mp4", "b.mp4"]}))
    with pytest.raises(VidclfError, match=r"observation 'day 1', row 1: it names no media file"):
        read(tmp_path, "x.boris", project(file={"1": []}))
    with pytest.raises(VidclfError, match=r"observation 'day 1', row 2: 'soon' must be a time"):
        read(tmp_path, "x.boris", project(events=[[1.5, "", "walk"], ["soon", "", "walk"]]))


def test_a_written_boris_project_has_what_boris_needs(tmp_path: Path):
    events = [*WALK, Event("a.mp4", 4.25, 5, "walk", "anna"), Event("a.mp4", 9, 9, "jump", coder="eva")]
    events.append(Event("a.mp4", 2, 8, "run", "anna"))
    write_events(tmp_path / "x.boris", events, VIDEOS)
    written = json.loads((tmp_path / "x.boris").read_text())
    assert written["project_format_version"] == "7.0"
    kinds = {one["code"]: one["type"] for one in written["behaviors_conf"].values()}
    assert kinds == {"jump": "Point event", "run": "State event", "walk": "State event"}
    assert [one["name"] for one in written["subjects_conf"].values()] == ["anna", "ben"]
    day = written["observations"]["a.mp4"]
    assert day["file"]["1"] == ["a.mp4"]
    assert day["media_info"]["length"]["a.mp4"] == pytest.approx(100, abs=0.01)
    rows = [(time, subject, code, frame) for time, subject, code, _, _, frame in day["events"]]
    assert [row for row in rows if row[1:3] == ("anna", "walk")] == [
        (1.5, "anna", "walk", 44),
        (4.25, "anna", "walk", 127),
        (4.25, "anna", "walk", 127),
        (5, "anna", "walk", 149),
    ]
    times = [time for time, *_ in day["events"]]
    assert times == sorted(times)
    assert written["observations"]["a.mp4 (eva)"]["independent_variables"] == {"coder": "eva"}


ELAN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2026-01-31T12:00:00+00:00" FORMAT="3.0" VERSION="3.0">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/my%20films/a.mp4" MIME_TYPE="video/mp4" RELATIVE_MEDIA_URL="./a.mp4"/>
  </HEADER>
  <TIME_ORDER>
    <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1500"/><TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="4250"/>
    <TIME_SLOT TIME_SLOT_ID="ts3"/>
  </TIME_ORDER>
  <TIER LINGUISTIC_TYPE_REF="default" PARTICIPANT="anna" ANNOTATOR="eva" TIER_ID="gait">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE>walk</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER LINGUISTIC_TYPE_REF="default" TIER_ID="notes">
    <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a2" ANNOTATION_REF="a1">
      <ANNOTATION_VALUE>fast</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
  </TIER>
  <LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="default" TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>
"""
BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><ANNOTATION_DOCUMENT>&b;</ANNOTATION_DOCUMENT>'


def test_elan_is_read(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert read(tmp_path, "x.eaf", ELAN) == [Event("a.mp4", 1.5, 4.25, "walk", "anna", coder="eva")]
    assert "1 annotations of other annotations have no times" in capsys.readouterr().err
    absolute = ELAN.replace(' RELATIVE_MEDIA_URL="./a.mp4"', "")
    assert read(tmp_path, "x.eaf", absolute)[0].path == "/C:/my films/a.mp4"
    no_text = ELAN.replace("<ANNOTATION_VALUE>walk</ANNOTATION_VALUE>", "<ANNOTATION_VALUE/>")
    assert read(tmp_path, "x.eaf", no_text)[0].label == "gait"
    with pytest.raises(VidclfError, match=r"tier 'gait', annotation 1: 'no time' must be a time"):
        read(tmp_path, "x.eaf", ELAN.replace('REF2="ts2"', 'REF2="ts3"'))


def test_feral_is_read(tmp_path: Path):
    content = {
        "is_multilabel": False,
        "class_names": {"0": "other", "1": "walk"},
        "labels": {"deep/b.avi": [0] * 25 + [1] * 50, "a.mp4": [1, 1, 0]},
        "splits": {"train": ["a.mp4"], "val": [], "test": ["deep/b.avi"], "inference": []},
    }
    events = read(tmp_path, "x.json", json.dumps(content))
    assert Event("deep/b.avi", 1.0, 3.0, "walk", part="test") in events
    assert Event("deep/b.avi", 0.0, 1.0, "other", part="test") in events
    assert len(events) == 4
    content["labels"] = {"deep/b.avi": [[0, 1], [1, 1]]}
    assert {(e.label, e.end_s) for e in read(tmp_path, "x.json", json.dumps(content))} == {
        ("walk", 0.08),
        ("other", 0.08),
    }
    content["labels"] = {"a.mp4": [0, 2]}
    with pytest.raises(VidclfError, match=r"video 'a\.mp4', frame 1: there is no class 2"):
        read(tmp_path, "x.json", json.dumps(content))


def test_feral_labels_that_were_changed_win_over_the_events_beside_them(tmp_path: Path, capsys: pytest.CaptureFixture):
    write_events(tmp_path / "x.json", [Event("deep/b.avi", 1.01, 2.99, "walk", "anna")], VIDEOS)
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["labels"]["deep/b.avi"] == [0] * 25 + [1] * 50 + [0] * 925
    content["labels"]["deep/b.avi"][25] = 0
    events = read(tmp_path, "x.json", json.dumps(content))
    assert Event("deep/b.avi", 1.04, 3.0, "walk") in events
    assert "have changed since it was written" in capsys.readouterr().err


def test_label_studio_counts_frames_from_one(tmp_path: Path):
    def region(start: int, end: int, label: str) -> dict:
        return {
            "type": "timelinelabels",
            "value": {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]},
        }

    annotations = [
        {"completed_by": {"email": "eva@x.org"}, "result": [region(1, 50, "walk"), region(51, 51, "run")]},
        {"completed_by": 7, "was_cancelled": True, "result": [region(1, 2, "sit")]},
        {"completed_by": 8, "result": [region(1, 26, "walk"), region(26, 50, "run")]},
    ]
    tasks = [{"id": 3, "data": {"video": "/data/upload/1/0a1b2c3d-deep/b.avi"}, "annotations": annotations}]
    assert read(tmp_path, "x.json", json.dumps(tasks)) == [
        Event("deep/b.avi", 0, 2, "walk", coder="eva@x.org"),
        Event("deep/b.avi", 2, 2.04, "run", coder="eva@x.org"),
        Event("deep/b.avi", 0, 1, "walk", coder="8"),  # does not include the frame at which the next begins
        Event("deep/b.avi", 1, 2, "run", coder="8"),
    ]
    tasks[0]["data"] = {"clip": "/data/local-files/?d=deep%2Fb.avi"}
    assert read(tmp_path, "x.json", json.dumps(tasks))[0].path == "deep/b.avi"
    annotations[0]["result"] = [region(0, 5, "walk")]
    with pytest.raises(VidclfError, match="task 3: walk starts at frame 0; the first is 1"):
        read(tmp_path, "x.json", json.dumps(tasks))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.mp4_labels.csv", ",background,walk\n0,1,0\n1,0,1\n2,0,1\n"),
        ("a.mp4.csv", "background,walk\n1.0,0.0\n0.0,1.0\n0.0,1.0\n"),
        ("a.mp4.csv", "frame;background;walk\n0;1;0\n1;0;1\n2;0;1\n"),
    ],
)
def test_a_column_for_each_class_and_a_row_for_each_frame_is_read(name: str, text: str, tmp_path: Path):
    second_s = 1001 / 30000
    first, walk = read(tmp_path, name, text)
    assert (first.path, first.label, first.start_s, first.end_s) == ("a.mp4", "background", 0, second_s)
    assert (walk.label, walk.start_s, walk.end_s) == ("walk", second_s, 3 * second_s)
    with pytest.raises(VidclfError, match=r"line 3: '-1' must be 0 or 1"):
        read(tmp_path, name, text.replace("0;1\n", "-1;1\n").replace("0,1\n", "-1,1\n").replace("0.0,1.0\n", "-1,1\n"))


def test_frames_of_an_uneven_video_are_read_at_the_times_at_which_they_are_shown(tmp_path: Path):
    """Its first 50 frames are shown for 0.08 s, the others for 0.04 s."""
    text = "walk\n" + "1\n" * 50 + "0\n" * 50 + "1\n"
    first, second = read(tmp_path, "uneven.mp4.csv", text)
    assert (first.start_s, first.end_s) == (0, 4)
    assert (second.start_s, second.end_s) == (6, pytest.approx(6.04))


def test_subtitles_are_read_and_shown_by_players(tmp_path: Path):
    write_events(tmp_path / "a.srt", WALK, VIDEOS)
    assert (tmp_path / "a.srt").read_text() == (
        "1\n00:00:01,500 --> 00:00:04,250\nwalk\n(anna)\n\n2\n00:00:06,000 --> 00:00:07,125\nrun\n(ben)\n\n"
    )
    text = "WEBVTT - a film\n\nNOTE by hand\n\n01:02.5 --> 01:03.500 align:start\nwalk &amp; run\n"
    assert read(tmp_path, "a.vtt", text) == [Event("a", 62.5, 63.5, "walk & run")]
    with pytest.raises(VidclfError, match=r"of 2 videos \(a\.mp4, uneven\.mp4\), and a \.srt file is about one"):
        write_events(tmp_path / "a.srt", [*WALK, Event("uneven.mp4", 1, 2, "run")], VIDEOS)


TABLE = "path,start_s,end_s,label,subject,group,part,coder\na.mp4,1.5,4.25,walk,anna,g1,train,eva\n"


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + TABLE.encode(),
        TABLE.encode("utf-16"),
        TABLE.replace(",", ";").replace(".5", ",5").replace(".25", ",25").encode(),
        TABLE.replace(",", "\t").encode(),
        TABLE.replace("path,start_s", "Path,START_S").encode(),
        TABLE.replace("a.mp4", " a.mp4 ").encode(),
    ],
    ids=["byte order mark", "UTF-16", "semicolons and decimal commas", "tabs", "capitals", "blanks"],
)
def test_tables_of_spreadsheets_are_read(text: bytes, tmp_path: Path):
    assert read(tmp_path, "x.csv", text) == [Event("a.mp4", 1.5, 4.25, "walk", "anna", "g1", "train", "eva")]


def test_an_ending_that_lies_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert len(read(tmp_path, "x.csv", project())) == 2
    assert "it is read as boris_project, which fits its content" in capsys.readouterr().err
    assert len(read(tmp_path, "x.json", ELAN)) == 1
    assert len(read(tmp_path, "x.eaf", TABLE)) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "", "missing: path, start_s, end_s, label"),
        ("x.csv", "path,start_s,end_s,label\n", "there are no events in it"),
        (
            "x.csv",
            TABLE.replace("coder", "mood"),
            r"unknown: mood\).*needs path, start_s, end_s and label, may have sub",
        ),
        ("x.csv", TABLE.replace("label", "behaviour"), "unknown: behaviour; missing: label"),
        ("x.csv", TABLE.replace("walk", " "), "line 2: the label is empty"),
        ("x.csv", TABLE.replace("4.25", ""), "line 2: end_s is empty"),
        ("x.csv", TABLE.replace("4.25", "1"), r"line 2: walk stops at 1, before it starts at 1\.5"),
        ("x.csv", TABLE.replace("4.25", "1:30"), "line 2: end_s=1:30: must be seconds"),
        ("x.csv", TABLE.replace("4.25", '"4,25"'), "line 2: end_s=4,25: must be seconds"),
        ("x.csv", TABLE.encode("utf-16-le"), "zeros, as UTF-16 does"),
        ("x.csv", "Übung".encode("latin-1"), "not UTF-8 text"),
        ("x.dat", "anything", r"none of the known formats fits its content \(boris, boris_project, columns, elan"),
        ("x.json", "{", "none of the known formats fits"),
        ("x.json", '{"timelinelabels":' + "[" * 100_000, r"not a label_studio file .* \(maximum recursion depth"),
        ("x.boris", '{"observations":' * 1000 + '"behaviors_conf"' + "}" * 1000, "not a boris_project file"),
        ("x.boris", '{"observations": [], "behaviors_conf": {}}', r"not a boris_project file .*no attribute 'items'"),
        ("x.boris", project(events=4), "not a boris_project file"),
        ("x.boris", project(events=[[1, 2]]), "not a boris_project file"),
        ("x.boris", project(**{"time offset": "x"}), "not a boris_project file"),
        ("x.json", '{"class_names": {"0": "x"}, "labels": {"a.mp4": 5}}', "not a feral file"),
        ("x.json", '{"class_names": {"0": "x"}, "labels": {"a.mp4": [[1, 0]]}}', "not a feral file"),
        ("x.json", '{"class_names": {"0": "x"}, "labels": {"a.mp4": [0]}, "events": [[1]]}', "not a feral file"),
        (
            "x.json",
            '[{"data": {"video": "a.mp4"}, "annotations": [{"result": 5}], "timelinelabels": 1}]',
            "label_studio",
        ),
        ("x.eaf", BOMB, "it defines entities"),
        ("x.eaf", ELAN.replace("</TIER>", ""), "it is no XML"),
        ("x.eaf", ELAN.replace("<MEDIA_DESCRIPTOR", "<OTHER"), "it names no media file"),
        ("x.eaf", ELAN.replace("file:///C", "&xxe;"), "it is no XML"),
    ],
)
def test_a_table_with_an_error_is_refused(name: str, text: str | bytes, message: str, tmp_path: Path):
    with pytest.raises(VidclfError, match=message):
        read(tmp_path, name, text)


def test_a_format_may_be_named(tmp_path: Path):
    assert len(read(tmp_path, "x.dat", TABLE, "table")) == 1
    with pytest.raises(VidclfError, match=r"x\.dat: it has no column observation id, behavior"):
        read(tmp_path, "x.dat", TABLE, "boris")
    with pytest.raises(VidclfError, match=r"dataset\.format=excel: must be one of boris, boris_project, columns"):
        read(tmp_path, "x.dat", TABLE, "excel")


def test_a_table_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(package, "MAX_EVENTS", 3)
    with pytest.raises(VidclfError, match=r"more than 3 rows\. Divide it"):
        read(tmp_path, "x.csv", TABLE + TABLE.splitlines()[1] + "\n" + "\n".join(TABLE.splitlines()[1:] * 3))
    monkeypatch.setattr(package, "MAX_BYTES", 100)
    with pytest.raises(VidclfError, match=r"0 MB are too much for a table of events"):
        read(tmp_path, "x.csv", TABLE * 3)


def test_a_parquet_table_of_too_many_rows_is_refused_before_it_is_read(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    column = pyarrow.repeat(1.0, 10**6 + 1)
    names = pyarrow.DictionaryArray.from_arrays(pyarrow.repeat(0, 10**6 + 1).cast("int32"), ["walk"])
    write_table(
        pyarrow.table({"path": names, "start_s": column, "end_s": column, "label": names}), tmp_path / "x.parquet"
    )
    with pytest.raises(VidclfError, match=r"x\.parquet: it has more than 1,000,000 rows"):
        read_events(tmp_path / "x.parquet")


def test_an_unknown_ending_cannot_be_written(tmp_path: Path):
    with pytest.raises(VidclfError, match=r"x\.xlsx: the name must end in \.boris, \.csv, \.eaf, \.json, \.parquet"):
        write_events(tmp_path / "x.xlsx", WALK, VIDEOS)

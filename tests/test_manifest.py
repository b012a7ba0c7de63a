"""`dataset=manifest`: a table of videos, or of labelled segments of them."""

from pathlib import Path

import pytest

from vidclf.data.datasets.manifest import Manifest
from vidclf.data.listing import DatasetError
from vidclf.errors import VidclfError

TABLE = """path,label,group,split,start_s,end_s
a.mp4,walk,anna,train,,
b.mp4,run,ben,val,1.5,4
b.mp4,walk,ben,val,4,
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4", "deep/c.mp4"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    return tmp_path / "data"


def listed(folder: Path, text: str | bytes, **settings: object) -> Manifest:
    file = folder / "videos.csv"
    content = text if isinstance(text, bytes) else text.encode()
    file.write_bytes(content)
    if not any("group".encode(code) in content for code in ("utf-8", "utf-16-le")):
        settings.setdefault("group", "file")
    return Manifest(file, **settings)  # type: ignore[arg-type]


def test_a_row_is_a_video_or_a_segment_of_one(folder: Path):
    dataset = listed(folder, TABLE)
    assert dataset.class_names == ["run", "walk"]
    assert [(v.path, v.label, v.group, v.part, v.start_s, v.end_s, v.name) for v in dataset.videos()] == [
        (folder / "a.mp4", 1, "anna", "train", None, None, "a.mp4"),
        (folder / "b.mp4", 0, "ben", "val", 1.5, 4, "b.mp4#1.5-4"),
        (folder / "b.mp4", 1, "ben", "val", 4, None, "b.mp4#4-"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + TABLE.encode(),
        TABLE.replace("\n", "\r\n").encode() + b"\r\n ,,,,,\r\n",
        TABLE.replace(",", " , ").encode(),
        b"\n" + TABLE.encode(),
        b"sep=,\r\n" + TABLE.encode(),
    ],
    ids=["byte order mark", "CRLF and an empty line", "blanks", "an empty line first", "Excel's separator"],
)
def test_tables_of_other_programs_give_the_same_videos(folder: Path, text: bytes):
    assert listed(folder, text).videos() == listed(folder, TABLE).videos()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE.replace(",", ";").replace("1.5", "1,5").encode(), "';' separates its columns"),
        (TABLE.replace(",", "\t").encode(), r"'\t' separates its columns"),
        (TABLE.encode("utf-16"), "videos.csv: it is UTF-16"),
        (TABLE.replace("path,label", "Path,LABEL").encode(), "the columns Path, LABEL are read in lower case"),
        (TABLE.replace("train", "Training").encode(), "in the column split, it reads Training as train"),
    ],
    ids=["semicolons and decimal commas", "tabs", "UTF-16", "capitalised columns", "another name of a part"],
)
def test_unambiguous_deviations_are_read_and_reported(
    folder: Path, text: bytes, message: str, capsys: pytest.CaptureFixture
):
    assert listed(folder, text).videos() == listed(folder, TABLE).videos()
    assert message in capsys.readouterr().err


def test_one_class_in_two_spellings_and_a_missing_label_are_reported(folder: Path, capsys: pytest.CaptureFixture):
    listed(folder, "path,label\na.mp4,1\nb.mp4,1.0\ndeep/c.mp4,10\nd.mp4,nan\n")
    said = capsys.readouterr().err
    assert "'1' and '1.0' may be one class in 2 spellings" in said
    assert "'10'" not in said
    assert "the label 'nan' may be a missing value" in said


def test_class_names_that_yaml_reads_as_other_values_need_quotes(folder: Path):
    with pytest.raises(VidclfError, match=r"true and null without quotes.*\"dataset\.classes=\['true','null'\]\""):
        listed(folder, "path,label\na.mp4,true\nb.mp4,null\n", classes=[True, None])


def test_paths_may_have_backslashes(folder: Path):
    (video, _) = listed(folder, "path,label\ndeep\\c.mp4,walk\na.mp4,run\n").videos()
    assert (video.path, video.name, video.group) == (folder / "deep/c.mp4", "deep/c.mp4", "deep/c.mp4")


def test_without_a_group_all_segments_of_a_file_are_in_one_group(folder: Path):
    text = "path,label,start_s,end_s\na.mp4,walk,0,1\n./a.mp4,run,1,2\nb.mp4,run,0,1\n"
    for groups in ("shared", "of_class"):
        units = [video.unit for video in listed(folder, text, groups=groups).videos()]
        assert units == [(-1, "a.mp4"), (-1, "a.mp4"), (-1, "b.mp4")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.mp4,walk\nb.mp4,\n", r"videos\.csv, line 3: label is empty"),
        ("path,label,group\na.mp4,walk,\nb.mp4,run,x\n", r"line 2: group is empty"),
        ("path,label,person\na.mp4,walk,x\n", r"unknown: person\).*It needs path and label, may have group"),
        ('sep=;\n"path";"class"\n"a.mp4";"walk"\n', r"\(unknown: class; missing: label\)"),
        ("path|label\na.mp4|walk\n", r"unknown: path\|label; missing: path, label\).*separates them by commas"),
        (",path,label\n0,a.mp4,walk\n", r"without a name, as pandas writes its index .*: column 1\)"),
        ("path,label,Path\na.mp4,walk,b.mp4\n", "there twice: path"),
        ("path,label,label\na.mp4,walk,run\n", "there twice: label"),
        ("path,label\na.mp4,walk,run\n", "line 2: it has 3 cells, the header 2"),
        ("path,label\n", "it has no rows"),
        ("", r"missing: path, label"),
        (TABLE.replace("1.5,4", "4,1.5"), r"line 3: start_s=4 is not before end_s=1\.5"),
        (TABLE.replace("1.5,4", ",0"), "line 3: start_s=0 is not before end_s=0"),
        (TABLE.replace("1.5,4", "-1,4"), "line 3: start_s=-1: must be seconds"),
        (TABLE.replace("1.5,4", "nan,4"), "line 3: start_s=nan: must be seconds"),
        (TABLE.replace("1.5,4", "1:30,4"), "line 3: start_s=1:30: must be seconds"),
        (TABLE.replace("1.5,4", '"1,5",4'), "line 3: start_s=1,5: must be seconds"),
        (TABLE.replace(",train,", ",practice,"), "line 2: split=practice: must be one of train, val, test"),
        ("path,label\na.mp4,walk\na.mp4,run\n", r"line 3 gives a\.mp4 the label run, line 2 gives it walk: a video"),
        ("path,label\na.mp4,walk\nb.mp4,run\na.mp4,walk\n", r"line 4 names a\.mp4 again, as line 2 does"),
        ('path,label\n"a.mp4,walk\nb.mp4,run\n', "not a CSV table"),
        (b"PK\x03\x04\x14\x00\xff", r"videos\.csv: a workbook or an archive, not text\. Save its table as CSV"),
        ("path,label\na.mp4,Übung\n".encode("latin-1"), r"videos\.csv: not UTF-8 text \(byte 17"),
        ("path,label\na.mp4,walk\n".encode("utf-16-le"), "zeros, as UTF-16 does"),
    ],
)
def test_a_table_with_an_error_is_refused(folder: Path, text: str | bytes, message: str):
    with pytest.raises(VidclfError, match=message):
        listed(folder, text).videos()


def test_without_a_column_group_a_rule_must_be_chosen(folder: Path):
    text = "path,label\na.mp4,walk\ndeep/c.mp4,run\n"
    with pytest.raises(VidclfError, match=r"(?s)dataset\.group must say which videos belong.*add a column group to"):
        listed(folder, text, group=None)
    with pytest.raises(VidclfError, match=r"dataset\.group=parent: .*has a column group"):
        listed(folder, TABLE, group="parent")
    assert [video.group for video in listed(folder, text, group=r"(\w)\.mp4").videos()] == ["a", "c"]
    with pytest.raises(DatasetError, match=r"line 2: a\.mp4 does not fit dataset\.group=parent") as refused:
        listed(folder, text, group="parent").videos()
    assert [video.group for video in refused.value.videos] == ["deep"]


def test_all_rows_with_an_error_are_counted_and_the_others_are_kept(folder: Path):
    text = "path,label,start_s\na.mp4,walk,x\nb.mp4,,\n../c.mp4,walk,\nb.mp4,run,\nb.mp4,run,\n"
    with pytest.raises(DatasetError, match=r"line 3: label is empty.* 3 more problem\(s\)") as refused:
        listed(folder, text).videos()
    assert [problem.partition("videos.csv")[2][:20] for problem in refused.value.problems] == [
        ", line 3: label is e", ": 1 path(s) are abso", ", line 2: start_s=x:", ", line 6 names b.mp4"
    ]  # fmt: skip
    assert [video.name for video in refused.value.videos] == ["b.mp4"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["zoom|in", "zoom|out", "pan"], "zoom|in, zoom|out looks like several labels"),
        (["a;b", "a", "b"], "a;b looks like several labels"),
        (['"[""a"",""b""]"', "c"], '["a","b"] looks like several labels'),
        (['"[""a"",""c""]"', '"[""b"",""c""]"'], 'csv: ["a","c"], ["b","c"] looks like several labels'),
        ([f"{number / 3:.3f}" for number in range(12)], "the 12 labels are numbers"),
        ([str(7 * number) for number in range(350)], "the 350 labels are numbers"),
    ],
)
def test_labels_that_are_no_classes_are_reported(
    folder: Path, labels: list[str], message: str, capsys: pytest.CaptureFixture
):
    listed(folder, "path,label\n" + "".join(f"{n}.mp4,{label}\n" for n, label in enumerate(labels)))
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "labels", [["Brush hair", "pick, place"], ["a|b", "c"], [str(n) for n in range(101)], ["0.5", "1", "2"]]
)
def test_unusual_names_of_classes_are_not_reported(folder: Path, labels: list[str], capsys: pytest.CaptureFixture):
    listed(folder, "path,label\n" + "".join(f'{n}.mp4,"{label}"\n' for n, label in enumerate(labels)))
    assert capsys.readouterr().err.count("\n") == 1  # that each file is a group


def test_paths_lead_out_of_the_folder_only_with_anywhere(folder: Path, tmp_path: Path):
    (tmp_path / "secret.mp4").touch()
    (folder / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (folder / "inside.mp4").symlink_to(folder / "a.mp4")
    paths = [str(folder / "a.mp4"), "../secret.mp4", "deep/../a.mp4", "..\\other.mp4", "link.mp4", r"C:\x.mp4"]
    rows = "".join(f"{path},walk\n" for path in [*paths, "inside.mp4"])
    text = f"path,label\n{rows}b.mp4,run\n"
    with pytest.raises(VidclfError, match=r"6 path\(s\) are absolute or lead out of its folder.*anywhere=true"):
        listed(folder, text).videos()
    assert len(listed(folder, text, anywhere=True).videos()) == 8


def test_missing_files_are_listed_and_fail_when_examined(folder: Path):
    (folder / "loop.mp4").symlink_to("loop.mp4")
    text = f"path,label\nloop.mp4,walk\n{'x' * 300}.mp4,run\nabsent.mp4,run\n"
    assert len(listed(folder, text).videos()) == 3


def test_a_class_name_may_look_like_a_path(folder: Path):
    dataset = listed(folder, "path,label\na.mp4,../../x\nb.mp4,run\n")
    assert dataset.class_names == ["../../x", "run"]
    assert dataset.videos()[0].name == "a.mp4"


def test_segments_of_a_file_in_several_groups_are_reported(folder: Path, capsys: pytest.CaptureFixture):
    listed(folder, "path,label,group,start_s,end_s\na.mp4,walk,anna,,2\na.mp4,run,ben,2,3\n").videos()
    assert "1 file(s) have segments in several groups" in capsys.readouterr().err


def test_overlapping_segments_with_different_labels_are_refused(folder: Path):
    rows = ["a.mp4,walk,0,2", "./a.mp4,run,1.5,", "b.mp4,walk,,3", "b.mp4,run,2,2.5", "b.mp4,walk,1,4"]
    with pytest.raises(
        VidclfError, match=r"a\.mp4 from 1\.5 s to 2 s \(walk, line 2; run, line 3\), b\.mp4 from 2 s to 2\.5"
    ):
        listed(folder, "\n".join(["path,label,start_s,end_s", *rows])).videos()
    apart = ["a.mp4,walk,0,1.5", "./a.mp4,run,1.5,", "b.mp4,walk,,3", "b.mp4,walk,2,4"]
    assert len(listed(folder, "\n".join(["path,label,start_s,end_s", *apart])).videos()) == 4


def test_parquet_gives_what_csv_gives(folder: Path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    columns = {
        "path": ["a.mp4", "b.mp4", "b.mp4"],
        "label": pyarrow.array(["walk", "run", "walk"]).dictionary_encode(),
        "group": ["anna", "ben", "ben"],
        "split": ["train", "val", "val"],
        "start_s": [None, 1.5, 4.0],
        "end_s": [float("nan"), 4.0, None],
    }
    write_table(pyarrow.table(columns), folder / "videos.parquet")
    assert Manifest(folder / "videos.parquet").videos() == listed(folder, TABLE).videos()
    write_table(pyarrow.table({"path": ["a.mp4"], "label": [["walk", "run"]]}), folder / "several.parquet")
    with pytest.raises(VidclfError, match=r"row 1: label is a list; .* A video has one label"):
        Manifest(folder / "several.parquet")
    (folder / "none.parquet").write_bytes(b"PAR1 is not enough")
    with pytest.raises(VidclfError, match=r"none\.parquet: Parquet cannot read it"):
        Manifest(folder / "none.parquet")


@pytest.mark.parametrize("column", ["path", "split"])
def test_a_small_parquet_file_that_would_fill_the_memory_is_refused(column: str, folder: Path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    names = [f"{number}.mp4" for number in range(1000)]
    columns = {"path": names, "label": ["walk"] * 1000} | {column: ["x" * 100_000] * 1000}
    write_table(pyarrow.table(columns), folder / "bomb.parquet")
    write_table(pyarrow.table({"path": ["a"] * 10**6, "label": ["b"] * 10**6}), folder / "rows.parquet")
    for name in ("bomb", "rows"):
        with pytest.raises(VidclfError, match=rf"{name}\.parquet: [12]\d+ rows and \d+ MB in a file of \d\.\d MB"):
            Manifest(folder / f"{name}.parquet", group="file")


def test_a_parquet_file_that_understates_its_size_is_read_no_further_than_it_may(folder: Path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import ParquetFile, write_table

    path = folder / "bomb.parquet"
    table = pyarrow.table(dict.fromkeys(("path", "label"), ["x" * 2**20] * 100))
    write_table(table, path, compression="zstd", use_dictionary=False, row_group_size=1)
    content = path.read_bytes()
    with ParquetFile(path) as parquet:
        sizes = {parquet.metadata.row_group(number).total_byte_size for number in range(100)}
    for size in sizes:  # a varint, of twice the number; 0 in as many bytes
        stated = bytes((2 * size >> 7 * place & 127) | (128 * (2 * size >> 7 * place > 127)) for place in range(4))
        assert stated in content
        content = content.replace(stated, b"\x80\x80\x80\0")
    path.write_bytes(content)
    with pytest.raises(VidclfError, match=r"bomb\.parquet: 100 rows and 210 MB in a file of 0\.\d MB"):
        Manifest(path, group="file")
    del table
    assert pyarrow.total_allocated_bytes() < 2**20


@pytest.mark.parametrize("installed", [None, "13.0.0"])
def test_parquet_needs_a_safe_pyarrow(folder: Path, installed: str | None, monkeypatch: pytest.MonkeyPatch):
    from importlib.metadata import PackageNotFoundError

    def version(name: str) -> str:
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr("vidclf.system.extras.version", version)
    (folder / "videos.parquet").touch()
    with pytest.raises(VidclfError, match=r"Parquet needs pyarrow 17\.0\.0 or newer.*pip install 'vidclf\[parquet\]'"):
        Manifest(folder / "videos.parquet")

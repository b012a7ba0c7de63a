import csv
import os
import re
import shutil
from pathlib import Path

import pytest
from doubles import UCF101Official as Official

from vidclf.data.datasets.ucf101 import UCF101
from vidclf.errors import VidclfError

SHARED = Path(os.environ.get("VIDCLF_SHARED") or Path(__file__).parents[1] / "../shared")
NAMES = [
    "Archery/v_Archery_g01_c01.avi",
    "Archery/v_Archery_g08_c02.avi",
    "HandstandPushups/v_HandStandPushups_g01_c01.avi",
    "YoYo/v_YoYo_g25_c05.avi",
]


def write_clips(root, names):
    """Listing reads names only, so empty files stand for clips."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write_lists(folder, train, test, classes=("Archery", "HandstandPushups", "YoYo")):
    """Official lists, with line ends and labels as they are published."""
    folder.mkdir(parents=True)
    lines = {
        "classInd.txt": [f"{i} {name}" for i, name in enumerate(classes, 1)],
        "trainlist01.txt": [f"{name} 1" for name in train],
        "testlist01.txt": test,
    }
    for file, content in lines.items():
        (folder / file).write_bytes("".join(f"{line}\r\n" for line in content).encode())
    return folder


@pytest.fixture
def tree(tmp_path):
    return write_clips(tmp_path / "UCF-101", NAMES)


@pytest.fixture
def lists(tmp_path):
    return write_lists(tmp_path / "lists", train=NAMES[1:2] + NAMES[3:], test=[NAMES[0], NAMES[2]])


@pytest.fixture
def official():
    if not (SHARED / "ucf101").is_dir():
        pytest.skip("needs UCF101's lists below VIDCLF_SHARED")
    return SHARED / "ucf101"


def test_label_is_the_folder_and_group_is_in_the_file_name(tree):
    dataset = UCF101(tree)
    assert dataset.class_names == ["Archery", "HandstandPushups", "YoYo"]
    assert [(v.name, v.label, v.group) for v in dataset.videos()] == [
        (NAMES[0], 0, "g01"),
        (NAMES[1], 0, "g08"),
        (NAMES[2], 1, "g01"),
        (NAMES[3], 2, "g25"),
    ]
    assert [v.path for v in dataset.videos()] == [tree / name for name in NAMES]


def test_a_flat_folder_gives_the_names_and_labels_of_the_tree(tree, tmp_path):
    flat = write_clips(tmp_path / "flat", [name.partition("/")[2] for name in NAMES])
    in_tree, in_flat = ([(v.name, v.label, v.group) for v in UCF101(r).videos()] for r in (tree, flat))
    assert in_flat == in_tree


def test_the_root_may_have_spaces_commas_equal_signs_and_umlauts(tree, tmp_path):
    odd = tree.rename(tmp_path / "Übung, a=1 (neu)")
    assert [v.path for v in UCF101(str(odd)).videos()] == [odd / name for name in NAMES]


def test_hidden_files_and_other_files_are_ignored_and_the_extension_may_be_upper_case(tree):
    write_clips(tree, ["Archery/._v_Archery_g01_c01.avi", "YoYo/.DS_Store", ".cache/x.avi", "YoYo/notes.txt"])
    (tree / NAMES[3]).rename(tree / "YoYo/v_YoYo_g25_c05.AVI")
    videos = UCF101(tree).videos()
    assert [v.name for v in videos] == NAMES
    assert videos[3].path.suffix == ".AVI"


def test_classes_sort_without_regard_to_case(tmp_path):
    names = [f"{c}/v_{c}_g01_c01.avi" for c in ("HammerThrow", "Hammering", "JumpRope", "JumpingJack")]
    dataset = UCF101(write_clips(tmp_path, names))
    assert dataset.class_names == ["Hammering", "HammerThrow", "JumpingJack", "JumpRope"]


def test_class_ind_sets_the_order(tree, tmp_path):
    lists = write_lists(tmp_path / "lists", NAMES[:2], NAMES[2:], ["YoYo", "HandstandPushups", "Archery"])
    assert UCF101(tree, lists=lists).class_names == ["YoYo", "HandstandPushups", "Archery"]
    assert UCF101(tree, lists=lists).videos()[0].name == NAMES[3]


@pytest.mark.slow
def test_all_13320_clips_are_listed_alike_from_a_tree_and_a_flat_folder(official, tmp_path):
    with open(official / "frame_counts.csv", newline="") as file:
        names = [row["video"] for row in csv.DictReader(file)]
    tree = write_clips(tmp_path / "tree", names)
    flat = write_clips(tmp_path / "flat", [name.partition("/")[2] for name in names])
    with_lists = UCF101(tree, lists=official)
    without_lists = UCF101(tree)
    videos = without_lists.videos()
    assert len(videos) == 13_320
    assert sorted(v.name for v in videos) == sorted(names)
    assert without_lists.class_names == with_lists.class_names
    assert with_lists.videos() == videos
    assert [(v.name, v.label, v.group) for v in UCF101(flat).videos()] == [(v.name, v.label, v.group) for v in videos]


def test_classes_take_a_subset_in_the_official_order(tree, lists):
    dataset = UCF101(tree, lists=lists, classes=["YoYo", "Archery"])
    assert dataset.class_names == ["Archery", "YoYo"]
    assert [v.name for v in dataset.videos()] == [NAMES[0], NAMES[1], NAMES[3]]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["Archry"], r"Archry is not one of the 3 classes\. Did you mean Archery\? Allowed: Archery, Hand"),
        (["Q"], r"Q is not one of the 3 classes\. Allowed: Archery, HandstandPushups, YoYo"),
        (["YoYo", "Archery", "YoYo"], r"names YoYo more than once"),
        ([], r"classes=\[\]: must be a list"),
        ("YoYo", r"classes=YoYo: must be a list"),
    ],
)
def test_classes_that_are_unknown_repeated_or_not_a_list_are_refused(tree, classes, message):
    with pytest.raises(VidclfError, match=message):
        UCF101(tree, classes=classes)


def test_on_error_is_raise_or_skip(tree):
    assert [UCF101(tree, on_error=choice).on_error for choice in ("raise", "skip")] == ["raise", "skip"]
    with pytest.raises(VidclfError, match="on_error=ignore: must be raise or skip"):
        UCF101(tree, on_error="ignore")


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("absent", "there is no such folder"),
        ("empty", "no .avi file in it and no folders"),
        ("hollow", r"no .avi file in it nor in its folders \(Archery\)"),
    ],
)
def test_a_missing_or_empty_root_shows_the_expected_tree(tmp_path, folder, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow/Archery").mkdir(parents=True)
    root = tmp_path / folder
    tree = f"{message}(.|\n)*{re.escape(str(root))}/Archery/v_Archery_g01_c01.avi"
    with pytest.raises(VidclfError, match=tree):
        UCF101(root)


def test_a_root_one_level_too_high_names_the_folder_to_use(tree):
    with pytest.raises(VidclfError, match=f"one level down: set dataset.root={re.escape(str(tree))}"):
        UCF101(tree.parent)


def test_loose_clips_beside_class_folders_are_refused(tree):
    write_clips(tree, ["v_Biking_g01_c01.avi"])
    with pytest.raises(VidclfError, match=r"class folders \(Archery.*loose clips \(v_Biking_g01_c01.avi\)"):
        UCF101(tree)


def test_an_empty_class_folder_is_refused_unless_its_class_is_left_out(tree):
    (tree / "Biking").mkdir()
    with pytest.raises(VidclfError, match=r"UCF-101/Biking: the class folder holds no \.avi file"):
        UCF101(tree).videos()
    assert len(UCF101(tree, classes=["Archery"]).videos()) == 2


@pytest.mark.parametrize("name", ["archery.avi", "v_Archery_c01.avi", "v_Archery_g01_c01 (1).avi"])
@pytest.mark.parametrize("folder", ["Archery", ""])
def test_a_file_name_without_a_group_is_refused(tmp_path, folder, name):
    write_clips(tmp_path, [f"{folder}/{name}".lstrip("/")])
    with pytest.raises(VidclfError, match=rf"{re.escape(name)}: the file name has no group"):
        UCF101(tmp_path).videos()


def test_a_file_name_in_two_folders_is_refused(tree):
    write_clips(tree, ["YoYo/v_Archery_g01_c01.avi"])
    with pytest.raises(VidclfError, match=r"v_Archery_g01_c01\.avi is there 2 times: .*Archery/.*YoYo/"):
        UCF101(tree).videos()


def test_missing_listed_videos_are_refused_or_counted(tree, lists):
    for name in NAMES[1:3]:
        (tree / name).unlink()
    (tree / "HandstandPushups").rmdir()
    what = rf"2 of 4 videos .* are not in .*: {NAMES[1]}, {NAMES[2]}\."
    with pytest.raises(VidclfError, match=what + ".*allow_missing=true"):
        UCF101(tree, lists=lists).videos()
    lenient = UCF101(tree, lists=lists, allow_missing=True)
    with pytest.warns(UserWarning, match=what):
        videos = lenient.videos()
    # The labels stay those of the complete data set.
    assert [(v.name, v.label) for v in videos] == [(NAMES[0], 0), (NAMES[3], 2)]


def test_only_the_first_five_missing_videos_are_named(tree, tmp_path):
    absent = [f"YoYo/v_YoYo_g0{group}_c01.avi" for group in range(1, 8)]
    lists = write_lists(tmp_path / "lists", train=NAMES, test=absent)
    with pytest.raises(VidclfError, match=rf"7 of 11 .*{absent[4]} and 2 more\."):
        UCF101(tree, lists=lists).videos()


def test_missing_videos_of_other_classes_do_not_matter(tree, lists):
    (tree / NAMES[0]).unlink()
    assert len(UCF101(tree, lists=lists, classes=["YoYo"]).videos()) == 1


def test_videos_that_no_list_names_are_refused(tree, lists):
    write_clips(tree, ["YoYo/v_YoYo_g26_c01.avi"])
    with pytest.raises(VidclfError, match=r"1 of 5 videos .* named by no list .*v_YoYo_g26_c01"):
        UCF101(tree, lists=lists).videos()


def test_class_folders_that_class_ind_does_not_name_are_refused(tree, lists):
    write_clips(tree, ["Juggling/v_Juggling_g01_c01.avi"])
    with pytest.raises(VidclfError, match=r"1 class\(es\) that classInd.txt does not name: Juggling"):
        UCF101(tree, lists=lists)


@pytest.mark.parametrize(("folder", "message"), [("absent", "no such folder"), ("UCF-101", "holds no train")])
def test_a_lists_folder_that_is_missing_or_has_no_lists_is_refused(tree, folder, message):
    with pytest.raises(VidclfError, match=rf"dataset\.lists=.*{folder}: .*{message}"):
        UCF101(tree, lists=tree.parent / folder).videos()


# Lists as other programs write them; mixed folders


@pytest.fixture
def case_tree(shared, tmp_path):
    names = (shared / "cases/lists/plain/trainlist01.txt").read_text() + (
        shared / "cases/lists/plain/testlist01.txt"
    ).read_text()
    return write_clips(tmp_path / "small", [line.split()[0] for line in names.splitlines()])


@pytest.mark.parametrize("case", ["bom", "bom2", "back", "utf16"])
def test_lists_with_a_byte_order_mark_line_ends_or_backslashes_give_the_same_videos(shared, case_tree, case):
    plain, other = (UCF101(case_tree, lists=shared / "cases/lists" / name) for name in ("plain", case))
    assert other.class_names == plain.class_names
    assert other.videos() == plain.videos()
    ones = [1] * len(plain.videos())
    splits = [Official(lists=dataset.lists, val_fraction=0.5)(dataset.videos(), ones) for dataset in (plain, other)]
    assert splits[0].fingerprint == splits[1].fingerprint


def test_a_list_in_another_encoding_is_named(tree, lists):
    (lists / "classInd.txt").write_bytes("1 Übung\n".encode("latin-1"))
    with pytest.raises(VidclfError, match=r"classInd\.txt: not UTF-8 text"):
        UCF101(tree, lists=lists)


def test_class_ind_is_read_by_its_numbers(tree, lists):
    (lists / "classInd.txt").write_text("3 YoYo\n1 HandstandPushups  \n\n2 Archery\n")
    assert UCF101(tree, lists=lists).class_names == ["HandstandPushups", "Archery", "YoYo"]


def test_other_kinds_of_video_are_counted_and_skipped(shared, tree, capsys):
    shutil.copy(shared / "cases/mixed_extensions/v_Archery_g11_c01.mp4", tree / "Archery")
    (tree / "Archery" / "v_Archery_g12_c01.MOV").touch()
    assert len(UCF101(tree).videos()) == 4
    said = capsys.readouterr().err
    assert "2 video file(s) are not .avi, as UCF101's are, and are skipped: Archery/v_Archery_g11_c01.mp4, Arch" in said
    UCF101(tree, classes=["YoYo", "HandstandPushups"])
    assert not capsys.readouterr().err

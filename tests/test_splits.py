import csv
import os
from collections import Counter
from pathlib import Path

import pytest
from doubles import UCF101Official as Official

from vidclf.contracts import Video
from vidclf.data.datasets.ucf101 import is_test_group, official_parts
from vidclf.data.splits import hold_groups_back
from vidclf.errors import VidclfError

SHARED = Path(os.environ.get("VIDCLF_SHARED") or Path(__file__).parents[1] / "../shared")


def clip(label, group, number):
    name = f"v_Class{label}_g{group:02d}_c{number:02d}.avi"
    return Video(Path(f"Class{label}", name), label, f"g{group:02d}")


def make_videos(num_classes=3, groups=range(1, 26), clips=2):
    return [
        clip(label, group, number) for label in range(num_classes) for group in groups for number in range(1, clips + 1)
    ]


def write_lists(folder, train, test, number=1):
    folder.mkdir(exist_ok=True)
    (folder / f"trainlist{number:02d}.txt").write_text("".join(f"{v.name} {v.label + 1}\r\n" for v in train))
    (folder / f"testlist{number:02d}.txt").write_text("".join(f"{v.name}\r\n" for v in test))
    return folder


def group_keys(videos, split, part):
    return {(videos[i].label, videos[i].group) for i, _ in split.views_of(part)}


@pytest.fixture(scope="module")
def official():
    if not (SHARED / "ucf101").is_dir():
        pytest.skip("needs UCF101's lists below VIDCLF_SHARED")
    return SHARED / "ucf101"


@pytest.fixture(scope="module")
def ucf101(official):
    """Every clip of UCF101, by name."""
    with open(official / "frame_counts.csv", newline="") as file:
        names = [row["video"] for row in csv.DictReader(file)]
    labels = {name: label for label, name in enumerate(sorted({n.partition("/")[0] for n in names}))}
    return [Video(Path(n), labels[n.partition("/")[0]], n.rpartition("_g")[2][:2]) for n in names]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "num_test"), [(1, 3783), (2, 3734), (3, 3696)])
def test_groups_and_official_lists_give_the_same_sets_for_all_13320_names(ucf101, official, number, num_test):
    by_group = [is_test_group(video, number) for video in ucf101]
    assert len(by_group) == 13_320
    assert sum(by_group) == num_test
    assert [part == "test" for part in official_parts(ucf101, number, official).parts] == by_group


@pytest.mark.slow
def test_every_class_of_ucf101_has_about_a_fifth_of_its_train_videos_in_val(ucf101, official):
    ones = [1] * len(ucf101)
    split = Official()(ucf101, ones)
    assert split == Official(lists=official)(ucf101, ones)
    train, val = (Counter(ucf101[i].label for i, _ in split.views_of(part)) for part in ("train", "val"))
    shares = [val[label] / (val[label] + train[label]) for label in range(101)]
    assert min(shares) > 0.15  # four groups of eighteen, of four to seven clips each
    assert max(shares) < 0.30


def test_frame_level_gives_the_tutorials_59075_and_14769_frames():
    videos = make_videos(num_classes=4, groups=range(8, 10), clips=1)
    num_views = [9_230] * 6 + [9_232, 9_232]
    with pytest.warns(UserWarning, match="both train and val"):
        split = Official(validation="frame_level")(videos, num_views)
    sizes = [sum(len(views) for _, views in split.views_of(part)) for part in ("train", "val")]
    assert sum(num_views) == 73_844
    assert sizes == [59_075, 14_769]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_no_group_is_in_two_parts(number):
    videos = make_videos()
    split = Official(number)(videos, [3] * len(videos))
    parts = [group_keys(videos, split, part) for part in ("train", "val", "test")]
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 3 * 25
    assert {group for _, group in parts[2]} == {f"g{g:02d}" for g in range(7 * number - 6, 7 * number + 1)}


def test_groups_are_drawn_per_class():
    videos = make_videos(num_classes=8)
    validating = group_keys(videos, split=Official()(videos, [1] * len(videos)), part="val")
    of_class = [{group for label, group in validating if label == k} for k in range(8)]
    assert any(groups != of_class[0] for groups in of_class)


def test_every_view_is_in_exactly_one_part():
    videos = make_videos()
    num_views = [1 + i % 4 for i in range(len(videos))]
    with pytest.warns(UserWarning, match="both train and val"):
        by_frame = Official(validation="frame_level")(videos, num_views)
    for split in (Official()(videos, num_views), by_frame):
        views = [
            (i, view) for part in ("train", "val", "test") for i, numbers in split.views_of(part) for view in numbers
        ]
        assert sorted(views) == [(i, view) for i, count in enumerate(num_views) for view in range(count)]


def test_frame_level_puts_views_of_one_video_into_train_and_val_and_warns():
    videos = make_videos()
    with pytest.warns(UserWarning, match="frame_level puts views of one video into both train and val"):
        split = Official(validation="frame_level")(videos, [5] * len(videos))
    train, val, test = (dict(split.views_of(part)) for part in ("train", "val", "test"))
    assert len(train.keys() & val.keys()) > len(train) / 2
    assert not test.keys() & (train.keys() | val.keys())
    assert sum(map(len, val.values())) == 0.2 * 5 * 18 * 2 * 3
    per_class = Counter(videos[i].label for i, views in val.items() for _ in views)
    assert set(per_class.values()) == {36}
    assert set(dict(split.rows()).values()) >= {"train", "train+val", "test"}


def test_per_view_says_whether_single_views_have_parts():
    assert Official(validation="frame_level").per_view
    assert not Official().per_view


def test_rows_name_every_video_and_its_part():
    videos = make_videos(num_classes=1, groups=[1, 8, 9], clips=1)
    rows = Official(val_fraction=0.5)(videos, [1, 2, 3]).rows()
    assert rows[0] == ("Class0/v_Class0_g01_c01.avi", "test")
    assert [name for name, _ in rows] == [video.name for video in videos]
    assert sorted(part for _, part in rows[1:]) == ["train", "val"]


def test_two_videos_of_one_file_name_are_two():
    videos = [
        Video(Path("/data/A/x/a.mp4"), 0, "g01"),
        Video(Path("/data/A/y/a.mp4"), 0, "g08"),
        Video(Path("/data/A/y/a.mp4"), 0, "g09", start_s=1.5),
    ]
    rows = Official(val_fraction=0.5)(videos, [1, 1, 1]).rows()
    assert [name for name, _ in rows] == ["/data/A/x/a.mp4", "/data/A/y/a.mp4", "/data/A/y/a.mp4#1.5-"]


def test_fingerprint_depends_on_parts_and_names_but_not_on_order_or_number_of_views():
    videos = make_videos()
    ones = [1] * len(videos)
    split = Official()(videos, ones)
    assert len(split.fingerprint) == 64
    assert Official()(videos, [7] * len(videos)).fingerprint == split.fingerprint
    assert Official()(videos[::-1], ones).fingerprint == split.fingerprint
    assert Official(seed=1)(videos, ones).fingerprint != split.fingerprint
    assert Official(2)(videos, ones).fingerprint != split.fingerprint
    assert Official()(videos[1:], ones[1:]).fingerprint != split.fingerprint


def test_frame_level_fingerprint_depends_on_which_views_validate():
    videos = make_videos()
    with pytest.warns(UserWarning, match="both train and val"):
        prints = {
            Official(validation="frame_level", seed=seed)(videos, [count] * len(videos)).fingerprint
            for seed, count in [(0, 5), (0, 5), (1, 5), (0, 6)]
        }
    assert len(prints) == 3


def test_a_video_without_views_keeps_its_part():
    videos = make_videos()
    split = Official()(videos, [0] + [1] * (len(videos) - 1))
    assert split.fingerprint == Official()(videos, [1] * len(videos)).fingerprint
    assert all(i != 0 for part in ("train", "val", "test") for i, _ in split.views_of(part))


@pytest.mark.parametrize(("fraction", "of_25", "of_7", "of_3"), [(0.2, 5, 1, 1), (0.3, 8, 2, 1), (0.5, 12, 4, 2)])
def test_each_class_gives_its_fraction_of_groups_and_at_least_one(fraction: float, of_25: int, of_7: int, of_3: int):
    """Groups 1 to 7 are the test part; classes have 25, 7, 3 and 2 other groups."""
    numbers = (25, 7, 3, 2)
    videos = [
        clip(label, group, number)
        for label, count in enumerate(numbers)
        for group in (1, *range(8, 8 + count))
        for number in (1, 2, 3)[: 1 + group % 3]
    ]
    held = group_keys(videos, Official(val_fraction=fraction)(videos, [1] * len(videos)), "val")
    assert Counter(label for label, _ in held) == {0: of_25, 1: of_7, 2: of_3, 3: 1}


def test_a_class_keeps_a_group_to_train_on_whatever_the_fraction():
    videos = [clip(0, group, number) for group in (8, 9, 10) for number in (1, 2)]
    parts = hold_groups_back(videos, ["train"] * len(videos), fraction=0.9, seed=0)
    assert len({video.group for video, part in zip(videos, parts, strict=True) if part == "val"}) == 2


def test_a_rare_class_does_not_change_the_draw_of_the_rest():
    common = make_videos(num_classes=3)
    rare = [clip(3, group, 1) for group in (8, 9)]
    alone, beside = (group_keys(v, Official()(v, [1] * len(v)), "val") for v in (common, common + rare))
    assert {key for key in beside if key[0] != 3} == alone
    assert len({key for key in beside if key[0] == 3}) == 1


def test_classes_with_fewer_than_two_train_groups_are_named():
    videos = [*make_videos(num_classes=2), clip(2, 8, 1), clip(2, 8, 2), clip(3, 1, 1)]
    with pytest.raises(VidclfError, match=r"2 class\(es\) have fewer than two groups .*: Class2, Class3\."):
        Official()(videos, [1] * len(videos))


def test_frame_level_with_too_few_views_is_refused():
    videos = make_videos(num_classes=3, groups=[8], clips=1)
    with (
        pytest.warns(UserWarning, match="both train and val"),
        pytest.raises(VidclfError, match="3 train views are too few to take 20% of every class"),
    ):
        Official(validation="frame_level")(videos, [1] * len(videos))


def test_frame_level_that_leaves_a_class_without_validation_is_refused():
    videos = [*make_videos(num_classes=1, groups=[8], clips=20), clip(1, 8, 1), clip(1, 8, 2)]
    with (
        pytest.warns(UserWarning, match="both train and val"),
        pytest.raises(VidclfError, match=r"1 class\(es\) have no val video: Class1"),
    ):
        Official(validation="frame_level", val_fraction=0.1)(videos, [1] * len(videos))


@pytest.mark.parametrize("validation", ["group", "frame_level"])
@pytest.mark.filterwarnings("ignore:split.validation=frame_level")
def test_lists_that_put_a_group_into_two_parts_are_refused(tmp_path, validation):
    videos = make_videos()
    crossing = [v for v in videos if v.group == "g03" and v.path.stem.endswith("c01")]
    test = [v for v in videos if v.group in ("g01", "g02")] + crossing
    lists = write_lists(tmp_path, [v for v in videos if v not in test], test)
    with pytest.raises(VidclfError, match=r"Group g03 of Class0 is in both test and (train|val)"):
        Official(validation=validation, lists=lists)(videos, [5] * len(videos))


def test_lists_that_name_a_video_never_or_twice_are_refused(tmp_path):
    videos = make_videos(num_classes=1)
    lists = write_lists(tmp_path, train=videos[2:], test=videos[1:3])
    message = r"2 of 50 videos are not in exactly one .*_g01_c01\.avi, .*_g02_c01\.avi\."
    with pytest.raises(VidclfError, match=message):
        Official(lists=lists)(videos, [1] * len(videos))


def test_missing_videos_of_the_test_list_are_counted(tmp_path):
    videos = make_videos(num_classes=2)
    test = [video for video in videos if video.group in ("g01", "g02")]
    lists = write_lists(tmp_path, [video for video in videos if video not in test], test)
    there = [video for video in videos if video not in test[:3]]
    ones = [1] * len(there)
    assert Official(lists=lists)(there, ones).num_missing == 3
    of_one_class = [video for video in there if video.label == 1]
    assert Official(lists=lists)(of_one_class, ones[: len(of_one_class)]).num_missing == sum(
        video.label == 1 for video in test[:3]
    )


def test_a_missing_list_is_named(tmp_path):
    lists = write_lists(tmp_path, [], [])
    with pytest.raises(VidclfError, match=r"trainlist02\.txt: it cannot be read \(No such file.*Set dataset\.lists to"):
        Official(2, lists=lists)(make_videos(), [1] * 150)


def test_groups_without_a_number_and_no_videos_at_all_are_refused():
    with pytest.raises(VidclfError, match="its group is 'left'; split=official needs g01"):
        Official()([Video(Path("a/b.avi"), 0, "left")], [1])
    with pytest.raises(VidclfError, match="no videos to split"):
        Official()([], [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": "frames"}, r"split\.validation=frames: must be group or frame_level"),
        ({"val_fraction": 0.0}, r"split\.val_fraction=0\.0: must be above 0 and at most 0\.5"),
        ({"val_fraction": 0.6}, r"split\.val_fraction=0\.6"),
    ],
)
def test_arguments_that_make_no_split_are_refused(arguments, message):
    with pytest.raises(VidclfError, match=message):
        Official(**arguments)


def test_a_part_that_does_not_exist_is_refused():
    videos = make_videos()
    with pytest.raises(VidclfError, match="validation is not a part of a split; allowed are train, val, test"):
        Official()(videos, [1] * len(videos)).views_of("validation")

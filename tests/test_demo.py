from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import pytest
import torch
from av.video.frame import PictureType
from doubles import UCF101Official as Official
from doubles import make_corpus

from vidclf.data.datasets import demo
from vidclf.data.datasets.demo import ABOUT, ABOUT_FILE, Demo, ensure_written
from vidclf.data.datasets.demo.clips import (
    CLIPS_PER_GROUP,
    CREDIT,
    CYCLES_PER_FRAME,
    DURATIONS_S,
    FPS,
    OTHER_SAMPLES,
    PAIRS,
    SHOWN_DIGITS,
    SIDE,
    TEST_GROUPS,
    TEST_SAMPLES,
    draw,
    encode,
    handwriting,
    photographs,
    scenes,
    slide,
    spin,
    sway,
    zoom,
)
from vidclf.data.decoding import decode_frames, inspect
from vidclf.data.sampling import Rate, Uniform
from vidclf.errors import VidclfError

FEW = [scene for scene in scenes() if scene.group in (1, 8)]
ALL_NAMES = [name for scene in scenes() for name in scene.names()]
OPPOSITE = {forward: backward for _, forward, backward in PAIRS}


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Groups 1 (test) and 8 (train) of all classes, as the whole demo has them."""
    root = tmp_path_factory.mktemp("few") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "scenes", lambda: FEW)
        ensure_written(root)
    return root


@pytest.fixture
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the demo of a single scene, so that writing it takes no time."""
    monkeypatch.setattr(demo, "scenes", lambda: FEW[:1])


def all_frames(path: Path) -> torch.Tensor:
    return decode_frames(path, torch.arange(inspect(path).num_frames))


def drawn(name: str) -> torch.Tensor:
    return next(frames for scene in scenes() if name in scene.names() for clip, frames in scene.clips() if clip == name)


def background(frames: torch.Tensor) -> torch.Tensor:
    """The digit is white, so the darkest value that a pixel takes is the background's."""
    return frames.amin(0)


def test_the_demo_has_ucf101s_names_and_eight_balanced_classes():
    assert len(set(ALL_NAMES)) == len(ALL_NAMES) == demo.NUM_CLIPS == 8 * 25 * CLIPS_PER_GROUP
    assert set(Counter(name.partition("/")[0] for name in ALL_NAMES).values()) == {25 * CLIPS_PER_GROUP}
    assert "SlideLeft/v_SlideLeft_g01_c01.avi" in ALL_NAMES


def test_listed_classes_groups_and_credit(small_demo, monkeypatch):
    monkeypatch.setattr(demo, "scenes", lambda: FEW)
    dataset = Demo(small_demo)
    pairs = ["SlideLeft", "SlideRight", "SpinClockwise", "SpinCounterclockwise", "ZoomIn", "ZoomOut"]
    assert dataset.class_names == ["ShowEight", "ShowZero", *pairs]
    num_clips = 2 * CLIPS_PER_GROUP
    assert [video.label for video in dataset.videos()] == [label for label in range(8) for _ in range(num_clips)]
    assert {video.group for video in dataset.videos()} == {"g01", "g08"}
    assert "danielbuechele" in dataset.credit
    assert "vultilion" in (small_demo / ABOUT_FILE).read_text()
    assert [video.label for video in Demo(small_demo, classes=["ZoomOut"]).videos()] == [0] * 2 * CLIPS_PER_GROUP


def test_split_1_tests_on_the_groups_that_are_written_in_pairs(small_demo, monkeypatch):
    monkeypatch.setattr(demo, "scenes", lambda: FEW)
    videos = Demo(small_demo).videos()
    split = Official(number=1, validation="frame_level")
    with pytest.warns(UserWarning, match="frame_level"):
        test = split(videos, [3] * len(videos)).views_of("test")
    assert {int(videos[i].group[1:]) for i, _ in test} == {1}
    assert list(TEST_GROUPS) == [1, 2, 3, 4, 5, 6, 7]


def test_a_clip_is_an_xvid_avi_of_25k_plus_1_frames_with_b_frames(small_demo):
    for path in sorted(small_demo.glob("*/*_c01.avi")):
        info = inspect(path)
        assert (info.num_frames - 1) / FPS in DURATIONS_S
        assert (info.fps, info.width, info.height) == (25, SIDE, SIDE)
        with av.open(path) as container:
            kinds = {PictureType(frame.pict_type).name for frame in container.decode(video=0)}
            assert container.streams.video[0].codec_context.codec_tag == "XVID"
        assert kinds == {"I", "P", "B"}


@pytest.mark.parametrize("forward", OPPOSITE)
def test_every_test_clip_has_its_exact_time_reverse_in_the_paired_class(forward):
    opposite = OPPOSITE[forward]
    for group in TEST_GROUPS:
        clips = dict(
            pair for scene in scenes() if scene.group == group and scene.forward == forward for pair in scene.clips()
        )
        for name in [name for name in clips if name.startswith(forward)]:
            reverse = clips.pop(name.replace(forward, opposite))
            assert torch.equal(reverse, clips[name].flip(0))
            assert not torch.equal(reverse, clips[name])


@pytest.mark.parametrize("forward", OPPOSITE)
def test_frames_a_second_apart_decode_to_the_same_bits_backwards(small_demo, forward):
    for clip in range(1, CLIPS_PER_GROUP + 1):
        paths = [small_demo / name / f"v_{name}_g01_c{clip:02d}.avi" for name in (forward, OPPOSITE[forward])]
        one, other = (all_frames(path) for path in paths)
        seconds = Rate(1)(len(one), FPS)[:, 0]
        assert torch.equal(one[seconds], other[seconds].flip(0))
        assert not torch.equal(one[seconds], other[seconds])
        difference = (one.int() - other.flip(0).int()).abs().float()
        assert difference.mean() < 3  # between key frames the codec knows the direction; hardly


def test_frames_as_decoded_are_the_frames_as_drawn(small_demo):
    for name in ("ZoomIn/v_ZoomIn_g08_c02.avi", "ShowEight/v_ShowEight_g01_c01.avi"):
        difference = all_frames(small_demo / name).float() - drawn(name).float()
        assert difference.abs().mean() < 6
        assert difference.mean().abs() < 1.5


def test_clips_of_a_group_share_background_and_handwriting_and_groups_do_not():
    grounds: dict[str, torch.Tensor] = {}
    for scene in FEW:
        for name, frames in scene.clips():
            grounds.setdefault(f"{name.partition('/')[0]} {scene.group}", background(frames))
            if scene.motion in (slide, sway):  # the digit leaves every pixel free for a while
                pixels = grounds[f"{name.partition('/')[0]} {scene.group}"]
                assert (background(frames) == pixels).float().mean() > 0.7
    for key, ground in grounds.items():
        same = {other for other in grounds if (grounds[other] == ground).float().mean() > 0.5}
        label, group = key.split()
        pair = next((set(pair[1:]) for pair in PAIRS if label in pair), {label})
        assert same == ({f"{member} 1" for member in pair} if group == "1" else {key})


def test_only_test_groups_show_the_test_handwriting():
    for digit in range(10):
        tested, others = handwriting(digit)[TEST_SAMPLES], handwriting(digit)[OTHER_SAMPLES]
        assert len(tested) == 60
        assert len(others) > 100
        assert (torch.cdist(tested.flatten(1), others.flatten(1)) > 0).all()


def test_the_digit_distinguishes_the_shown_classes_and_no_pair():
    digits = {
        name: [s.digit for s in scenes() if name in (s.forward, s.backward)] for name in [*SHOWN_DIGITS, "ZoomIn"]
    }
    assert {name: set(digits[name]) for name in SHOWN_DIGITS} == {"ShowEight": {8}, "ShowZero": {0}}
    assert not set(digits["ZoomIn"]) & {0, 8}
    for _, forward, backward in PAIRS:
        for name in (forward, backward):
            assert [s.digit for s in scenes() if name in (s.forward, s.backward)] == digits["ZoomIn"]


def test_no_spin_turns_more_than_60_degrees_between_the_frames_of_a_uniform_view():
    frames = max(DURATIONS_S) * FPS + 1
    angle = spin(torch.arange(frames, dtype=torch.float64) * CYCLES_PER_FRAME[1], 0.0)[:, 3]
    steps = angle[Uniform(16)(frames, FPS)[0]].diff()
    assert 0 < steps.max() <= torch.pi / 3 + 1e-9
    assert steps.min() > 0  # clockwise: angles grow


def test_motions_repeat_once_a_cycle_and_move_as_their_names_say():
    cycles = torch.tensor([0.0, 0.25, 1.0, 1.25], dtype=torch.float64)
    for motion in (slide, spin, zoom, sway):
        here, later = motion(cycles[:2], 0.1), motion(cycles[2:], 0.1)
        turns = (later - here) / torch.tensor([2, 2, 1, 2 * torch.pi])
        assert torch.allclose(turns, turns.round(), atol=1e-9)
    assert slide(cycles, 0.0)[1, 0] < slide(cycles, 0.0)[0, 0]
    assert zoom(cycles, 0.0)[1, 2] > zoom(cycles, 0.0)[0, 2]


def test_ink_is_drawn_where_the_pose_says_and_enters_on_the_other_side():
    dark = torch.zeros(3, 40, 40, dtype=torch.uint8)
    block = torch.ones(40, 40, dtype=torch.float64)
    poses = torch.tensor([[0.5, 0.0, 0.5, 0.0], [1.0, 0.0, 0.5, 0.0]], dtype=torch.float64)
    first, second = draw(dark, block, poses)
    expected = torch.zeros(40, 40)
    expected[10:30, 20:40] = 255
    assert (first.float().mean(0) - expected).abs().mean() < 5
    assert torch.equal(second[0], first[0].roll(10, 1))


def test_a_quarter_turn_clockwise_brings_the_top_to_the_right():
    dark = torch.zeros(3, 40, 40, dtype=torch.uint8)
    top = torch.zeros(40, 40, dtype=torch.float64)
    top[:10] = 1
    turned = draw(dark, top, torch.tensor([[0.0, 0.0, 1.0, torch.pi / 2]], dtype=torch.float64))[0, 0]
    assert turned[:, 32:].float().mean() > 250
    assert turned[:, :20].float().mean() < 1


def test_the_photographs_are_two_and_dark_enough_for_white_ink():
    assert len(photographs()) == 2
    assert all(image.getextrema()[band][1] <= 0.6 * 255 for image in photographs() for band in range(3))
    assert "CC BY 2.0" in CREDIT


def test_writing_twice_gives_the_same_bytes(small_demo, tmp_path):
    for scene in FEW[2:4]:
        for name, frames in scene.clips():
            encode(tmp_path / "again.avi", frames)
            assert (tmp_path / "again.avi").read_bytes() == (small_demo / name).read_bytes()


def test_an_existing_demo_is_not_written_again(small_demo, monkeypatch):
    monkeypatch.setattr(demo, "scenes", lambda: FEW)
    monkeypatch.setattr(demo, "encode", lambda *_: pytest.fail("written again"))
    assert len(Demo(small_demo).videos()) == 2 * 8 * CLIPS_PER_GROUP


def test_the_clips_of_a_complete_demo_are_counted_without_computing_names(small_demo, monkeypatch):
    monkeypatch.setattr(demo, "NUM_CLIPS", 2 * 8 * CLIPS_PER_GROUP)
    monkeypatch.setattr(demo, "scenes", lambda: pytest.fail("computed"))
    assert len(Demo(small_demo).videos()) == 2 * 8 * CLIPS_PER_GROUP


def test_a_killed_run_leaves_no_incomplete_demo_and_the_next_run_writes_it(tmp_path, few_scenes, monkeypatch):
    root, real = tmp_path / "demo", demo.encode
    calls = []

    def dies(path, frames):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(path, frames)

    monkeypatch.setattr(demo, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        ensure_written(root)
    assert not root.exists()
    monkeypatch.setattr(demo, "encode", real)
    ensure_written(root)
    assert sorted(str(path.relative_to(root)) for path in root.glob("*/*.avi")) == sorted(FEW[0].names())


def test_two_runs_at_once_write_the_demo_once(tmp_path, few_scenes, monkeypatch):
    written, real = [], demo.encode
    monkeypatch.setattr(demo, "encode", lambda path, frames: (written.append(path.name), real(path, frames)))
    with ThreadPoolExecutor(2) as threads:  # the lock knows threads no better than processes
        list(threads.map(ensure_written, [tmp_path / "demo"] * 2))
    assert sorted(written) == [Path(name).name for name in FEW[0].names()]
    assert {path.name for path in tmp_path.iterdir()} <= {"demo", ".demo.lock"}


def test_a_folder_with_other_files_is_not_changed(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(VidclfError, match=r"is not empty and does not hold this edition.*dataset\.root"):
        Demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_demo_with_clips_missing_is_refused(tmp_path):
    (tmp_path / ABOUT_FILE).write_text(ABOUT)
    with pytest.raises(VidclfError, match=r"1400 of the demo's 1400 clips are missing: .*v_Show.*Delete the folder"):
        Demo(tmp_path)


def test_a_root_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VidclfError, match=r"demo: cannot write \(.*dataset\.root"):
        Demo(tmp_path / "file" / "demo")


def test_an_empty_folder_is_filled(tmp_path, few_scenes):
    (tmp_path / "demo").mkdir()
    ensure_written(tmp_path / "demo")
    assert (tmp_path / "demo" / FEW[0].names()[0]).is_file()


def test_a_second_split_is_refused(small_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "scenes", lambda: FEW)
    with pytest.raises(VidclfError, match=r"split\.number=2: Demo has only split 1"):
        make_corpus(small_demo, dataset=Demo(small_demo), split=Official(number=2), store=tmp_path)

"""A part uses the right frames of its videos; damage is found by the catalogue, counted and listed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from doubles import halve, make_corpus, spoil
from videos import encode_video

from vidclf.contracts import PARTS, Video
from vidclf.data import corpus as corpus_module
from vidclf.data.corpus import Corpus, name_videos
from vidclf.data.sampling import Dense, Rate, Segments, Uniform
from vidclf.data.splits import Official
from vidclf.errors import VidclfError, VideoError

NUM_VIDEOS = {"train": 4, "val": 4, "test": 8}  # of the tree below; groups 1 and 2 of a class test


@pytest.fixture
def root(ucf101_tree: Callable[..., Path]) -> Path:
    """16 clips of 12 frames at 25 fps: `Rate(10)` takes every second, `Rate(5)` every fifth."""
    return ucf101_tree()


def frames_of(corpus: Corpus, part: str, epoch: int | None = None) -> dict[int, list]:
    return {video.video: video.frames.tolist() for video in corpus.views(part, epoch)}


def test_a_part_is_its_videos_with_all_their_views(root: Path):
    corpus = make_corpus(root, sampling=Uniform(3))
    for part in PARTS:
        views = corpus.views(part)
        assert len(views) == len(corpus.split.views_of(part)) == NUM_VIDEOS[part]
        assert [video.label for video in views] == [corpus.videos[video.video].label for video in views]
        assert all(video.frames.tolist() == [[0, 6, 11]] and video.views.tolist() == [0] for video in views)
    videos = [video.video for part in PARTS for video in corpus.views(part)]
    assert sorted(videos) == list(range(16))


@pytest.mark.parametrize("sampling", [Segments(3), Dense(2, 3, 1)])
def test_a_random_sampling_draws_for_each_video_and_epoch(sampling: Any, root: Path):
    corpus, again, other = (make_corpus(root, sampling=sampling, seed=seed) for seed in (0, 0, 1))
    epochs = [frames_of(corpus, "train", epoch) for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert len({str(frames) for frames in epochs[0].values()}) > 1  # not one draw for all
    assert all(len(frames) == 1 for frames in epochs[0].values())
    assert frames_of(again, "train", 2) == epochs[2]  # without the epochs before it, as a resumed run
    assert frames_of(other, "train", 2) != epochs[2]
    assert all(len(frames) == len(sampling(12, 25.0)) for frames in frames_of(corpus, "train").values())


def test_the_same_views_are_the_same_list(root: Path):
    """Callers cache results by this list."""
    corpus = make_corpus(root)
    assert corpus.views("train", 0) is corpus.views("train", 7)  # not random
    random = make_corpus(root, sampling=Segments(3))
    assert random.views("train", 0) is random.views("train", 0) is not random.views("train", 1)


def test_frame_level_validation_puts_single_views_into_parts(root: Path):
    with pytest.warns(UserWarning, match="both train and val"):
        corpus = make_corpus(root, split=Official(validation="frame_level"))
    train, val = (
        {(video.video, int(v)) for video in corpus.views(part) for v in video.views} for part in ("train", "val")
    )
    assert len(train) + len(val) == 8 * 6
    assert not train & val
    assert {video for video, _ in train} & {video for video, _ in val}


@pytest.mark.parametrize("sampling", [Segments(3), Dense(2, 3, 1)])
def test_frame_level_validation_refuses_random_views(sampling: Any, root: Path):
    name = type(sampling).__name__
    with pytest.raises(VidclfError, match=rf"frame_level.*{name} draws its training views at random.*sampling=rate"):
        make_corpus(root, sampling=sampling, split=Official(validation="frame_level"))


def damage(root: Path, group: int) -> list[str]:
    """Damage three clips of one group (cut, spoilt in the middle, not a video) and return their names."""
    clips = sorted(root.rglob(f"*_g{group:02d}_*.avi"))
    halve(clips[0])
    spoil(clips[1])
    clips[2].write_text("no video")
    return [path.name for path in clips[:3]]


@pytest.mark.parametrize("validation", ["group", "frame_level"])
@pytest.mark.filterwarnings("ignore:.*frame_level")
def test_damaged_videos_are_skipped_counted_and_listed(validation: str, root: Path):
    names = damage(root, group=1)
    corpus = make_corpus(root, on_error="skip", split=Official(validation=validation))
    assert sorted(corpus.videos[video].path.name for video in corpus.failed) == sorted(names)
    assert all(corpus.videos[video].path.name in str(error) for video, error in corpus.failed.items())
    assert len(corpus.views("test")) == 5
    assert len(corpus.split.views_of("test")) == 8
    assert {video.video for video in corpus.views("test")}.isdisjoint(corpus.failed)


@pytest.mark.parametrize("hurt", [halve, spoil])
def test_a_damaged_video_raises_by_default(hurt: Callable[[Path], Path], root: Path):
    path = hurt(sorted(root.rglob("*.avi"))[2])
    with pytest.raises(VideoError, match=rf"{path.name}: .*damaged.*dataset\.on_error=skip"):
        make_corpus(root)


def test_a_video_that_fails_later_has_no_more_views(root: Path):
    corpus = make_corpus(root, on_error="skip")
    first = corpus.views("test")[0].video
    corpus.exclude(first, VideoError("gone"))
    assert first not in {video.video for video in corpus.views("test")}
    assert len(corpus.split.views_of("test")) == 8
    with pytest.raises(VideoError, match="gone"):
        make_corpus(root).exclude(first, VideoError("gone"))


def test_a_part_without_an_undamaged_video_is_refused(root: Path):
    for path in [path for path in root.rglob("*.avi") if "_g01_" in path.name or "_g02_" in path.name]:
        halve(path)
    with pytest.raises(VidclfError, match=r"No video of the test part can be read, 8 failed\. The first: .*g01_c01"):
        make_corpus(root, on_error="skip").require("test")


def test_a_part_without_videos_is_refused(ucf101_tree: Callable[..., Path]):
    with pytest.raises(VidclfError, match=r"The test part has no videos\. Check dataset\.root.*split\.number"):
        make_corpus(ucf101_tree(groups=(8, 9))).require("val", "test")


def test_each_process_needs_a_video(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(corpus_module, "rank_and_size", lambda: (0, 5))
    corpus = make_corpus(root)
    corpus.require("train")
    with pytest.raises(VidclfError, match=r"The train part has 4 videos for 5 processes.*trainer\.devices to fewer"):
        corpus.require("train", one_each=True)


def test_a_shard_examines_its_videos_and_has_no_other_views(root: Path):
    first = make_corpus(root, sampling=Rate(5), shard=(1, 3))
    assert set(first.facts) == {0, 3, 6, 9, 12, 15}
    halve(first.videos[1].path)  # of the second
    assert set(make_corpus(root, shard=(3, 3)).facts) == {2, 5, 8, 11, 14}
    shown = {video.video for part in PARTS for video in first.views(part)}
    assert shown == set(first.facts)
    with pytest.raises(VideoError):
        make_corpus(root, shard=(2, 3))


def test_the_number_of_frames_comes_from_the_catalogue(root: Path):
    path = encode_video(sorted(root.rglob("*.avi"))[0], num_frames=20)
    corpus = make_corpus(root, sampling=Uniform(2))
    (video,) = [number for number, video in enumerate(corpus.videos) if video.path == path]
    assert frames_of(corpus, "test")[video] == [[0, 19]]


# Names


def test_a_videos_name_is_its_path_below_the_root():
    videos = [Video(Path(f"/data/{name}"), 0, "") for name in ("A/x/a.mp4", "A/y/a.mp4")]
    assert [video.name for video in name_videos(videos, "/data")] == ["A/x/a.mp4", "A/y/a.mp4"]
    assert [video.name for video in name_videos(videos, None)] == ["/data/A/x/a.mp4", "/data/A/y/a.mp4"]


def test_a_segments_name_says_where_it_lies():
    times = [(None, None), (1.5, 4), (None, 2), (0, None)]
    videos = [Video(Path("/data/a.mp4"), 0, "", start_s=start, end_s=end) for start, end in times]
    assert [video.name for video in name_videos(videos, "/data")] == ["a.mp4", "a.mp4#1.5-4", "a.mp4#-2", "a.mp4#0-"]


def test_a_name_from_the_data_set_is_kept():
    assert name_videos([Video(Path("/data/a.mp4"), 0, "", name="A/a.mp4")], "/data")[0].name == "A/a.mp4"


@dataclass
class TwoNames:
    """A custom data set that gives two videos the same name."""

    videos_: list[Video]
    class_names: list[str] = field(default_factory=lambda: ["A", "B"])
    on_error: str = "raise"

    def videos(self) -> list[Video]:
        return self.videos_


def test_two_videos_with_the_same_name_are_refused(root: Path):
    videos = [Video(root / folder / "a.mp4", 0, "g", name="A/a.mp4") for folder in "xy"]
    with pytest.raises(
        VidclfError, match=r"1 name\(s\) belong to several videos: A/a\.mp4 \(the first: .*x/a\.mp4, .*y/a"
    ):
        make_corpus(root, dataset=TwoNames(videos))

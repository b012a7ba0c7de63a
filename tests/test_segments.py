"""Several labelled segments of one long video: each is sampled separately, all are decoded in one pass."""

from pathlib import Path
from typing import Any

import pytest
from doubles import halve, make_corpus, make_stored, spoil
from videos import encode_video, read_frame_number

from vidclf.contracts import PARTS
from vidclf.data.corpus import Corpus
from vidclf.data.datasets.manifest import Manifest
from vidclf.data.decoding import decode_frames
from vidclf.data.sampling import Dense, Rate, Segments, Uniform
from vidclf.data.splits import Given
from vidclf.errors import VideoError
from vidclf.features import extract

ROWS = """path,label,split,start_s,end_s
long.avi,walk,train,0,1
long.avi,run,train,1,2.6
long.avi,walk,train,2.6,
a.avi,walk,val,,
b.avi,run,val,,0.5
c.avi,run,test,0.5,
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One video of 100 frames and three of 20, at 25 fps; frames carry their numbers."""
    folder = tmp_path / "data"
    folder.mkdir()
    encode_video(folder / "long.avi", 100)
    for seed, name in enumerate("abc", start=1):
        encode_video(folder / f"{name}.avi", 20, seed=seed)
    (folder / "videos.csv").write_text(ROWS)
    return folder


def corpus_of(root: Path, **settings: Any) -> Corpus:
    on_error = settings.pop("on_error", "raise")
    return make_corpus(
        root, dataset=Manifest(root / "videos.csv", group="file", on_error=on_error), split=Given(), **settings
    )


def frames_of(corpus: Corpus, epoch: int | None = None) -> dict[str, list]:
    return {
        corpus.videos[video.video].name: video.frames.tolist() for part in PARTS for video in corpus.views(part, epoch)
    }


def test_a_segment_is_sampled_like_a_video(root: Path):
    frames = frames_of(corpus_of(root, sampling=Uniform(3)))
    assert frames == {
        "long.avi#0-1": [[0, 12, 24]],
        "long.avi#1-2.6": [[25, 45, 64]],
        "long.avi#2.6-": [[65, 82, 99]],
        "a.avi": [[0, 10, 19]],
        "b.avi#-0.5": [[0, 6, 11]],
        "c.avi#0.5-": [[12, 16, 19]],
    }


@pytest.mark.parametrize("sampling", [Rate(5), Segments(3), Dense(2, 3, 1)])
def test_no_frame_is_of_another_segment(root: Path, sampling: Any):
    corpus = corpus_of(root, sampling=sampling)
    spans = {"long.avi#0-1": range(25), "long.avi#1-2.6": range(25, 65), "long.avi#2.6-": range(65, 100)}
    for epoch in range(3):
        frames = frames_of(corpus, epoch)
        for name, span in spans.items():
            assert {frame for view in frames[name] for frame in view} <= {*span}


def test_the_images_are_those_of_the_segment(root: Path):
    corpus = corpus_of(root, sampling=Rate(1))
    (first, second, third) = corpus.views("train")
    for video, expected in [(first, [0]), (second, [25, 50]), (third, [65, 90])]:
        images = decode_frames(corpus.videos[video.video].path, video.frames.flatten())
        assert [read_frame_number(image) for image in images] == expected


def test_segments_of_a_file_are_decoded_in_one_pass(root: Path, monkeypatch: pytest.MonkeyPatch):
    corpus = corpus_of(root, sampling=Rate(5))
    opened: list[str] = []
    iterate = extract.iterate_frames
    monkeypatch.setattr(
        extract,
        "iterate_frames",
        lambda path, *rest, **named: opened.append(path.name) or iterate(path, *rest, **named),
    )
    source = make_stored(corpus, root)
    source.prepare([video for part in PARTS for video in corpus.views(part)])
    assert sorted(opened) == ["a.avi", "b.avi", "c.avi", "long.avi"]


def test_damage_that_is_found_later_skips_all_segments_of_a_file(root: Path):
    corpus = corpus_of(root, sampling=Rate(5), on_error="skip")
    source = make_stored(corpus, root)
    spoil(root / "long.avi")  # after it was examined
    source.prepare([video for part in PARTS for video in corpus.views(part)])
    assert {corpus.videos[video].name for video in corpus.failed} == {name for name in names(corpus) if "long" in name}


def names(corpus: Corpus) -> list[str]:
    return [video.name for video in corpus.videos]


@pytest.mark.parametrize("times", [("2.6,", "2.6,4.3"), ("2.6,", "4,"), ("2.6,", "100,101")])
def test_a_segment_beyond_the_video_is_refused_or_skipped(root: Path, times: tuple[str, str]):
    (root / "videos.csv").write_text(ROWS.replace(*times))
    with pytest.raises(VideoError, match=r"long\.avi#.*: its segment ends beyond the video, which is 4\.00 s long"):
        corpus_of(root)
    assert len(corpus_of(root, on_error="skip").failed) == 1


def test_a_containers_length_may_be_a_little_longer(root: Path):
    (root / "videos.csv").write_text(ROWS.replace("2.6,", "2.6,4.05"))
    assert frames_of(corpus_of(root, sampling=Uniform(2)))["long.avi#2.6-4.05"] == [[65, 99]]


def test_a_damaged_file_fails_with_all_its_segments(root: Path):
    halve(root / "long.avi")
    assert len(corpus_of(root, on_error="skip").failed) == 3

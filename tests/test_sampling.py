import csv
import os
from pathlib import Path

import jaxtyping
import pytest
import torch

from vidclf.contracts import Sampling
from vidclf.data.sampling import Dense, Rate, Segments, Uniform
from vidclf.errors import VidclfError

SHARED = Path(os.environ.get("VIDCLF_SHARED") or Path(__file__).parents[1] / "../shared")
LENGTHS = [1, 2, 3, 5, 7, 8, 15, 16, 17, 29, 100, 101, 1776]
SAMPLINGS = [
    Rate(),
    Rate(rate_hz=1000),
    Uniform(),
    Uniform(num_frames=1),
    Segments(),
    Segments(num_segments=1),
    Dense(),
    Dense(num_views=1),
    Dense(num_views=3, num_frames=1),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("fps", "step"), [(25.0, 25), (29.97, 29), (30000 / 1001, 29), (28.0, 28)])
def test_rate_takes_every_floor_of_fps_th_frame(fps, step):
    assert Rate()(100, fps).tolist() == [[i] for i in range(0, 100, step)]


def test_rate_of_two_a_second_halves_the_step_and_rounds_it_down():
    assert Rate(rate_hz=2)(50, 25.0)[:, 0].tolist() == [0, 12, 24, 36, 48]


@pytest.mark.parametrize("rate_hz", [25, 26, 1000])
def test_rate_above_fps_gives_every_frame_once(rate_hz):
    assert Rate(rate_hz)(7, 25.0)[:, 0].tolist() == list(range(7))


@pytest.mark.slow
def test_rate_of_the_train_clips_of_split_1_agrees_with_the_tutorials_73844_frames():
    if not (SHARED / "ucf101").is_dir():
        pytest.skip("needs UCF101's lists and frame counts below VIDCLF_SHARED")
    with open(SHARED / "ucf101" / "frame_counts.csv", newline="") as file:
        lengths = {row["video"]: int(row["num_frames"]) for row in csv.DictReader(file)}
    lines = (SHARED / "ucf101" / "trainlist01.txt").read_text().splitlines()
    train = [lengths[line.split()[0]] for line in lines]
    fewest, most = (sum(len(Rate()(length, fps)) for length in train) for fps in (29.97, 25.0))
    assert len(train) == 9537
    # Its clips mix the two rates, so the truth lies between all of them at one and all at the other.
    assert fewest < 73_844 < most


def test_uniform_rounds_halves_up():
    # A linspace from 0 to 10 in 5 frames: 0, 2.5, 5, 7.5, 10.
    assert Uniform(num_frames=5)(11, 25.0).tolist() == [[0, 3, 5, 8, 10]]


@pytest.mark.parametrize(("num_frames", "middle"), [(1, 0), (2, 1), (3, 1), (100, 50), (101, 50)])
def test_uniform_of_one_frame_is_the_middle(num_frames, middle):
    assert Uniform(num_frames=1)(num_frames, 25.0).tolist() == [[middle]]


@pytest.mark.parametrize("num_frames", [26, 51, 76, 151])
def test_uniform_of_a_reversed_video_is_the_reversed_view(num_frames):
    view = Uniform(num_frames=16)(num_frames, 25.0)
    assert torch.equal(num_frames - 1 - view, view.flip(1))


def test_uniform_of_a_short_video_repeats_frames_in_order():
    assert Uniform(num_frames=7)(4, 25.0).tolist() == [[0, 1, 1, 2, 2, 3, 3]]


def test_segments_take_the_middle_frame_of_each_segment():
    # 12 frames in 4 segments of 3; 10 frames in segments [0, 3), [3, 6), [6, 10).
    assert Segments(num_segments=4)(12, 25.0).tolist() == [[1, 4, 7, 10]]
    assert Segments(num_segments=3)(10, 25.0).tolist() == [[1, 4, 8]]


def test_segments_of_a_short_video_repeat_frames_in_order():
    assert Segments(num_segments=6)(3, 25.0).tolist() == [[0, 0, 1, 1, 2, 2]]


def test_training_segments_draw_every_frame_of_their_segment_and_no_other():
    drawn = torch.cat([Segments(num_segments=3)(10, 25.0, seeded(seed)) for seed in range(100)])
    assert [set(segment.tolist()) for segment in drawn.T] == [{0, 1, 2}, {3, 4, 5}, {6, 7, 8, 9}]


def test_dense_spreads_its_clips_from_the_first_to_the_last_start():
    # A clip spans (3 - 1) * 2 + 1 = 5 frames, so the last start in 15 frames is 10.
    clips = Dense(num_views=3, num_frames=3, stride=2)(15, 25.0)
    assert clips.tolist() == [[0, 2, 4], [5, 7, 9], [10, 12, 14]]


def test_dense_with_one_view_takes_the_middle_start():
    assert Dense(num_views=1, num_frames=3, stride=2)(15, 25.0).tolist() == [[5, 7, 9]]


def test_dense_loops_a_short_video():
    clips = Dense(num_views=2, num_frames=5, stride=2)(4, 25.0)
    assert clips.tolist() == [[0, 2, 0, 2, 0]] * 2


def test_training_dense_draws_one_clip_at_every_start_that_fits():
    clips = [Dense(num_frames=3, stride=2)(8, 25.0, seeded(seed)).tolist() for seed in range(60)]
    assert sorted(clip[0] for clip in {tuple(map(tuple, clip)) for clip in clips}) == [
        (0, 2, 4),
        (1, 3, 5),
        (2, 4, 6),
        (3, 5, 7),
    ]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=repr)
@pytest.mark.parametrize("generator", [None, seeded()], ids=["evaluation", "training"])
def test_indices_are_whole_numbers_in_range_for_every_length(sampling, generator):
    for num_frames in LENGTHS:
        indices = sampling(num_frames, 29.97, generator)
        assert indices.dtype == torch.int64
        assert indices.numel() > 0
        assert indices.min() >= 0
        assert indices.max() < num_frames


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=repr)
def test_only_random_samplings_use_the_generator_and_the_same_seed_repeats(sampling):
    evaluation = sampling(1000, 25.0).tolist()
    trainings = [sampling(1000, 25.0, seeded(seed)).tolist() for seed in (0, 0, 1, 2, 3)]
    assert trainings[0] == trainings[1]
    assert any(training != evaluation for training in trainings) == sampling.random
    if sampling.random:
        assert all(len(training) == 1 for training in trainings)


@pytest.fixture
def as_configured(monkeypatch):
    """Call it without the tests' type checks, which would stop wrong types before ours do."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("as_configured")
@pytest.mark.parametrize("rate_hz", [0, -1, float("nan"), "fast"])
def test_rate_refuses_an_invalid_rate(rate_hz):
    with pytest.raises(VidclfError, match=rf"sampling\.rate_hz={rate_hz}: .* above 0"):
        Rate(rate_hz)


@pytest.mark.usefixtures("as_configured")
@pytest.mark.parametrize("sampling", [Uniform, Segments, Dense])
@pytest.mark.parametrize("count", [0, -2, 1.5, "many"])
def test_counts_below_one_or_not_whole_are_refused(sampling, count):
    with pytest.raises(VidclfError, match=rf"sampling\.num_\w+={count}: .* whole number, 1 or more"):
        sampling(count)


def test_any_callable_with_random_is_a_sampling():
    class FirstFrame:
        random = False

        def __call__(self, num_frames, fps, generator=None):
            return torch.zeros(1, 1, dtype=torch.int64)

    assert isinstance(FirstFrame(), Sampling)
    assert all(isinstance(sampling, Sampling) for sampling in SAMPLINGS)


def test_a_stride_of_zero_is_refused():
    with pytest.raises(VidclfError, match=r"sampling\.stride=0"):
        Dense(stride=0)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=repr)
def test_a_video_without_frames_is_refused(sampling):
    with pytest.raises(VidclfError, match="has 0 frames"):
        sampling(0, 25.0)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_rate_refuses_a_video_without_a_rate(fps):
    with pytest.raises(VidclfError, match=rf"{fps} frames per second"):
        Rate()(10, fps)

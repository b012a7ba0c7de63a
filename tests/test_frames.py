"""Batches of views: all of them, once, by name, and shuffled where training asks for it."""

from collections import Counter
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

from vidclf.contracts import VideoError, VideoViews, Views
from vidclf.data import frames as loaders
from vidclf.data.frames import FeatureBatches, FrameBatches
from vidclf.errors import VidclfError
from vidclf.system.seeds import generator_for

NUM_VIEWS = (3, 1, 4, 2, 5, 3)  # of six videos, numbered 10, 11, ...


def make_drawn(num_frames: int = 1) -> list[VideoViews]:
    return [
        VideoViews(10 + index, index % 2, torch.arange(count) * 2, torch.arange(count * num_frames).view(count, -1))
        for index, count in enumerate(NUM_VIEWS)
    ]


def picture_names(one: VideoViews) -> Tensor:
    """Pictures (V, T, 3, 1, 1) of the video's number and each frame's index."""
    return (100 * one.video + one.frames).float()[:, :, None, None, None].expand(-1, -1, 3, 1, 1)


def names(batches: Iterable[Views]) -> list[tuple[int, int, int]]:
    """The (video, view, label) of every view."""
    rows = (torch.stack([batch.video, batch.view, batch.labels], dim=1) for batch in batches)
    return [tuple(row) for batch in rows for row in batch.tolist()]


ALL_NAMES = [(10 + index, 2 * view, index % 2) for index, count in enumerate(NUM_VIEWS) for view in range(count)]


def frame_batches(load: Callable = picture_names, **settings: object) -> FrameBatches:
    def raise_it(video: int, error: VideoError) -> None:
        raise error

    return FrameBatches(make_drawn(), load, **({"on_error": raise_it, "num_threads": 2} | settings))


def test_a_generator_depends_on_every_number_and_their_count():
    seeds = [generator_for(*numbers).initial_seed() for numbers in ((1,), (1, 0), (0, 1), (1, 0, 0), (1, 2), (2, 1))]
    assert len(set(seeds)) == 6
    assert generator_for(1, 2).initial_seed() == seeds[4]


def test_feature_batches_are_every_view_under_its_name():
    features = torch.arange(18.0).view(18, 1, 1)
    batches = list(FeatureBatches(features, make_drawn(), batch_size=5))
    assert [len(batch.labels) for batch in batches] == [5, 5, 5, 3]
    assert names(batches) == ALL_NAMES
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), features)


def test_feature_batches_without_a_size_are_one_video_each():
    loader = FeatureBatches(torch.zeros(18, 1, 1), make_drawn())
    assert len(loader) == 6
    assert [batch.video.unique().tolist() for batch in loader] == [[10 + index] for index in range(6)]
    assert names(list(loader)) == ALL_NAMES


def test_an_order_moves_features_and_their_names_together():
    order = torch.randperm(18, generator=generator_for(3))
    batches = list(FeatureBatches(torch.arange(18.0).view(18, 1, 1), make_drawn(), 4, order))
    assert torch.equal(torch.cat([batch.inputs for batch in batches]).flatten().long(), order)
    assert names(batches) == [ALL_NAMES[index] for index in order]


def test_batches_of_crops_are_as_many_as_are_announced():
    generator = generator_for(0)
    loader = frame_batches(
        lambda one: picture_names(one).repeat(2, 1, 1, 1, 1), batch_size=5, num_crops=2, generator=generator
    )
    assert len(list(loader)) == len(loader) == 8  # 36 views


def test_crops_of_a_view_are_views_behind_one_another():
    batches = list(FeatureBatches(torch.zeros(36, 1, 1), make_drawn(), batch_size=36))
    assert names(batches)[:8] == [(10, v, 0) for v in (0, 1, 4, 5, 8, 9)] + [(11, 0, 1), (11, 1, 1)]
    frames = frame_batches(lambda one: picture_names(one).repeat_interleave(2, dim=0))
    assert names(list(frames)) == names(batches)


def test_frame_batches_without_a_size_are_one_video_each_in_order():
    loader = frame_batches()
    batches = list(loader)
    assert len(loader) == len(batches) == 6
    assert names(batches) == ALL_NAMES
    assert all(torch.equal(batch.inputs, picture_names(one)) for batch, one in zip(batches, make_drawn(), strict=True))


def test_an_epoch_of_frames_is_every_view_once_and_decodes_each_video_once():
    decoded = Counter()

    def load(one: VideoViews) -> Tensor:
        decoded[one.video] += 1
        return picture_names(one)

    loader = frame_batches(load, batch_size=4, generator=generator_for(0))
    batches = list(loader)
    assert [len(batch.labels) for batch in batches] == [4, 4, 4, 4, 2]
    assert len(loader) == 5
    assert sorted(names(batches)) == ALL_NAMES
    assert names(batches) != ALL_NAMES
    assert decoded == {10 + index: 1 for index in range(6)}
    for batch in batches:  # each picture under its own name
        expected = [100 * video + view // 2 for video, view, _ in names([batch])]
        assert batch.inputs[:, 0, 0, 0, 0].tolist() == expected


def test_frames_are_shuffled_across_videos():
    batches = list(frame_batches(batch_size=4, generator=generator_for(0)))
    assert sum(len(batch.video.unique()) for batch in batches) >= 3 * len(batches)


@pytest.mark.parametrize("pool_frames", [1, 7, 1024])
def test_the_pool_loses_and_repeats_nothing(pool_frames: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loaders, "POOL_FRAMES", pool_frames)
    for batch_size in (1, 3, 18, 50):
        batches = list(frame_batches(batch_size=batch_size, generator=generator_for(1)))
        assert sorted(names(batches)) == ALL_NAMES
        assert {len(batch.labels) for batch in batches[:-1]} <= {batch_size}
        assert len(batches) == len(frame_batches(batch_size=batch_size))


def test_the_same_generator_gives_the_same_batches():
    one, same, other = (names(list(frame_batches(batch_size=4, generator=generator_for(s)))) for s in (0, 0, 1))
    assert one == same != other


def test_a_waiting_view_does_not_keep_its_video_in_memory(monkeypatch: pytest.MonkeyPatch):
    sizes = set()

    def join(batch: list[Views]) -> Views:
        sizes.update(view.inputs.untyped_storage().nbytes() for view in batch)
        return batch[0]

    monkeypatch.setattr(loaders, "_join", join)
    list(FrameBatches(make_drawn(), picture_names, print, 2, batch_size=4, generator=generator_for(0)))
    assert sizes == {3 * 4}  # one picture of one pixel


def test_a_video_that_fails_does_not_let_all_others_be_decoded_ahead(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loaders, "POOL_FRAMES", 1)
    decoded = []

    def load(one: VideoViews) -> Tensor:
        decoded.append(one.video)
        if one.video == 10:
            raise VideoError("damaged")
        return picture_names(one)

    loader = iter(frame_batches(load, on_error=lambda *_: None, batch_size=1, generator=generator_for(0)))
    next(loader)
    assert len(decoded) < 6
    loader.close()


def test_a_damaged_video_is_handed_over_and_left_out():
    failed = {}

    def load(one: VideoViews) -> Tensor:
        if one.video in (10, 13):
            raise VideoError(f"{one.video} is damaged")
        return picture_names(one)

    expected = [name for name in ALL_NAMES if name[0] not in (10, 13)]
    assert names(list(frame_batches(load, on_error=failed.__setitem__))) == expected
    assert {video: str(error) for video, error in failed.items()} == {10: "10 is damaged", 13: "13 is damaged"}
    shuffled = frame_batches(load, on_error=failed.__setitem__, batch_size=4, generator=generator_for(0))
    assert sorted(names(list(shuffled))) == expected
    with pytest.raises(VideoError, match="10 is damaged"):
        list(frame_batches(load))


def test_nothing_but_damage_is_an_error():
    def load(one: VideoViews) -> Tensor:
        raise VideoError(f"{one.video} is damaged")

    with pytest.raises(VidclfError, match=r"None of 6 videos can be read\. The last: 15 is damaged"):
        list(frame_batches(load, on_error=lambda video, error: None))

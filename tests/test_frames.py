"""Batches of images through torch's DataLoader: every view once, the same bits with any number of workers."""

import gc
import multiprocessing
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import spoil
from picklable import AsDecoded, Deadly, Mistaken, noisy
from videos import encode_video, read_frame_number

from vidclf.contracts import VideoViews, Views
from vidclf.data import frames
from vidclf.data.frames import FrameReader, num_workers_for, plan_training
from vidclf.errors import VideoError

NUM_VIEWS = (3, 1, 4, 2, 5, 3)  # of six videos
ALL_NAMES = [(video, 2 * view, video % 2) for video, count in enumerate(NUM_VIEWS) for view in range(count)]


def views_of(num_frames: int = 1) -> list[VideoViews]:
    """Six videos; view v shows frames from v on."""
    return [
        VideoViews(video, video % 2, torch.arange(n) * 2, torch.arange(n)[:, None] + torch.arange(num_frames))
        for video, n in enumerate(NUM_VIEWS)
    ]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [encode_video(folder / f"{number}.avi", num_frames=8, seed=number) for number in range(6)]


def raise_it(_: int, error: VideoError) -> None:
    raise error


def reader(paths: list[Path], **settings: Any) -> FrameReader:
    return FrameReader(paths, **({"transform": AsDecoded(), "on_error": raise_it} | settings))


def names(batches: Iterable[Views]) -> list[tuple[int, int, int]]:
    """The (video, view, label) of every view."""
    rows = (torch.stack([batch.video, batch.view, batch.labels], dim=1) for batch in batches)
    return [tuple(row) for batch in rows for row in batch.tolist()]


def test_an_epoch_is_every_view_once_under_its_name_and_decodes_each_video_once(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
):
    decoded = Counter()
    decode = frames.decode_frames
    monkeypatch.setattr(
        frames, "decode_frames", lambda path, *a, **k: decoded.update([path.name]) or decode(path, *a, **k)
    )
    loader = reader(paths).training_batches(views_of(), 4, epoch=0)
    batches = list(loader)
    assert [len(batch.labels) for batch in batches] == [4, 4, 4, 4, 2]
    assert len(loader) == 5
    assert sorted(names(batches)) == ALL_NAMES != names(batches)
    assert decoded == {path.name: 1 for path in paths}
    for batch in batches:
        shown = [read_frame_number(images[0]) for images in batch.inputs]
        assert shown == [view // 2 for view in batch.view.tolist()]
    assert sum(len(batch.video.unique()) for batch in batches) >= 3 * 4  # views of a video are spread


@pytest.mark.parametrize("frames_per_window", [1, 7, 1024])
def test_windows_of_any_size_lose_and_repeat_nothing(frames_per_window: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(frames, "FRAMES_PER_WINDOW", frames_per_window)
    for batch_size in (1, 3, 18, 50):
        windows, num_batches = plan_training(views_of(), batch_size, 1, torch.Generator(), 0)
        sizes: Counter[int] = Counter()
        seen = []
        for window in windows:
            numbers = [(video.video, int(view)) for video in window.views for view in video.views]
            for number, rows in zip(window.batches, window.pieces, strict=True):
                sizes[number] += len(rows)
                seen += [numbers[row] for row in rows.tolist()]
        assert sorted(seen) == [(video, view) for video, view, _ in ALL_NAMES]
        assert list(sizes) == list(range(num_batches))
        assert set(list(sizes.values())[:-1]) <= {batch_size}


def test_videos_of_one_view_are_decoded_a_batch_at_a_time():
    windows, num_batches = plan_training(
        [replace(video, views=video.views[:1], frames=video.frames[:1]) for video in views_of()],
        4,
        1,
        torch.Generator(),
        0,
    )
    assert [len(window.views) for window in windows] == [4, 2]
    assert num_batches == 2


def test_epochs_differ_in_order_and_the_same_epoch_repeats(paths: list[Path]):
    one, same, other = (names(reader(paths).training_batches(views_of(), 4, epoch)) for epoch in (0, 0, 1))
    assert one == same != other


def test_crops_of_a_view_are_next_to_each_other(paths: list[Path]):
    batches = list(reader(paths, transform=AsDecoded(2)).scoring_batches(views_of()))
    assert names(batches)[:8] == [(0, v, 0) for v in (0, 1, 4, 5, 8, 9)] + [(1, 0, 1), (1, 1, 1)]
    training = list(reader(paths, transform=AsDecoded(2)).training_batches(views_of(), 5, 0))
    assert sorted(names(training)) == names(batches)
    assert len(training) == 8  # 36 views


def test_scoring_gives_one_video_a_batch_in_order(paths: list[Path]):
    loader = reader(paths).scoring_batches(views_of(2), batch_size=4)
    batches = list(loader)
    assert len(loader) == len(batches) == 6
    assert names(batches) == ALL_NAMES
    assert [batch.inputs.shape[:2] for batch in batches] == [(count, 2) for count in NUM_VIEWS]


@pytest.mark.filterwarnings("ignore:.*suggested max number of worker")
@pytest.mark.parametrize("augmentation", [None, noisy])
def test_any_number_of_workers_gives_the_same_bits_epoch_after_epoch(augmentation: Any, paths: list[Path]):
    def epochs_of(num_workers: int) -> list[list[Views]]:
        before = len(multiprocessing.active_children())
        one = reader(paths, augmentation=augmentation, num_workers=num_workers, seed=3)
        epochs = []
        for epoch in (0, 1):
            training = iter(one.training_batches(views_of(2), 5, epoch))
            epochs.append([next(training) for _ in range(4)])
            epochs.append(list(one.scoring_batches(views_of(2))))  # before training asks for a batch more
            assert not list(training)
        assert len(multiprocessing.active_children()) - before == num_workers  # they live as long as the reader
        return epochs

    alone = epochs_of(0)
    for num_workers in (1, 4):
        for one, other in zip(alone, epochs_of(num_workers), strict=True):
            assert len(one) == len(other)
            for batch, same in zip(one, other, strict=True):
                assert all(torch.equal(*parts) for parts in zip(batch, same, strict=True))


@pytest.mark.filterwarnings("ignore:.*suggested max number of worker")
def test_a_nested_pass_has_separate_workers_and_an_open_pass_disturbs_none(paths: list[Path]):
    one, alone = reader(paths, num_workers=1), reader(paths)
    training = iter(one.training_batches(views_of(), 1, 0))
    begun = next(training)
    assert names(one.scoring_batches(views_of())) == ALL_NAMES
    assert names([begun, *training]) == names(alone.training_batches(views_of(), 1, 0))
    training = iter(one.training_batches(views_of(), 1, 1))
    next(training)
    del training
    assert names(one.training_batches(views_of(), 1, 2)) == names(alone.training_batches(views_of(), 1, 2))


def test_an_augmentation_draws_for_each_video_and_epoch_and_scoring_has_none(paths: list[Path]):
    one = reader(paths, augmentation=noisy)
    by_epoch = []
    for epoch in (0, 1):
        batches = list(one.training_batches(views_of(), 18, epoch))
        plain = {
            name: images
            for batch in one.scoring_batches(views_of())
            for name, images in zip(names([batch]), batch.inputs, strict=True)
        }
        added = {
            name: (images - plain[name]).mean().item()
            for name, images in zip(names(batches), batches[0].inputs, strict=True)
        }
        assert len({round(added[name], 4) for name in ALL_NAMES}) == 6  # one draw a video
        by_epoch.append(added[ALL_NAMES[0]])
    assert by_epoch[0] != by_epoch[1]


def test_the_random_state_of_this_process_does_not_change(paths: list[Path]):
    state = torch.get_rng_state()
    list(reader(paths, augmentation=noisy).training_batches(views_of(), 4, 0))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_video_that_fails_is_skipped_in_scoring_and_ends_training(paths: list[Path], tmp_path: Path):
    failed: dict[int, VideoError] = {}
    damaged = [*paths[:3], spoil(encode_video(tmp_path / "spoilt.avi", num_frames=8)), *paths[4:]]
    one = reader(damaged, on_error=failed.__setitem__)
    batches = list(one.scoring_batches(views_of()))
    assert [batch.video.tolist()[0] for batch in batches] == [
        0,
        1,
        2,
        -1,
        4,
        5,
    ]  # -1 is padding, so that the count holds
    assert "spoilt.avi" in str(failed[3])
    with pytest.raises(VideoError, match=r"spoilt\.avi"):
        list(one.training_batches(views_of(), 4, 0))


def test_an_error_in_a_worker_names_its_video_and_line(paths: list[Path]):
    for num_workers in (0, 1):
        one = reader(paths, transform=Mistaken(), num_workers=num_workers)
        with pytest.raises(
            VideoError, match=r"0\.avi: the worker that read it failed \(RuntimeError: a mistake .*\.py line \d+\)"
        ):
            list(one.scoring_batches(views_of()))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # torch's thread to the dead
def test_the_death_of_a_worker_names_the_video_that_it_read(paths: list[Path], tmp_path: Path):
    long = encode_video(tmp_path / "long.avi", num_frames=34)
    views = [*views_of()[:3], VideoViews(3, 0, torch.arange(1), torch.tensor([[33]]))]
    one = reader([*paths[:3], long], transform=Deadly(), num_workers=2)
    with pytest.raises(VideoError, match=r"A worker process died .* while it read .*long\.avi") as error:
        list(one.training_batches(views, 1, 0))
    assert "0.avi" not in str(error.value)
    del error, one
    gc.collect()


def test_workers_start_in_a_job_of_joblib(paths: list[Path]):
    from joblib.externals.loky.backend import context

    multiprocessing.set_start_method("loky", force=True)
    try:
        batches = list(reader(paths, num_workers=1).training_batches(views_of(), 3, 0))
    finally:
        multiprocessing.set_start_method(None, force=True)
    assert context.START_METHODS
    assert sum(len(batch.labels) for batch in batches) == sum(NUM_VIEWS)


def test_workers_start_only_if_they_save_time():
    assert num_workers_for(1_000, num_cores=8) == 0
    assert num_workers_for(10_000_000, num_cores=8) == 8
    assert num_workers_for(10_000_000, num_cores=1) == 0


@pytest.mark.parametrize("batch_size", [3, 5])
def test_two_processes_share_the_batches_of_a_single_process(
    batch_size: int, monkeypatch: pytest.MonkeyPatch, paths: list[Path]
):
    whole = [sorted(names([batch])) for batch in reader(paths).training_batches(views_of(), batch_size, 0)]
    halves = []
    for rank in (0, 1):
        monkeypatch.setattr(frames, "rank_and_size", lambda rank=rank: (rank, 2))
        halves.append(list(reader(paths).training_batches(views_of(), batch_size, 0)))
    assert [len(half) for half in halves] == [len(whole)] * 2
    for one, other, both in zip(*halves, whole, strict=True):
        assert sorted(name for name in names([one]) + names([other]) if name[0] >= 0) == both
        assert min(len(one.labels), len(other.labels)) > 0  # padding where there is no view

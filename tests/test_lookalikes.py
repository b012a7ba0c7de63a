"""Pairs of videos are found that are unusually alike; for real copies see experiments/leaks."""

import re

import pytest
import torch
from torch import Tensor

from vidclf.audit import lookalikes
from vidclf.audit.lookalikes import NUM_FRAMES, choose_frames, find_pairs, join_units

NUM_VIDEOS = 40
LABELS = [video % 2 for video in range(NUM_VIDEOS)]
UNITS = [(LABELS[video], f"g{video // 4}") for video in range(NUM_VIDEOS)]


@pytest.fixture
def features() -> Tensor:
    """Two crops of eight frames of 40 videos, each video around a separate point, and each class around another."""
    generator = torch.Generator().manual_seed(0)
    of_class = 3 * torch.randn(2, 1, 512, generator=generator)[torch.tensor(LABELS)]
    of_video = torch.randn(NUM_VIDEOS, 1, 512, generator=generator)
    plain = of_class + of_video + 0.2 * torch.randn(NUM_VIDEOS, NUM_FRAMES, 512, generator=generator)
    mirrored = of_class + torch.randn(NUM_VIDEOS, NUM_FRAMES, 512, generator=generator)
    return torch.stack([plain, mirrored])


def test_a_twin_is_found_and_nothing_else(features: Tensor):
    assert find_pairs(features, UNITS, LABELS) == []
    features[0, 9] = features[0, 31].roll(1, dims=0)  # shifted in time
    features[0, 12] = features[1, 22]  # mirrored
    pairs = find_pairs(features, UNITS, LABELS)
    assert sorted(pair[:2] for pair in pairs) == [(9, 31), (12, 22)]
    assert all(0.95 < pair.closeness < 1.01 for pair in pairs)


def test_a_twin_under_another_label_is_found(features: Tensor):
    features[0, 9] = features[0, 22]
    assert [pair[:2] for pair in find_pairs(features, UNITS, LABELS)] == [(9, 22)]


def test_videos_of_one_group_are_not_a_pair(features: Tensor):
    features[0, 0] = features[0, 2]
    assert UNITS[0] == UNITS[2]
    assert find_pairs(features, UNITS, LABELS) == []
    assert find_pairs(features, [UNITS[0]] * NUM_VIDEOS, LABELS) == []


def test_neither_the_order_nor_the_size_of_blocks_changes_the_pairs(features: Tensor, monkeypatch: pytest.MonkeyPatch):
    features[0, 9] = features[0, 30] + 0.3 * features[0, 11]
    expected = find_pairs(features, UNITS, LABELS, at_least=0.01)
    assert len(expected) > 1
    monkeypatch.setattr(lookalikes, "BLOCK_BYTES", 1)
    order = torch.randperm(NUM_VIDEOS, generator=torch.Generator().manual_seed(1))
    units, labels = [UNITS[video] for video in order], [LABELS[video] for video in order]
    pairs = find_pairs(features[:, order], units, labels, at_least=0.01)
    closeness = {tuple(sorted(order[list(pair[:2])].tolist())): pair.closeness for pair in pairs}
    assert closeness == pytest.approx({pair[:2]: pair.closeness for pair in expected}, abs=1e-4)


@pytest.mark.parametrize("shortlist", [NUM_VIDEOS, 32])
def test_of_many_videos_a_shortlist_is_compared_and_finds_the_same_pairs(
    shortlist: int, features: Tensor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    features[0, 9], features[0, 12] = features[0, 31].roll(1, dims=0), features[1, 22]  # shifted in time, mirrored
    expected = find_pairs(features, UNITS, LABELS)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(lookalikes, "EXACT", 15)
    monkeypatch.setattr(lookalikes, "SHORTLIST", shortlist)
    pairs = find_pairs(features, UNITS, LABELS)
    assert [pair[:2] for pair in pairs] == [pair[:2] for pair in expected]
    assert [pair.closeness for pair in pairs] == pytest.approx([pair.closeness for pair in expected], abs=0.02)
    assert re.match(r"Comparing 40 videos with one another takes about \d+ s\.\n$", capsys.readouterr().err)


def test_features_of_many_videos_are_narrowed_so_that_they_fit_into_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lookalikes, "MAX_BYTES", 10 * NUM_FRAMES * 4 * 60)
    assert choose_frames(torch.randn(4, 3, 100), num_views=4, num_videos=10).shape == (1, NUM_FRAMES, 60)
    assert choose_frames(torch.randn(4, 3, 100), num_views=4, num_videos=5).shape == (1, NUM_FRAMES, 100)


def test_if_all_videos_are_alike_there_are_no_pairs():
    same = torch.ones(1, 12, NUM_FRAMES, 8)
    assert find_pairs(same, [(-1, str(video)) for video in range(12)], [0] * 12) == []


@pytest.mark.parametrize(("size", "num_pairs"), [(1, 1), (3, 9), (10, 100)])
def test_a_class_cut_from_one_recording_is_found(size: int, num_pairs: int):
    """All of class 0 is one scene, in two groups, so that nothing in it stands out; class 1 is another's."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.randn(1, 1, 512, generator=generator)
    others = torch.randn(12, 1, 512, generator=generator)
    centres = torch.cat([scene.expand(2 * size, 1, 512), others])
    features = (centres + 0.05 * torch.randn(2 * size + 12, NUM_FRAMES, 512, generator=generator))[None]
    units = [(0, str(video // size)) for video in range(2 * size)] + [(1, str(video)) for video in range(12)]
    pairs = find_pairs(features, units, [0] * 2 * size + [1] * 12)
    assert len(pairs) == num_pairs
    assert all(pair.second < 2 * size for pair in pairs)


def test_groups_are_joined_by_the_pairs_that_connect_them():
    units = [(-1, name) for name in "abcdea"]
    assert join_units(units, [(0, 1), (2, 1), (3, 3)]) == [[(-1, "a"), (-1, "b"), (-1, "c")]]
    assert join_units(units, [(5, 4)]) == [[(-1, "a"), (-1, "e")]]
    assert join_units(units, []) == []


def test_frames_are_spread_over_all_views_and_kept_apart_by_crop():
    steps = torch.arange(15.0).repeat_interleave(2)  # frame f of crop c is 2 * f + c, three views of five steps
    features = torch.stack([2 * steps[::2].view(3, 5), 2 * steps[::2].view(3, 5) + 1], dim=1).flatten(0, 1)[..., None]
    chosen = choose_frames(features, num_views=3)
    assert chosen.shape == (2, NUM_FRAMES, 1)
    assert chosen[0, :, 0].tolist() == [0, 4, 8, 12, 16, 20, 24, 28]
    assert chosen[1, :, 0].tolist() == [1, 5, 9, 13, 17, 21, 25, 29]


def test_wide_features_are_narrowed_and_keep_their_angles():
    wide = torch.randn(4, 3, 5000, generator=torch.Generator().manual_seed(0))
    narrow = choose_frames(wide, num_views=4)
    assert narrow.shape == (1, NUM_FRAMES, 1024)
    expected = torch.nn.functional.cosine_similarity(wide[0, 0], wide[0, 0] + wide[3, 2], dim=0)
    cosine = torch.nn.functional.cosine_similarity(narrow[0, 0], narrow[0, 0] + narrow[0, -1], dim=0)
    assert cosine == pytest.approx(float(expected), abs=0.1)

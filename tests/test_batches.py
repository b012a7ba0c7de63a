"""Batches of stored features hold every view once, with the same bits as from frames, and are computed once."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import Clips, Counter, Images, TwoCrops, make_corpus, make_frames, make_stored
from torch import Tensor, nn
from videos import encode_video

from vidclf.contracts import PARTS, Views
from vidclf.data.corpus import Corpus
from vidclf.data.sampling import Dense, Rate, Segments, Uniform
from vidclf.data.splits import Official
from vidclf.data.transforms import BackboneTransform, TutorialTransform
from vidclf.features import batches as batches_module
from vidclf.features.batches import StoredFeatures
from vidclf.models.backbones.wrap import wrap
from vidclf.system.disk import empty_on_disk

FORMAT = Images.picture_format


@pytest.fixture
def root(ucf101_tree: Callable[..., Path]) -> Path:
    """16 clips of 12 frames at 25 fps: `Rate(10)` takes every second, `Rate(5)` every fifth."""
    return ucf101_tree()


def names(batches: Iterable[Views]) -> list[tuple[int, int]]:
    return [pair for batch in batches for pair in zip(batch.video.tolist(), batch.view.tolist(), strict=True)]


def inputs(batches: Iterable[Views]) -> Tensor:
    return torch.cat([batch.inputs for batch in batches])


def scored(root: Path, part: str = "test", backbone: nn.Module | None = None, **settings: Any) -> tuple[Tensor, list]:
    """Return all features of a part from the store, and their videos and views; compute missing ones."""
    transform = settings.pop("transform", None)
    corpus = make_corpus(root, **settings)
    source = make_stored(corpus, root, backbone, transform=transform)
    source.prepare(corpus.views(part))
    batches = list(source.scoring_batches(corpus.views(part), batch_size=4))
    return inputs(batches), names(batches)


# Computed once


def test_a_second_training_computes_nothing_and_reads_the_same(root: Path):
    before = {name: row for part in PARTS for row, name in zip(*scored(root, part), strict=True)}
    backbone = Images()
    counter = Counter(backbone)
    again = {
        n: row for part in PARTS for row, n in zip(*scored(root, part, backbone, split=Official(seed=5)), strict=True)
    }
    assert counter.count == 0
    assert before.keys() == again.keys()
    assert all(torch.equal(before[name], row) for name, row in again.items())


def test_another_rate_computes_only_the_missing_frames(root: Path):
    counts = []
    for sampling in (Rate(5), Rate(10), Uniform(3), Rate(5)):
        corpus = make_corpus(root, sampling=sampling)
        computed = make_stored(corpus, root).prepare([video for part in PARTS for video in corpus.views(part)])
        counts.append(computed / 16)
    # Frames 0 5 10; of 0 2 4 6 8 10 four are new; of 0 6 11 one is.
    assert counts == [3, 4, 1, 0]


def test_only_a_changed_video_is_computed_again(root: Path):
    before, labels = scored(root)
    encode_video(sorted(root.rglob("*.avi"))[0], num_frames=12, seed=99)
    backbone = Images()
    counter = Counter(backbone)
    after, _ = scored(root, backbone=backbone)
    assert counter.count == 6
    changed = [not torch.equal(*rows) for rows in zip(before, after, strict=True)]
    assert {name[0] for name, has in zip(labels, changed, strict=True) if has} == {0}


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": lambda: Images(seed=1)},
        {"transform": TutorialTransform(FORMAT)},
        {"transform": TwoCrops(FORMAT)},
        {"backbone": lambda: in_bfloat16(Images())},
    ],
    ids=["weights", "transform", "crops", "number format"],
)
def test_old_features_are_not_used_after_a_change(change: dict[str, Any], root: Path):
    scored(root, "val")
    backbone = change.get("backbone", Images)()
    counter = Counter(backbone)
    features, _ = scored(root, "val", backbone, transform=change.get("transform"))
    assert counter.count == len(features) == 24 * getattr(change.get("transform"), "num_crops", 1)


def in_bfloat16(backbone: nn.Module) -> nn.Module:
    backbone.bfloat16().precision = "bfloat16"
    backbone.register_forward_pre_hook(lambda _, arguments: (arguments[0].bfloat16(),))
    return backbone


# The same bits either way


@pytest.mark.parametrize("crops", [BackboneTransform, TwoCrops])
@pytest.mark.parametrize(
    ("backbone", "sampling"),
    [(Images, Rate(10)), (Images, Dense(3, 4, 2)), (Clips, Uniform(4)), (Clips, Dense(3, 4, 2))],
)
def test_stored_features_are_those_of_the_frames(backbone: type, sampling: Any, crops: type, root: Path):
    transform = crops(backbone.picture_format)
    stored, labels = scored(root, "val", backbone(), sampling=sampling, transform=transform)
    corpus = make_corpus(root, sampling=sampling)
    batches = list(make_frames(corpus, transform=transform).scoring_batches(corpus.views("val")))
    assert names(batches) == labels
    assert torch.equal(wrap(backbone())(inputs(batches)), stored)
    num_views = len(sampling(12, 25.0)) * transform.num_crops
    assert labels == [(video, view) for video in sorted({name[0] for name in labels}) for view in range(num_views)]


# Batches


def ready(root: Path, **settings: Any) -> tuple[Corpus, StoredFeatures]:
    corpus = make_corpus(root, **settings)
    source = make_stored(corpus, root)
    source.prepare([video for part in ("train", "val") for video in corpus.views(part)])
    return corpus, source


def test_training_is_every_view_once_in_another_order_each_epoch(root: Path):
    corpus, source = ready(root)
    epochs = [list(source.training_batches(corpus.views("train"), 5, epoch)) for epoch in (0, 1, 1)]
    in_order = list(source.scoring_batches(corpus.views("train"), 5))
    assert [len(batch.labels) for batch in epochs[0]] == [5, 5, 5, 5, 4]
    assert sorted(names(epochs[0])) == sorted(names(epochs[1])) == names(in_order)
    assert len(names(in_order)) == 4 * 6
    assert names(epochs[0]) != names(epochs[1]) == names(epochs[2]) != names(in_order)
    feature_of = dict(zip(names(in_order), inputs(in_order), strict=True))
    assert all(torch.equal(feature_of[n], row) for n, row in zip(names(epochs[0]), inputs(epochs[0]), strict=True))


def test_without_a_size_a_batch_is_one_video(root: Path):
    corpus, source = ready(root)
    loader = source.scoring_batches(corpus.views("val"))
    assert len(loader) == 4
    assert [batch.video.unique().tolist() for batch in loader] == [[video.video] for video in corpus.views("val")]


def test_features_that_are_damaged_after_they_were_prepared_are_computed_anew(
    root: Path, capsys: pytest.CaptureFixture[str]
):
    """Its size and time stay: only the checksum tells."""
    corpus, source = ready(root)
    expected = inputs(source.scoring_batches(corpus.views("val")))
    for damaged in sorted(source.store.folder.rglob("*.safetensors")):
        status, content = damaged.stat(), damaged.read_bytes()
        damaged.write_bytes(content[: len(content) - 40] + bytes(40))
        os.utime(damaged, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert source.prepare(corpus.views("val")) == 0
    assert torch.equal(inputs(source.scoring_batches(corpus.views("val"))), expected)
    said = capsys.readouterr().err
    assert said.count("the stored features are damaged (wrong checksum). They are computed anew.") == 4


def test_random_draws_are_few_and_computed_once(root: Path):
    """With a new draw in each epoch, the store would grow without end."""
    corpus = make_corpus(root, sampling=Segments(3))
    source = make_stored(corpus, root, num_draws=2)
    views = [corpus.views("train", source.draw_of(epoch)) for epoch in range(6)]
    assert views[0] is views[2] is views[4] is not views[1]
    source.prepare([video for of_epoch in views for video in of_epoch])
    counter = Counter(source.extractor.backbone.backbone)
    contents = [
        inputs(source.training_batches(of_epoch, 4, epoch)).sum().item() for epoch, of_epoch in enumerate(views)
    ]
    assert counter.count == 0
    assert len({round(content, 3) for content in contents}) == 2


def test_features_of_each_epoch_are_read_once(root: Path, monkeypatch: pytest.MonkeyPatch):
    corpus, source = ready(root)
    reads = []
    read = source.store.read
    monkeypatch.setattr(source.store, "read", lambda content, *a: reads.append(content) or read(content, *a))
    for epoch in range(3):
        list(source.training_batches(corpus.views("train", epoch), 4, epoch))
        list(source.scoring_batches(corpus.views("val"), 4, keep_as="val"))
    assert len(reads) == 4 + 4 + 2  # the first video of each list twice, once for its shape


@pytest.mark.parametrize("batch_size", [3, 5])
def test_two_processes_have_the_batches_of_one_between_them(
    batch_size: int, root: Path, monkeypatch: pytest.MonkeyPatch
):
    corpus, source = ready(root)
    views = corpus.views("train")
    whole = [sorted(names([batch])) for batch in source.training_batches(views, batch_size, 0)]
    halves = []
    for rank in (0, 1):
        monkeypatch.setattr(batches_module, "rank_and_size", lambda rank=rank: (rank, 2))
        monkeypatch.setattr(
            batches_module, "of_rank", lambda views, of=None, rank=rank: views[rank if of is None else of :: 2]
        )
        _, source = ready(root)
        halves.append(list(source.training_batches(views, batch_size, 0)))
        assert (
            len(list(source.scoring_batches(views[:3], 4, keep_as="val"))) == 3
        )  # 12 views of the first process, in fours
        assert {video for video, _ in names(source.scoring_batches(views))} == {video.video for video in views[rank::2]}
    for first, second, both in zip(*halves, whole, strict=True):
        assert sorted(name for name in names([first, second]) if name[0] >= 0) == both
        assert min(len(first.labels), len(second.labels)) > 0  # padding if a process has no view


def test_features_that_do_not_fit_into_memory_are_mapped(root: Path, monkeypatch: pytest.MonkeyPatch):
    expected = scored(root, "train")[0]
    mapped = []
    monkeypatch.setattr(batches_module, "free_memory", lambda: expected.nbytes)
    monkeypatch.setattr(batches_module, "empty_on_disk", lambda *a: mapped.append(a[1]) or empty_on_disk(*a))
    assert torch.equal(scored(root, "train")[0], expected)
    assert mapped == [tuple(expected.shape)]


def test_a_process_without_videos_of_a_part_has_no_batch(root: Path):
    _, source = ready(root)
    assert len(source.scoring_batches([])) == len(source.scoring_batches([], 4)) == 0

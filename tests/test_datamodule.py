"""From a tree of real clips to batches: computed once, the same bits either way, damage counted."""

import shutil
from collections import Counter as Count
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from doubles import Clips, Counter, Pictures, TwoCrops, halve, make_datamodule, spoil
from torch import Tensor, nn
from videos import encode_video

from vidclf import datamodule as datamodule_module
from vidclf.contracts import PARTS, VideoError
from vidclf.data.sampling import Dense, Rate, Segments, Uniform
from vidclf.data.splits import Official
from vidclf.data.transforms import BackboneTransform, TutorialTransform
from vidclf.datamodule import VideoDataModule
from vidclf.errors import VidclfError
from vidclf.system.disk import empty_on_disk

NUM_VIDEOS = {"train": 4, "val": 4, "test": 8}  # of the tree below; groups 1 and 2 of a class test


@pytest.fixture
def root(ucf101_tree: Callable[..., Path]) -> Path:
    """16 clips of 12 frames at 25 fps: `Rate(10)` takes every second, `Rate(5)` every fifth."""
    return ucf101_tree()


def of_part(datamodule: VideoDataModule, part: str) -> tuple[Tensor, list[tuple[int, int]]]:
    """All features of a part, whichever way they come, and the (video, view) of each."""
    datamodule.scored_part = part
    datamodule.setup("predict")
    batches = list(datamodule.scoring_batches(part, batch_size=4))
    inputs = torch.cat([batch.inputs for batch in batches])
    names = [name for batch in batches for name in zip(batch.video.tolist(), batch.view.tolist(), strict=True)]
    return (inputs if datamodule.stores_features else datamodule.backbone(inputs)), names


def by_view(datamodule: VideoDataModule) -> dict[tuple[int, int], Tensor]:
    """The features of every view of all parts."""
    return {name: row for part in PARTS for row, name in zip(*of_part(datamodule, part), strict=True)}


def at_epoch(datamodule: VideoDataModule, epoch: int) -> VideoDataModule:
    """As a Trainer in this epoch has it."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    datamodule.trainer = SimpleNamespace(current_epoch=epoch, strategy=strategy, reload_dataloaders_every_n_epochs=1)
    return datamodule


def of_epoch(datamodule: VideoDataModule, epoch: int) -> list[tuple[int, int, list[float]]]:
    """The training views of an epoch, in their order: video, view and the begin of what is in them."""
    batches = list(at_epoch(datamodule, epoch).train_dataloader())
    rows = [batch.inputs.flatten(1)[:, :500].double().sum(1) for batch in batches]
    parts = [torch.cat([batch[i] for batch in batches]).tolist() for i in (2, 3)]
    return list(zip(*parts, torch.cat(rows).tolist(), strict=True))


# Computed once


def test_a_second_training_computes_nothing_and_reads_the_same(root: Path):
    before = by_view(make_datamodule(root))
    backbone = Pictures()
    counter = Counter(backbone)
    second = make_datamodule(root, backbone, batch_size=7, seed=3, split=Official(seed=5))
    again = by_view(second)
    assert counter.count == 0
    assert before.keys() == again.keys()
    assert all(torch.equal(before[name], row) for name, row in again.items())


def test_another_rate_computes_only_the_frames_that_are_not_there(root: Path):
    counts = []
    for sampling in (Rate(5), Rate(10), Uniform(3), Rate(5)):
        backbone = Pictures()
        counter = Counter(backbone)
        datamodule = make_datamodule(root, backbone, sampling=sampling)
        datamodule.prepare()
        computed = datamodule.extract([one for part in PARTS for one in datamodule.draw(part)])
        assert computed == counter.count
        counts.append(computed / 16)
    # Frames 0 5 10; of 0 2 4 6 8 10 four are new; of 0 6 11 one is.
    assert counts == [3, 4, 1, 0]


def test_only_what_training_and_validation_read_is_computed_before_training(root: Path):
    backbone = Pictures()
    counter = Counter(backbone)
    datamodule = at_epoch(make_datamodule(root, backbone, sampling=Segments(4)), 0)
    datamodule.setup("fit")
    assert counter.count == 4 * (NUM_VIDEOS["train"] + NUM_VIDEOS["val"])
    list(datamodule.train_dataloader())
    list(datamodule.val_dataloader())
    datamodule.train_features()
    assert counter.count == 4 * (NUM_VIDEOS["train"] + NUM_VIDEOS["val"])


def test_a_changed_video_is_computed_anew_and_no_other(root: Path):
    backbone = Pictures()
    counter = Counter(backbone)
    before, names = of_part(make_datamodule(root, backbone), "test")
    path = sorted(root.rglob("*.avi"))[0]
    encode_video(path, num_frames=12, seed=99)
    counter.count = 0
    after, _ = of_part(make_datamodule(root, backbone), "test")
    assert counter.count == 6
    changed = [not torch.equal(*rows) for rows in zip(before, after, strict=True)]
    assert {name[0] for name, has in zip(names, changed, strict=True) if has} == {0}
    assert torch.equal(after, of_part(make_datamodule(root, backbone, features="frames"), "test")[0])


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": Pictures(seed=1)},
        {"transform": TutorialTransform(Pictures.picture_format)},
        {"transform": TwoCrops(Pictures.picture_format)},
        {"backbone": Pictures().bfloat16()},
    ],
    ids=["weights", "transform", "crops", "number format"],
)
def test_old_features_are_not_served_after_a_change(change: dict, root: Path):
    of_part(make_datamodule(root), "val")
    backbone = change.pop("backbone", Pictures())
    if next(backbone.parameters()).dtype == torch.bfloat16:
        backbone.precision = "bfloat16"
        backbone.register_forward_pre_hook(lambda _, arguments: (arguments[0].bfloat16(),))
    counter = Counter(backbone)
    features, _ = of_part(make_datamodule(root, backbone, **change), "val")
    assert (
        counter.count
        == len(features)
        == 24 * change.get("transform", BackboneTransform(Pictures.picture_format)).num_crops
    )
    assert torch.equal(features, of_part(make_datamodule(root, backbone, features="frames", **change), "val")[0])


# The same bits either way


@pytest.mark.parametrize("crops", [BackboneTransform, TwoCrops])
@pytest.mark.parametrize(
    ("backbone", "sampling"),
    [
        (Pictures, Rate(10)),
        (Pictures, Uniform(3)),
        (Pictures, Dense(3, 4, 2)),
        (Clips, Uniform(4)),
        (Clips, Dense(3, 4, 2)),
    ],
)
def test_stored_features_are_those_of_the_frames(backbone: type, sampling: object, crops: type, root: Path):
    settings = {"sampling": sampling, "transform": crops(backbone.picture_format)}
    stored, names = of_part(make_datamodule(root, backbone(), features="store", **settings), "val")
    decoded, same_names = of_part(make_datamodule(root, backbone(), features="frames", **settings), "val")
    assert names == same_names
    assert torch.equal(stored, decoded)
    num_views = len(sampling(12, 25.0)) * settings["transform"].num_crops
    assert names == [(video, view) for video in sorted({name[0] for name in names}) for view in range(num_views)]
    num_frames = sampling(12, 25.0).shape[1]
    assert stored.shape[1:] == ((2, 5) if backbone is Clips else (num_frames, 6))


@pytest.mark.parametrize("sampling", [Rate(10), Segments(4)])
def test_heads_are_scaled_by_the_same_features_either_way(sampling: object, root: Path):
    stored, decoded = (make_datamodule(root, features=features, sampling=sampling) for features in ("store", "frames"))
    for datamodule in (stored, decoded):
        at_epoch(datamodule, 0).setup("fit")
    assert torch.equal(stored.train_features(), decoded.train_features())


def test_evaluation_gives_one_video_a_batch(root: Path):
    for features in ("store", "frames"):
        datamodule = make_datamodule(root, features=features)
        datamodule.scored_part = "test"
        datamodule.setup("predict")
        loader = datamodule.predict_dataloader()
        assert [batch.video.unique().numel() for batch in loader] == [1] * 8
        assert len(loader) == 8


# Epochs


@pytest.mark.parametrize("features", ["store", "frames"])
@pytest.mark.parametrize("sampling", [Segments(3), Dense(2, 3, 1)])
def test_a_random_sampling_draws_one_view_a_video_anew_each_epoch(sampling: object, features: str, root: Path):
    settings = {"sampling": sampling, "features": features}
    datamodule, again, other = (make_datamodule(root, seed=seed, **settings) for seed in (0, 0, 1))
    for one in (datamodule, again, other):
        at_epoch(one, 0).setup("fit")
    epochs = [of_epoch(datamodule, epoch) for epoch in range(3)]
    for epoch in epochs:
        assert sorted((video, view) for video, view, _ in epoch) == [(v, 0) for v in sorted({e[0] for e in epoch})]
        assert len(epoch) == NUM_VIDEOS["train"]
    assert len({one.frames[0, 0].item() for one in datamodule.draw("train", 0)}) > 1  # not one draw for all
    contents = [sorted(content for *_, content in epoch) for epoch in epochs]
    assert contents[0] != contents[1] != contents[2] != contents[0]
    assert of_epoch(again, 2) == epochs[2]  # without the epochs before it, as a resumed run
    assert of_epoch(other, 2) != epochs[2]


@pytest.mark.parametrize("features", ["store", "frames"])
def test_a_sampling_without_chance_gives_every_view_in_another_order_each_epoch(features: str, root: Path):
    datamodule, again = (make_datamodule(root, features=features) for _ in range(2))
    for one in (datamodule, again):
        at_epoch(one, 0).setup("fit")
    epochs = [of_epoch(datamodule, epoch) for epoch in range(2)]
    assert len(epochs[0]) == len(set(epochs[0])) == 6 * NUM_VIDEOS["train"]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])
    assert of_epoch(again, 1) == epochs[1]


def test_frames_are_decoded_once_a_video_and_epoch(root: Path, monkeypatch: pytest.MonkeyPatch):
    decoded = Count()

    def decode_and_count(path: Path, frames: Tensor) -> Tensor:
        decoded[path.name] += 1
        return decode(path, frames)

    decode = datamodule_module.decode_frames
    monkeypatch.setattr(datamodule_module, "decode_frames", decode_and_count)
    datamodule = make_datamodule(root, features="frames")
    at_epoch(datamodule, 0).setup("fit")
    loader = datamodule.train_dataloader()
    sizes = [len(batch.labels) for batch in loader]
    assert sizes == [4] * 6
    assert set(decoded.values()) == {1}
    assert len(decoded) == NUM_VIDEOS["train"]
    datamodule.batch_size = 5
    assert [len(batch.labels) for batch in datamodule.train_dataloader()] == [5, 5, 5, 5, 4]


def test_a_trainer_that_keeps_its_batches_is_told(root: Path, capsys: pytest.CaptureFixture):
    datamodule = at_epoch(make_datamodule(root), 0)
    datamodule.setup("fit")
    capsys.readouterr()
    datamodule.train_dataloader()
    assert capsys.readouterr().err == ""
    datamodule.trainer.reload_dataloaders_every_n_epochs = 0
    datamodule.train_dataloader()
    assert "reload_dataloaders_every_n_epochs is not 1: epochs repeat the draws" in capsys.readouterr().err


def test_frame_level_validation_puts_single_views_on_a_side(root: Path):
    with pytest.warns(UserWarning, match="both sides of train and val"):
        names, other_names = (
            of_part(make_datamodule(root, split=Official(validation="frame_level")), part)[1]
            for part in ("train", "val")
        )
    assert len(names) + len(other_names) == 8 * 6
    assert not set(names) & set(other_names)
    assert {video for video, _ in names} & {video for video, _ in other_names}


@pytest.mark.parametrize("sampling", [Segments(3), Dense(2, 3, 1)])
def test_frame_level_validation_refuses_views_drawn_by_chance(sampling: object, root: Path):
    datamodule = make_datamodule(root, sampling=sampling, split=Official(validation="frame_level"))
    name = type(sampling).__name__
    with pytest.raises(VidclfError, match=rf"frame_level.*{name} draws its training views by chance.*sampling=rate"):
        datamodule.prepare()


# What may be stored


@dataclass(frozen=True)
class RandomTransform(TwoCrops):
    random: ClassVar[bool] = True


@pytest.mark.parametrize(
    ("backbone", "transform", "reason"),
    [
        (Pictures().requires_grad_(), BackboneTransform(Pictures.picture_format), "the backbone is trained"),
        (Pictures(), RandomTransform(Pictures.picture_format), "RandomTransform draws by chance"),
    ],
)
def test_auto_falls_back_to_frames_and_says_why(
    backbone: nn.Module, transform: object, reason: str, root: Path, capsys: pytest.CaptureFixture
):
    assert not make_datamodule(root, backbone, transform=transform).stores_features
    assert f"features=auto reads frames, not the store: {reason}" in capsys.readouterr().err
    with pytest.raises(VidclfError, match=rf"features=store: {reason}.*Use features=frames or features=auto\."):
        make_datamodule(root, backbone, transform=transform, features="store")
    assert not make_datamodule(root, backbone, transform=transform, features="frames").stores_features
    assert capsys.readouterr().err == ""


def test_auto_stores_what_can_be_stored(root: Path, capsys: pytest.CaptureFixture):
    assert make_datamodule(root).stores_features
    assert make_datamodule(root, features="store").stores_features
    assert not make_datamodule(root, features="frames").stores_features
    assert capsys.readouterr().err == ""


def test_an_unknown_source_of_features_is_a_sentence(root: Path):
    with pytest.raises(VidclfError, match=r"features=sotre: unknown; use one of auto, store, frames\."):
        make_datamodule(root, features="sotre")


def test_space_is_asked_for_before_the_work_starts(root: Path, monkeypatch: pytest.MonkeyPatch):
    backbone = Pictures()
    counter = Counter(backbone)
    monkeypatch.setattr(Pictures, "feature_dim", 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 10**9))
    datamodule = make_datamodule(root, backbone, transform=TwoCrops(backbone.picture_format))
    # 8 videos, 6 frames, 2 crops, 10^8 numbers, 4 bytes
    with pytest.raises(VidclfError, match=r"38\.40 GB needed, 5\.00 GB free\. .*store\.root="):
        at_epoch(datamodule, 0).setup("fit")
    assert counter.count == 0


def test_a_store_that_is_a_file_is_a_sentence(root: Path):
    (root.parent / "file").touch()
    for features in ("store", "frames"):  # what is known of the videos is kept there either way
        with pytest.raises(VidclfError, match=r"file: cannot write \(File exists\).*store\.root="):
            make_datamodule(root, store=root.parent / "file", features=features).prepare()


# Damage


def damage(root: Path, group: int) -> list[str]:
    """Three damaged clips of one group: found at once, found by decoding, and no video at all; their names."""
    clips = sorted(root.rglob(f"*_g{group:02d}_*.avi"))
    halve(clips[0])
    spoil(clips[1])
    clips[2].write_text("no video")
    return [path.name for path in clips[:3]]


@pytest.mark.parametrize("features", ["store", "frames"])
def test_damaged_videos_are_left_out_counted_and_listed(features: str, root: Path):
    names = damage(root, group=1)
    datamodule = make_datamodule(root, features=features, on_error="skip")
    _, scored = of_part(datamodule, "test")
    assert sorted(datamodule.videos[video].path.name for video in datamodule.failed) == sorted(names)
    assert all(
        name in str(datamodule.failed[video]) for video, name in zip(sorted(datamodule.failed), names, strict=True)
    )
    assert {video for video, _ in scored}.isdisjoint(datamodule.failed)
    assert len({video for video, _ in scored}) == 5
    assert datamodule.part_size("test") == 8
    assert of_part(datamodule, "test")[1] == scored  # a second pass leaves out the same


@pytest.mark.parametrize("features", ["store", "frames"])
@pytest.mark.parametrize("hurt", [halve, spoil])
def test_a_damaged_video_raises_by_default(hurt: Callable[[Path], Path], features: str, root: Path):
    path = hurt(sorted(root.rglob("*.avi"))[2])
    with pytest.raises(VideoError, match=rf"{path.name}: .*damaged.*dataset\.on_error=skip"):
        of_part(make_datamodule(root, features=features), "test")


def test_what_was_computed_before_the_damage_is_kept(root: Path):
    spoil(sorted(root.rglob("*_g02_c02.avi"))[-1])  # the last of the test part
    with pytest.raises(VideoError, match="damaged"):
        of_part(make_datamodule(root), "test")
    backbone = Pictures()
    counter = Counter(backbone)
    _, scored = of_part(make_datamodule(root, backbone, on_error="skip"), "test")
    assert len({video for video, _ in scored}) == 7
    assert counter.count == 0


@pytest.mark.parametrize("features", ["store", "frames"])
@pytest.mark.parametrize("hurt", [halve, spoil])
def test_an_epoch_has_the_batches_it_announces_whatever_is_damaged(hurt: Callable, features: str, root: Path):
    """Lightning does not validate an epoch that ends before the number of batches it was told."""
    sound = make_datamodule(root)
    sound.prepare()
    train = [sound.videos[video].path for video, _ in sound.sides.views_of("train")]
    for path in train[1:3]:
        hurt(path)
    datamodule = at_epoch(make_datamodule(root, features=features, on_error="skip"), 0)
    datamodule.setup("fit")
    loader = datamodule.train_dataloader()
    assert len(loader) == len(list(loader)) == 3  # two videos of six views, in fours
    assert len(datamodule.failed) == 2


@pytest.mark.parametrize("validation", ["group", "frame_level"])
@pytest.mark.filterwarnings("ignore:.*frame_level")
def test_scored_and_failed_videos_are_the_part_in_every_split(validation: str, root: Path):
    damage(root, group=2)
    datamodule = make_datamodule(root, on_error="skip", split=Official(validation=validation))
    _, scored = of_part(datamodule, "test")
    assert len({video for video, _ in scored}) == 5
    assert datamodule.part_size("test") == 8


@pytest.mark.parametrize("features", ["store", "frames"])
@pytest.mark.parametrize("hurt", [halve, spoil])
def test_a_part_without_a_sound_video_is_a_sentence(hurt: Callable, features: str, root: Path):
    for path in [path for path in root.rglob("*.avi") if "_g01_" in path.name or "_g02_" in path.name]:
        hurt(path)
    datamodule = make_datamodule(root, features=features, on_error="skip")
    with pytest.raises(
        VidclfError, match=r"(No video of the test part can be read, 8 failed|None of 8 videos).*g0[12]_c0"
    ):
        of_part(datamodule, "test")


def test_a_part_without_videos_is_a_sentence(ucf101_tree: Callable[..., Path]):
    datamodule = make_datamodule(ucf101_tree(groups=(8, 9)))
    with pytest.raises(VidclfError, match=r"The test part has no videos; check dataset\.root.*split\.number"):
        of_part(datamodule, "test")


def test_features_that_do_not_fit_into_memory_are_mapped(root: Path, monkeypatch: pytest.MonkeyPatch):
    expected = of_part(make_datamodule(root), "train")[0]
    mapped = []
    monkeypatch.setattr("vidclf.features.store.free_memory", lambda: expected.nbytes)
    make = empty_on_disk
    monkeypatch.setattr("vidclf.features.store.empty_on_disk", lambda *a: mapped.append(a[1]) or make(*a))
    assert torch.equal(of_part(make_datamodule(root), "train")[0], expected)
    assert mapped == [tuple(expected.shape)]


def test_a_worker_that_dies_is_told_with_its_video_or_left_out(root: Path, monkeypatch: pytest.MonkeyPatch):
    decode = datamodule_module.decode_frames

    def die(path: Path, frames: Tensor) -> Tensor:
        if path.name == "v_Archery_g08_c01.avi":
            raise MemoryError("no room for a picture")
        return decode(path, frames)

    monkeypatch.setattr(datamodule_module, "decode_frames", die)
    raising = make_datamodule(root, features="frames")
    with pytest.raises(VideoError, match=r"g08_c01\.avi: the worker that read it failed \(MemoryError: no room"):
        of_part(raising, "train") and of_part(raising, "val")
    skipping = make_datamodule(root, features="frames", on_error="skip")
    assert len(of_part(skipping, "train")[1]) + len(of_part(skipping, "val")[1]) == 7 * 6
    assert len(skipping.failed) == 1


def test_a_compile_setting_that_is_none_is_refused(root: Path):
    with pytest.raises(VidclfError, match="compile=maybe: allowed are auto, true, false"):
        make_datamodule(root, compile="maybe")

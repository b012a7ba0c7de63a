"""Bad input gives a sentence on stderr, nothing on stdout, exit status 1 and no stack trace."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from verbs import SMALL, Outcome
from videos import encode_video, write_ucf101_tree

CLIP = "Archery/v_Archery_g08_c01.avi"


@pytest.fixture
def root(clips: Path, tmp_path: Path) -> Path:
    """A copy of the session's clips, to be spoiled."""
    return shutil.copytree(clips, tmp_path / "UCF-101")


@pytest.fixture
def refused(vidclf: Callable[..., Outcome], root: Path) -> Callable[..., None]:
    """`refused(sentence, "seed=1")` trains on the spoiled clips and expects that error."""

    def train(sentence: str, *arguments: str) -> None:
        outcome = vidclf("train", f"dataset.root={root}", *SMALL, *arguments)
        assert (outcome.status, outcome.out) == (1, ""), outcome.err
        assert sentence in outcome.err
        assert "Traceback" not in outcome.err

    return train


def test_a_missing_root_shows_the_expected_tree(refused: Callable[..., None], tmp_path: Path):
    refused("nowhere/Archery/v_Archery_g01_c01.avi", f"dataset.root={tmp_path}/nowhere")
    refused("(1)/Archery/v_Archery_g01_c01.avi", f"dataset.root={tmp_path}/nowhere (1)")


def test_an_empty_root_shows_the_expected_tree(refused: Callable[..., None], tmp_path: Path):
    (tmp_path / "empty").mkdir()
    refused("empty/Archery/v_Archery_g01_c01.avi", f"dataset.root={tmp_path}/empty")


def test_a_class_folder_without_videos_is_named(refused: Callable[..., None], root: Path):
    (root / "Biking").mkdir()
    refused(f"{root}/Biking: the class folder holds no .avi file")


def test_a_file_name_without_a_group_is_named(refused: Callable[..., None], root: Path):
    (root / CLIP).rename(root / "Archery" / "holiday.avi")
    refused("holiday.avi: the")


def test_lists_that_name_missing_videos_count_them_and_may_be_told_to_go_on(
    refused: Callable[..., None], vidclf: Callable[..., Outcome], root: Path, tmp_path: Path
):
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    names = [f"{path.parent.name}/{path.name}" for path in sorted(root.rglob("*.avi"))]
    test = [name for name in names if "_g01_" in name or "_g02_" in name]
    (lists / "testlist01.txt").write_text("".join(f"{name}\n" for name in test))
    train = [name for name in names if name not in test]
    (lists / "trainlist01.txt").write_text("".join(f"{name} 1\n" for name in train))
    (root / CLIP).unlink()
    refused(f"1 of 20 videos that the lists in {lists} name are not in {root}: {CLIP}", f"dataset.lists={lists}")
    arguments = (f"dataset.root={root}", f"dataset.lists={lists}", *SMALL, "dataset.allow_missing=true")
    with pytest.warns(UserWarning, match="1 of 20 videos that the lists"):
        outcome = vidclf("train", *arguments, "trainer.max_epochs=1", "~callbacks.view_sheets")
    assert outcome.status == 0, outcome.err


def spoil(path: Path, kind: str) -> None:
    content = path.read_bytes()
    middle = 9 * len(content) // 10  # of the images: most of so small a file is its header's padding
    if kind == "text":
        path.write_text("no video\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(content[:middle])
    elif kind == "garbage in the middle":
        path.write_bytes(content[: middle - 250] + bytes(range(250)) * 2 + content[middle + 250 :])


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("text", "FFmpeg finds no video in its 9 bytes"),
        ("empty", "the file is empty (0 bytes)"),
        ("cut", "of its mpeg4 video decodes. It is damaged from its beginning, or of a kind"),
        ("garbage in the middle", "of its mpeg4 video decodes. It is damaged from its beginning, or of a kind"),
    ],
)
def test_a_file_that_is_no_sound_video_is_named(kind: str, sentence: str, refused: Callable[..., None], root: Path):
    spoil(root / CLIP, kind)
    refused(sentence)


def test_a_file_with_sound_only_is_named(refused: Callable[..., None], root: Path, tmp_path: Path):
    with_sound = encode_video(tmp_path / "clip.avi", audio="mp2")
    sound_only(with_sound, root / CLIP)
    refused(f"{root / CLIP}: no video stream, only audio")


def sound_only(source: Path, target: Path) -> None:
    import av

    with av.open(str(source)) as video, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(video.streams.audio[0])
        for packet in video.demux(video.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)


def test_damaged_videos_are_left_out_counted_and_told_where_that_is_asked_for(
    vidclf: Callable[..., Outcome], root: Path
):
    spoil(root / CLIP, "cut")
    outcome = vidclf("train", f"dataset.root={root}", *SMALL, "dataset.on_error=skip", "~callbacks.view_sheets")
    assert outcome.status == 0, outcome.err
    assert f"left out: {root / CLIP}: " in outcome.err
    assert CLIP in (outcome.run / "failed.csv").read_text()


def test_a_class_with_one_group_to_train_on_is_named(refused: Callable[..., None], tmp_path: Path):
    root = write_ucf101_tree(tmp_path / "few", groups=(1, 8))
    refused("2 class(es) have fewer than two groups of train videos", f"dataset.root={root}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("backbone=image", "backbone.name=vgg61"), "backbone.name=vgg61: torchvision has no image classifier"),
        (
            ("backbone=vgg16", "backbone.layer=fc8"),
            "backbone.layer=fc8: allowed for vgg16 are conv, conv_avg, fc6, fc7",
        ),
        (("backbone=vgg17",), "backbone=vgg17: backbone has no such option. Did you mean vgg16?"),
        (("aggregation=median_of_means",), "aggregation has no such option. Options: custom, "),
        (("head=perceptron",), "head=perceptron: head has no such option"),
        (("scaling=min",), "scaling=min: allowed are auto, standard, max, none"),
        (("head.scaling=max",), "Did you mean scaling=max?"),
        (("+head.scaling=max",), "head.scaling: MLP takes no scaling. Did you mean scaling=max?"),
        (("split.number=4",), "split.number=4: UCF101 has only split 1, 2, 3"),
        (("sampling.rate_hz=0",), "sampling.rate_hz=0: must be a number above 0"),
        (("features=disk",), "features=disk: unknown; use one of auto, store, frames"),
        (("dataset.classes=[Archery,Archerie]",), "Archerie is not one of the 2 classes"),
        (("dataset.rooot=x",), "dataset.rooot: dataset has no setting rooot. Did you mean root?"),
        (("head.widht=[1]",), "head.widht: head has no setting widht. Did you mean widths?"),
        (("sampling.rate_hz=(",), "cannot be read. Quote it: 'sampling.rate_hz=\"(\"'"),
    ],
)
def test_an_unknown_name_is_a_sentence(
    arguments: tuple[str, ...], sentence: str, vidclf: Callable[..., Outcome], clips: Path
):
    small = [argument for argument in SMALL if "backbone" not in " ".join(arguments) or "backbone" not in argument]
    outcome = vidclf("train", f"dataset.root={clips}", *small, *arguments)
    assert (outcome.status, outcome.out) == (1, ""), outcome.err
    assert sentence in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("backbone=tiny", "head=gru"), "head: GRU learns from the order of steps, and each view has 1 of them"),
        (("backbone=tiny", "head=grid", "head.head=attention_pool"), "AttentionPool learns from the order of steps"),
        (("backbone=tiny3d",), "tiny3d sees motion in clips of 16 frames, and each view has one frame"),
        (("backbone=tiny", "sweep=local_parallel"), "sweep=local_parallel: it starts the jobs of a sweep"),
    ],
)
def test_a_setup_that_would_not_do_what_it_says_is_a_sentence(
    arguments: tuple[str, ...], sentence: str, vidclf: Callable[..., Outcome], clips: Path
):
    outcome = vidclf("train", f"dataset.root={clips}", *arguments)
    assert (outcome.status, outcome.out) == (1, ""), outcome.err
    assert sentence in outcome.err
    assert "Examining" not in outcome.err  # before any work


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of downloaded weights, empty, and no network."""

    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_weights_that_cannot_be_fetched_name_the_file_and_its_folder(
    vidclf: Callable[..., Outcome], clips: Path, hub: Path
):
    outcome = vidclf("train", f"dataset.root={clips}", "backbone=image", "backbone.name=squeezenet1_1")
    assert (outcome.status, outcome.out) == (1, "")
    assert f"squeezenet1_1-b8a52dc0.pth is not in {hub} and cannot be fetched" in outcome.err
    assert "Put the file into that folder" in outcome.err


def test_weights_that_are_cut_short_or_another_file_are_refused(vidclf: Callable[..., Outcome], clips: Path, hub: Path):
    hub.mkdir(parents=True)
    (hub / "squeezenet1_1-b8a52dc0.pth").write_bytes(bytes(1000))
    outcome = vidclf("train", f"dataset.root={clips}", "backbone=image", "backbone.name=squeezenet1_1")
    assert (outcome.status, outcome.out) == (1, "")
    assert "SHA-256 begins with" in outcome.err
    assert "cut short, damaged, or another file" in outcome.err


def test_a_store_that_is_no_folder_is_named(refused: Callable[..., None], root: Path):
    refused(f"{root / CLIP}: cannot write", f"store.root={root / CLIP}")


def test_a_full_disk_is_told_before_the_work_starts(refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vidclf.system.disk.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    refused("MB needed, 0.00 MB free. Free space, or name another folder with store.root=")


def test_a_video_whose_name_is_odd_is_trained_on(vidclf: Callable[..., Outcome], root: Path):
    for folder in root.iterdir():
        for path in folder.iterdir():
            path.rename(path.with_name(path.name.replace(folder.name, "a b,c=d (é) ${x}'\"")))
    outcome = vidclf("train", f"dataset.root={root}", *SMALL, "trainer.max_epochs=1")
    assert outcome.status == 1  # the same name in both folders
    assert "is there 2 times" in outcome.err
    for path in (root / "Archery").iterdir():
        path.rename(path.with_name(path.name.replace("a b", "e f")))
    outcome = vidclf("train", f"dataset.root={root}", *SMALL, "trainer.max_epochs=1")
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("trainer.accelerator=tpu", "Requirement 'torch_xla"),
        (
            "trainer.accelerator=tpuu",
            "MisconfigurationException: You selected|ValueError: You selected an invalid accelerator name",
        ),
        ("trainer.precision=fp16", "ValueError: Precision 'fp16' is invalid. Allowed precision values:"),
        ("trainer.gradient_clip_val=much", "trainer.gradient_clip_val=much: must be"),
        ("+trainer.max_epoch=3", "trainer.max_epoch: Trainer takes no max_epoch. Did you mean max_epochs"),
        ("trainer.max_epochs=many", "trainer.max_epochs=many: must be a whole number or null"),
        ("optimizer.lr=-0.1", "ValueError: Invalid learning rate: -0.1"),
        ("+optimizer.rate=1", "optimizer.rate: Adam takes no rate. It takes lr, "),
        ("+scheduler.warmup=1", "scheduler.warmup: constant takes no warmup"),
        ("callbacks.best.mode=least", "`mode` can be min, max but got least"),
        ("+trainer.val_check_interval=1000", "`val_check_interval` .1000. must be less than or equal to the number"),
        (
            "callbacks=early_stopping callbacks.early_stopping.monitor=val/acc",
            "EarlyStopping watches monitor=val/acc, which training does not log. Use one of train/loss, .*val/top1",
        ),
        ("+trainer.limit_val_batches=0", "trainer.limit_val_batches=0: training would never be validated"),
        (
            "+trainer.check_val_every_n_epoch=5 trainer.max_epochs=3",
            "trainer.check_val_every_n_epoch=5 trainer.max_epochs=3 .*: training would never be validated",
        ),
        ("~callbacks.best", "callbacks: none keeps best.ckpt"),
        ("callbacks=null", "callbacks: none keeps best.ckpt"),
        ("head=null", "head=null: "),
        ("+trainer.max_steps=1 batch_size=4", "Training ended after 1 steps, before its first validation"),
    ],
)
def test_what_a_library_refuses_is_a_sentence_with_its_own_reason(
    setting: str, sentence: str, vidclf: Callable[..., Outcome], clips: Path, trained: Outcome
):
    store = f"store.root={trained.run.parents[2] / 'data' / 'features'}"
    small = SMALL[:-1]  # without the sheets, which callbacks=null does not have
    outcome = vidclf("train", f"dataset.root={clips}", store, *small, *setting.split())
    assert (outcome.status, outcome.out) == (1, ""), outcome.err
    assert re.search(sentence, outcome.err), outcome.err
    assert "Traceback" not in outcome.err


def test_a_try_of_a_few_batches_ends_well_and_keeps_nothing(
    vidclf: Callable[..., Outcome], clips: Path, tmp_path: Path
):
    outcome = vidclf("train", f"dataset.root={clips}", *SMALL, "+trainer.fast_dev_run=true")
    assert (outcome.status, outcome.out) == (0, ""), outcome.err
    assert "trainer.fast_dev_run: runs on a few batches; no checkpoint and no scores are kept" in outcome.err
    assert not [*tmp_path.rglob("*.ckpt"), *tmp_path.rglob("metrics.json")]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("batch_size=0", "batch_size=0: must be 1 or more"),
        ("num_threads=-1", "num_threads=-1: must be 1 or more"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0: nothing would be trained"),
        ("dataset.classes=[Archery]", "The data set has one class, Archery: nothing to tell apart"),
        ("layer_decay=0", "layer_decay=0: must be"),
        ("loss.label_smoothing=2", "loss.label_smoothing=2: must be"),
        ("mixing=mixup mixing.mixup=0", "give one of them above 0, or mixing=none"),
    ],
)
def test_a_setting_that_makes_no_sense_is_told(refused: Callable[..., None], setting: str, sentence: str):
    refused(sentence, *setting.split())

"""Every YAML in conf/ says what it is for, composes with all others, and makes the stage that it names."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from vidclf.build import parts as build
from vidclf.build import training
from vidclf.comparison.sweep import check_study
from vidclf.contracts import OfficialParts, PictureFormat, SplitRule, Video, Views, optional
from vidclf.errors import VidclfError
from vidclf.models.backbones.wrap import wrap
from vidclf.run.config import CONF, GLOBAL_GROUPS, HYDRA, check_keys

FILES = sorted(Path(CONF).rglob("*.yaml"))
VERBS = [path.stem for path in FILES if path.parent == Path(CONF)]
OPTIONS = [(path.parent.name, path.stem) for path in FILES if path.parent != Path(CONF)]
EXPERIMENTS = [name for group, name in OPTIONS if group == "experiment"]
STAGES = [(group, name) for group, name in OPTIONS if group not in GLOBAL_GROUPS]
OF_NO_JOB = ("~callbacks", "~logger")  # they name the folder of the job that runs
PRESET = PictureFormat(size=8, resize=9, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(CONF, **HYDRA):
        yield


def composed(*overrides: str, verb: str = "train") -> DictConfig:
    return compose(verb, [*OF_NO_JOB, *overrides])


def is_custom(group: str, name: str) -> bool:
    return OmegaConf.is_missing(OmegaConf.load(Path(CONF, group, f"{name}.yaml")), "_target_")


def made(group: str, name: str, *overrides: str) -> Any:
    return build.build_node(OmegaConf.to_container(composed(f"{group}={name}", *overrides), resolve=True)[group])


def options(group: str) -> list[str]:
    return [name for other, name in OPTIONS if other == group and not is_custom(group, name)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_begins_with_its_purpose(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    if lines[0] == "# @package _global_":
        assert path.parent.name in GLOBAL_GROUPS
        lines = lines[1:]
    else:
        assert path.parent.name not in GLOBAL_GROUPS
    assert lines[0].startswith("# ")
    assert len(lines[0].split()) > 3
    assert "@package" not in "".join(lines)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_composes_and_knows_all_its_keys(verb: str):
    given = [f"{key}=x" for key in OmegaConf.missing_keys(composed(verb=verb))]
    cfg = composed(*given, verb=verb)
    if "sampling" in cfg:  # a verb that begins with train's
        check_keys(cfg, verb)
        one_a_second = {"_target_": "vidclf.data.sampling.Rate", "rate_hz": 1.0}
        of_its_own = {"check": {"_target_": "vidclf.data.sampling.Uniform", "num_frames": 8}}
        assert cfg["sampling"] == of_its_own.get(verb, one_a_second)


GROUPS = {group: [name for other, name in STAGES if other == group] for group, _ in STAGES}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("number", range(max(map(len, GROUPS.values()))))
def test_an_experiment_composes_with_every_option_of_every_group(experiment: str, number: int):
    chosen = {group: names[number % len(names)] for group, names in GROUPS.items()}
    cfg = composed(f"experiment={experiment}", *(f"{group}={name}" for group, name in chosen.items()))
    for group in ("dataset", "sampling", "transform", "backbone", "head", "aggregation", "optimizer", "scheduler"):
        own = OmegaConf.load(Path(CONF, group, f"{chosen[group]}.yaml"))
        assert cfg[group].keys() == own.keys()  # nothing of the experiment's own option is left


@pytest.mark.parametrize("study", [name for group, name in OPTIONS if group == "study"])
def test_a_study_is_a_sweep_over_what_there_is(study: str):
    cfg = compose("train", [f"study={study}", "experiment=demo"], return_hydra_config=True)
    assert cfg.hydra.mode is RunMode.MULTIRUN
    check_study(cfg)
    ((key, values),) = cfg.hydra.sweeper.params.items()
    assert len(set(values.split(","))) == len(values.split(",")) >= 3
    for value in values.split(","):
        one = OmegaConf.select(composed(f"study={study}", f"{key}={value}"), key)
        own = Path(CONF, key, f"{value}.yaml")
        assert one == OmegaConf.load(own) if own.is_file() else str(one) == value


def test_every_aggregation_is_studied_and_as_many_folds_as_there_are():
    studied = OmegaConf.load(Path(CONF, "study", "aggregation.yaml")).hydra.sweeper.params.aggregation
    assert {*studied.split(",")} == {*options("aggregation")}
    cfg = compose("train", ["study=kfold", "split.folds=3"], return_hydra_config=True)
    assert cfg.hydra.sweeper.params == {"split.number": "1,2,3"}


def test_a_study_of_what_an_experiment_does_not_have_is_refused():
    cfg = compose("train", ["study=rates", "experiment=demo_gru"], return_hydra_config=True)
    with pytest.raises(VidclfError, match=r"study=rates varies sampling.rate_hz, which sampling=uniform does not have"):
        check_study(cfg)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_wins_over_the_defaults(experiment: str):
    own = OmegaConf.load(Path(CONF, "experiment", f"{experiment}.yaml"))
    cfg = composed(f"experiment={experiment}")
    for group, settings in own.items():
        if group != "defaults":
            assert OmegaConf.merge(cfg, {group: settings}) == cfg


@pytest.mark.parametrize(("group", "name"), [option for option in STAGES if is_custom(*option)])
def test_ones_own_part_must_be_named(group: str, name: str):
    with pytest.raises(VidclfError, match=rf"{group}\._target_ must be given: vidclf train {group}\._target_=\.\.\."):
        check_keys(composed(f"{group}={name}"), "train")


@pytest.mark.parametrize("name", options("dataset"))
def test_a_data_set_lists_its_videos(name: str, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vidclf.data.datasets.demo.ensure_written", lambda root: None)
    shutil.copytree(clips, tmp_path / "clips")
    for action in clips.iterdir():  # HMDB51's names, the groups before the action
        (tmp_path / "HMDB51" / action.name).mkdir(parents=True)
        for path in action.iterdir():
            (tmp_path / "HMDB51" / action.name / path.name[2:].replace("_g", f"_{action.name}_g")).touch()
    rows = [f"clips/{path.parent.name}/{path.name},{path.parent.name}\n" for path in clips.glob("*/*.avi")]
    (tmp_path / "videos.csv").write_text("".join(["path,label\n", *rows]))
    settings = {
        "folder": [f"dataset.root={clips}", "dataset.group=file"],
        "manifest": [f"dataset.file={tmp_path}/videos.csv"],
        "hmdb51": [f"dataset.root={tmp_path}/HMDB51"],
    }
    dataset = made("dataset", name, *settings.get(name, [f"dataset.root={clips}"]))
    assert dataset.class_names == ["ApplyEyeMakeup", "Archery"]
    assert len(dataset.videos()) == 20


@pytest.mark.parametrize("name", options("split"))
def test_a_split_gives_every_video_a_side(name: str):
    sides = {1: "test", 2: "val"}
    videos = [Video(Path(f"A/{g}.avi"), 0, f"g{g:02d}", sides.get(g, "train")) for g in range(1, 26)]
    split = made("split", name)
    official = [OfficialParts([video.part for video in videos])] if optional(split, SplitRule, "official") else []
    assert len(split(videos, [1] * 25, *official).rows()) == 25


@pytest.mark.parametrize("name", options("sampling"))
def test_a_sampling_gives_frames_of_the_video(name: str):
    frames = made("sampling", name)(40, 25.0)
    assert frames.ndim == 2
    assert 0 <= int(frames.min()) <= int(frames.max()) < 40


@pytest.mark.parametrize("name", options("transform"))
def test_a_transform_gives_images_of_the_backbones_size(name: str):
    transform = made("transform", name)(picture_format=PRESET)
    images = transform(torch.zeros(2, 3, 3, 12, 16, dtype=torch.uint8))
    assert images.shape == (2 * transform.num_crops, 3, 3, 8, 8)


@pytest.mark.parametrize("name", options("augmentation"))
def test_an_augmentation_gives_images_of_the_backbones_size(name: str):
    if name == "none":
        assert not composed(f"augmentation={name}").augmentation
        return
    augment = made("augmentation", name)(picture_format=PRESET)
    assert augment(torch.zeros(2, 3, 3, 12, 16, dtype=torch.uint8)).shape == (2, 3, 3, 8, 8)


@pytest.mark.parametrize("name", options("mixing"))
def test_mixing_gives_labels_that_are_probabilities(name: str):
    if name == "none":
        assert not composed(f"mixing={name}").mixing
        return
    whose = torch.arange(4)
    mixed = made("mixing", name)(Views(torch.rand(4, 2, 3, 8, 8), whose % 3, whose, whose), 3)
    torch.testing.assert_close(mixed.labels.sum(1), torch.ones(4))


@pytest.mark.parametrize("name", options("loss"))
def test_a_loss_is_lower_for_the_right_class(name: str):
    loss = made("loss", name)(3)
    logits = torch.tensor([[2.0, 0.0, 0.0]])
    assert loss(logits, torch.tensor([0])) < loss(logits, torch.tensor([1]))


@pytest.mark.parametrize("name", options("backbone"))
def test_a_backbone_gives_features_of_its_width(name: str, tmp_path: Path):
    names = {
        "image": ["backbone.name=squeezenet1_1"],
        "clip": ["backbone.name=s3d"],
        "timm": ["backbone.name=vit_tiny_patch16_224"],
    }
    settings = [*([] if name in ("tiny3d", "pixels") else ["++backbone.weights=null"]), *names.get(name, [])]
    if name == "transformers":  # which has no weights but those of its folder
        import encoders  # not above: it takes seconds

        folder = encoders.videomae(tmp_path / "a folder")
        settings = [f"backbone.name='{folder}'"]
    with torch.device("cpu" if name == "transformers" else "meta"):  # networks of any size
        backbone = made("backbone", name, *settings)
        picture_format = backbone.picture_format
        features = backbone(
            torch.empty(1, max(2, picture_format.clip_length), 3, picture_format.size, picture_format.size)
        )
    assert features.shape[0] == 1
    assert features.shape[2] == backbone.feature_dim
    assert picture_format.clip_length > 1 or features.shape[1] == 2


@pytest.mark.parametrize("name", options("head"))
def test_a_head_gives_a_logit_for_every_class(name: str):
    if name == "grid":
        assert "_target_" not in composed("head=grid").head  # it spreads into others: see test_grid
        return
    head = made("head", name)(8, 3).eval()
    assert head(torch.rand(4, 6, 8)).shape == (4, 3)


@pytest.mark.parametrize("name", options("aggregation"))
def test_an_aggregation_gives_log_probabilities(name: str):
    assert made("aggregation", name)(torch.randn(4, 3)).exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize("scheduler", options("scheduler"))
@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_an_optimiser_and_its_schedule_take_a_step(optimizer: str, scheduler: str):
    layer = nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    stepped = made("optimizer", optimizer)(layer.parameters())
    schedule = made("scheduler", scheduler)(stepped, 10)
    layer(torch.ones(1, 2)).backward()
    for _ in range(3):  # the first of a rise may be at a rate of 0
        stepped.step()
        schedule.step()
    assert not torch.equal(layer.weight, before)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """`job("logger=csv")` composes as for a job that leaves its files in the test's folder."""

    def with_folder(*overrides: str) -> dict[str, Any]:
        overrides = (f"hydra.runtime.output_dir={tmp_path}", *overrides)
        cfg = compose("train", list(overrides), return_hydra_config=True)
        monkeypatch.setattr(HydraConfig, "_state", None, raising=False)
        HydraConfig.instance().set_config(cfg)
        return {key: OmegaConf.to_container(cfg[key], resolve=True) for key in ("trainer", "logger", "callbacks")}

    return with_folder


@pytest.mark.parametrize("name", options("trainer"))
@pytest.mark.parametrize("logger", options("logger"))
@pytest.mark.parametrize("callbacks", options("callbacks"))
def test_a_trainer_takes_every_logger_and_callbacks(
    name: str, logger: str, callbacks: str, job: Callable[..., dict[str, Any]], tmp_path: Path
):
    config = job(f"trainer={name}", f"logger={logger}", f"callbacks={callbacks}")
    made_logger = build.build_node(config["logger"])
    made_callbacks = training.build_callbacks(config)
    assert isinstance(made_logger, Logger)
    assert str(made_logger.save_dir) == str(tmp_path)
    assert all(isinstance(callback, Callback) for callback in made_callbacks)
    trainer = training.build_trainer(config, wrap(made("backbone", "tiny")), made_logger, made_callbacks)
    assert isinstance(trainer, L.Trainer)
    assert trainer.checkpoint_callback.filename == "best"
    assert isinstance(trainer.strategy.checkpoint_io, training.CheckpointFiles)


def test_every_group_is_tried():
    tried = {"dataset", "split", "sampling", "transform", "backbone", "head", "aggregation", "optimizer", "scheduler"}
    tried |= {"augmentation", "mixing", "loss"}
    assert {group for group, _ in OPTIONS} == tried | {"trainer", "logger", "callbacks", *GLOBAL_GROUPS}

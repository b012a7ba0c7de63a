"""Every YAML in conf/ states its purpose, composes, and makes the stage that it names.

A new option is tested without an edit here. Where it cannot be made with its YAML's defaults,
`tests/samples/<group>_<option>.py` holds `sample(clips: Path, folder: Path) -> list[str]`. It may write files into the
empty `folder`, and returns overrides; `clips` is a small UCF101 that must not change. `weights` in a YAML become null.
"""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from torch import nn
from verbs import copy_package, run_copy

from vidclf.build import parts as build
from vidclf.build import training
from vidclf.command.verbs import GLOBAL_GROUPS
from vidclf.comparison.sweep import check_study
from vidclf.contracts import Dataset, OfficialParts, PictureFormat, SplitRule, Video, Views, optional
from vidclf.errors import VidclfError
from vidclf.models.backbones.wrap import wrap
from vidclf.run.config import CONF, HYDRA, check_keys

FILES = sorted(Path(CONF).rglob("*.yaml"))
VERBS = [path.stem for path in FILES if path.parent == Path(CONF)]
OPTIONS = [(path.parent.name, path.stem) for path in FILES if path.parent != Path(CONF)]
EXPERIMENTS = [name for group, name in OPTIONS if group == "experiment"]
STAGES = [(group, name) for group, name in OPTIONS if group not in GLOBAL_GROUPS]
GROUPS = {group: [name for its_group, name in STAGES if its_group == group] for group, _ in STAGES}
# Experiments may set keys of these groups that not all options have: split.validation belongs to split=official.
PARTICULAR = ("split", "trainer", "callbacks", "logger", "augmentation", "mixing", "loss")
SAMPLES = Path(__file__).parent / "samples"
NO_JOB = ("~callbacks", "~logger")  # they name the folder of the job that runs
PRESET = PictureFormat(size=8, resize=9, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(CONF, **HYDRA):
        yield


def composed(*overrides: str, verb: str = "train") -> DictConfig:
    return compose(verb, [*NO_JOB, *overrides])


@cache
def node_of(group: str, name: str, *overrides: str) -> DictConfig:
    return compose(f"{group}/{name}", [*overrides])[group]


def made(group: str, name: str, *overrides: str) -> Any:
    return build.build_node(OmegaConf.to_container(node_of(group, name, *overrides), resolve=True))


def is_custom(group: str, name: str) -> bool:
    return OmegaConf.is_missing(OmegaConf.load(Path(CONF, group, f"{name}.yaml")), "_target_")


def options(group: str) -> list[str]:
    return [name for name in GROUPS[group] if not is_custom(group, name)]


Make = Callable[[str, str], Any]


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """`make("head", "linear")` makes an option with its defaults, or with the overrides that its sample returns."""

    def make_option(group: str, name: str) -> Any:
        overrides = [f"{group}.weights=null"] if "weights" in node_of(group, name) else []
        path = SAMPLES / f"{group}_{name}.py"
        if path.is_file():
            (folder := tmp_path / "sample").mkdir()
            spec = importlib.util.spec_from_file_location(path.stem, path)
            spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
            return made(group, name, *overrides, *module.sample(request.getfixturevalue("clips"), folder))
        add = f"cannot be made with its YAML's defaults. Add tests/samples/{path.name} (see tests/test_conf.py)"
        if missing := sorted(OmegaConf.missing_keys(node_of(group, name))):
            pytest.skip(f"{group}={name}: {', '.join(missing)} must be given; it {add}")
        try:
            return made(group, name, *overrides)
        except (VidclfError, InstantiationException) as error:
            if not isinstance(error.__cause__ or error, VidclfError | OSError):
                raise
            pytest.skip(f"{group}={name} {add}: {error.__cause__ or error}")

    return make_option


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
    config = composed(verb=verb)
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, "x")
    if "sampling" in config:  # a verb that begins with train's
        check_keys(config, verb)
        default = {"_target_": "vidclf.data.sampling.Rate", "rate_hz": 1.0}
        by_verb = {"check": {"_target_": "vidclf.data.sampling.Uniform", "num_frames": 8}}
        assert config["sampling"] == by_verb.get(verb, default)


@pytest.mark.parametrize("number", range(max(len(EXPERIMENTS), *map(len, GROUPS.values()))))
def test_every_option_composes_with_options_of_all_groups_and_an_experiment(number: int):
    chosen = {group: names[number % len(names)] for group, names in GROUPS.items()}
    experiment = EXPERIMENTS[number % len(EXPERIMENTS)]
    config = composed(f"experiment={experiment}", *(f"{group}={name}" for group, name in chosen.items()))
    for group in {*GROUPS} - {*PARTICULAR}:
        option = OmegaConf.load(Path(CONF, group, f"{chosen[group]}.yaml"))
        assert config[group].keys() == option.keys()  # nothing of the experiment's option is left


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_wins_over_the_defaults_and_fits_every_option(experiment: str):
    settings = OmegaConf.load(Path(CONF, "experiment", f"{experiment}.yaml"))
    del settings["defaults"]
    config = composed(f"experiment={experiment}")
    assert OmegaConf.merge(config, settings) == config
    for group in {*settings} & ({*GROUPS} - {*PARTICULAR}):
        for name in options(group):
            assert settings[group].keys() <= OmegaConf.load(Path(CONF, group, f"{name}.yaml")).keys()


@pytest.mark.parametrize("study", [name for group, name in OPTIONS if group == "study"])
def test_a_study_is_a_sweep_over_existing_options_and_settings(study: str):
    config = compose("train", [f"study={study}", "experiment=demo"], return_hydra_config=True)
    assert config.hydra.mode is RunMode.MULTIRUN
    check_study(config)
    for key, text in config.hydra.sweeper.params.items():
        values = text.split(",")
        assert len({*values}) == len(values) >= 3
        assert {*values} <= {*GROUPS[key]} if key in GROUPS else OmegaConf.select(config, key, default="") != ""


def test_cross_validation_has_a_job_for_every_fold():
    config = compose("train", ["study=kfold", "split.folds=3"], return_hydra_config=True)
    assert config.hydra.sweeper.params == {"split.number": "1,2,3"}


def test_a_study_of_a_setting_that_the_experiment_lacks_is_refused():
    config = compose("train", ["study=rates", "experiment=demo_gru"], return_hydra_config=True)
    with pytest.raises(VidclfError, match=r"study=rates varies sampling.rate_hz.*sampling=uniform"):
        check_study(config)


@pytest.mark.parametrize(("group", "name"), [option for option in STAGES if is_custom(*option)])
def test_a_custom_part_must_be_named(group: str, name: str):
    with pytest.raises(VidclfError, match=rf"{group}\._target_ must be given: vidclf train {group}\._target_=\.\.\."):
        check_keys(composed(f"{group}={name}"), "train")


@pytest.mark.parametrize("name", options("dataset"))
def test_a_data_set_lists_its_videos(name: str, make: Make):
    dataset = make("dataset", name)
    assert isinstance(dataset, Dataset)
    videos = dataset.videos()
    assert {video.label for video in videos} == {*range(len(dataset.class_names))}
    assert len({video.name for video in videos}) == len(videos) > 1
    assert len(dataset.class_names) > 1
    if optional(dataset, Dataset, "split_numbers"):
        assert callable(optional(dataset, Dataset, "official_parts"))


@pytest.mark.parametrize("name", options("split"))
def test_a_split_gives_every_video_a_part(name: str, make: Make):
    parts = {1: "test", 2: "val"}
    videos = [Video(Path(f"A/{g}.avi"), 0, f"g{g:02d}", parts.get(g, "train")) for g in range(1, 26)]
    split = make("split", name)
    official = [OfficialParts([video.part for video in videos])] if optional(split, SplitRule, "official") else []
    assert len(split(videos, [1] * 25, *official).rows()) == 25


@pytest.mark.parametrize("name", options("sampling"))
def test_a_sampling_gives_frames_of_the_video(name: str, make: Make):
    frames = make("sampling", name)(40, 25.0)
    assert frames.ndim == 2
    assert 0 <= int(frames.min()) <= int(frames.max()) < 40


@pytest.mark.parametrize("name", options("transform"))
def test_a_transform_gives_images_of_the_backbones_size(name: str, make: Make):
    transform = make("transform", name)(picture_format=PRESET)
    images = transform(torch.zeros(2, 3, 3, 12, 16, dtype=torch.uint8))
    assert images.shape == (2 * transform.num_crops, 3, 3, 8, 8)


@pytest.mark.parametrize("name", options("augmentation"))
def test_an_augmentation_gives_images_of_the_backbones_size(name: str, make: Make):
    if not node_of("augmentation", name):
        return
    augment = make("augmentation", name)(picture_format=PRESET)
    assert augment(torch.zeros(2, 3, 3, 12, 16, dtype=torch.uint8)).shape == (2, 3, 3, 8, 8)


@pytest.mark.parametrize("name", options("mixing"))
def test_mixing_gives_labels_that_are_probabilities(name: str, make: Make):
    if not node_of("mixing", name):
        return
    videos = torch.arange(4)
    mixed = make("mixing", name)(Views(torch.rand(4, 2, 3, 8, 8), videos % 3, videos, videos), 3)
    torch.testing.assert_close(mixed.labels.sum(1), torch.ones(4))


@pytest.mark.parametrize("name", options("loss"))
def test_a_loss_is_lower_for_the_correct_class(name: str, make: Make):
    loss = make("loss", name)(3)
    logits = torch.tensor([[2.0, 0.0, 0.0]])
    assert loss(logits, torch.tensor([0])) < loss(logits, torch.tensor([1]))


@pytest.mark.parametrize("name", options("backbone"))
def test_a_backbone_gives_features_of_its_width(name: str, make: Make):
    node = node_of("backbone", name)
    with torch.device("meta" if "weights" in node else "cpu"):  # networks without weights may have any size
        backbone = make("backbone", name)
        picture_format = backbone.picture_format
        num_frames, size = max(2, picture_format.clip_length), picture_format.size
        features = backbone(torch.zeros(1, num_frames, 3, size, size))
    assert features.shape[0] == 1
    assert features.shape[2] == backbone.feature_dim
    assert picture_format.clip_length > 1 or features.shape[1] == 2


@pytest.mark.parametrize("name", options("head"))
def test_a_head_gives_a_logit_for_every_class(name: str, make: Make):
    if "_target_" not in node_of("head", name):  # a grid of other heads: see test_grid
        return
    head = make("head", name)(8, 3).eval()
    assert head(torch.rand(4, 6, 8)).shape == (4, 3)


@pytest.mark.parametrize("name", options("aggregation"))
def test_an_aggregation_gives_log_probabilities(name: str, make: Make):
    assert make("aggregation", name)(torch.randn(4, 3)).exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize("scheduler", options("scheduler"))
@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_an_optimiser_and_its_schedule_take_a_step(optimizer: str, scheduler: str, make: Make):
    layer = nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    stepped = make("optimizer", optimizer)(layer.parameters())
    schedule = make("scheduler", scheduler)(stepped, 10)
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
        config = compose("train", list(overrides), return_hydra_config=True)
        monkeypatch.setattr(HydraConfig, "_state", None, raising=False)
        HydraConfig.instance().set_config(config)
        return {key: OmegaConf.to_container(config[key], resolve=True) for key in ("trainer", "logger", "callbacks")}

    return with_folder


NUM_TRAINERS = max(len(GROUPS[group]) for group in ("trainer", "logger", "callbacks"))


@pytest.mark.parametrize("number", range(NUM_TRAINERS))
def test_a_trainer_takes_every_logger_and_callbacks(number: int, job: Callable[..., dict[str, Any]], tmp_path: Path):
    chosen = {group: GROUPS[group][number % len(GROUPS[group])] for group in ("trainer", "logger", "callbacks")}
    config = job(*(f"{group}={name}" for group, name in chosen.items()))
    logger = build.build_node(config["logger"])
    callbacks = training.build_callbacks(config)
    assert isinstance(logger, Logger)
    assert str(logger.save_dir) == str(tmp_path)
    assert all(isinstance(callback, Callback) for callback in callbacks)
    trainer = training.build_trainer(config, wrap(made("backbone", "pixels")), logger, callbacks)
    assert isinstance(trainer, L.Trainer)
    assert trainer.checkpoint_callback.filename == "best"
    assert isinstance(trainer.strategy.checkpoint_io, training.CheckpointFiles)


def test_a_callback_is_left_out_by_null(job: Callable[..., dict[str, Any]]):
    kinds = [type(callback).__name__ for callback in training.build_callbacks(job("callbacks.view_sheets=null"))]
    assert kinds == ["ModelCheckpoint", "ModelCheckpoint", "LearningRateMonitor"]


def test_every_group_is_tried():
    tried = {"dataset", "split", "sampling", "transform", "backbone", "head", "aggregation", "optimizer", "scheduler"}
    tried |= {"augmentation", "mixing", "loss"}
    assert {group for group, _ in OPTIONS} == tried | {"trainer", "logger", "callbacks", *GLOBAL_GROUPS}


# The smallest part of each kind. The data set has official splits and no working default for `root`: it needs a sample.
NEW_PARTS = {
    ("dataset", "vidclf.data.datasets.mine.Mine"): """
from pathlib import Path
from vidclf.contracts import OfficialParts, Video

class Mine:
    split_numbers = (1, 2)

    def __init__(self, root):
        self.root, self.class_names = Path(root), sorted(path.name for path in Path(root).iterdir())

    def videos(self):
        paths = sorted(self.root.glob("*/*.avi"))
        return [Video(path, self.class_names.index(path.parent.name), path.stem[-7:-4]) for path in paths]

    def official_parts(self, videos, number, lists):
        return OfficialParts(["test" if video.group == f"g0{number}" else "train" for video in videos])
""",
    ("split", "vidclf.data.mine_split.Mine"): """
from vidclf.data.splits import Official

class Mine(Official):
    pass
""",
    ("sampling", "vidclf.data.mine_sampling.middle"): """
import torch

def middle(num_frames, fps, generator=None):
    return torch.tensor([[num_frames // 2]])
""",
    ("backbone", "vidclf.models.backbones.mine.Mine"): """
from torch import nn
from vidclf.contracts import PictureFormat

class Mine(nn.Module):
    feature_dim = 3
    picture_format = PictureFormat(size=8, resize=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    def forward(self, images):
        return images.mean((-2, -1))
""",
    ("head", "vidclf.models.heads.mine.Mine"): """
from torch import nn

class Mine(nn.Module):
    def __init__(self, feature_dim, num_classes):
        super().__init__()
        self.layer = nn.Linear(feature_dim, num_classes)

    def forward(self, features):
        return self.layer(features[:, -1])
""",
    ("aggregation", "vidclf.models.mine_aggregation.first"): """
def first(logits):
    return logits[0].log_softmax(0)
""",
}
SAMPLE = """
def sample(clips, folder):
    return [f"dataset.root={clips}"]
"""
TRAINING = """
def test_mine_trains(vidclf):
    outcome = vidclf("train", *{chosen}, "trainer.max_epochs=1", "~callbacks.view_sheets")
    assert outcome.status == 0, outcome.err
"""


@pytest.mark.slow
def test_a_new_part_of_every_kind_is_one_file_and_one_yaml(clips: Path, tmp_path: Path):
    """It trains, and passes the tests of this file; where its defaults are not enough, a sample is added."""
    site = copy_package(tmp_path / "site")
    for (group, target), code in NEW_PARTS.items():
        Path(site, *target.split(".")[:-1]).with_suffix(".py").write_text(code)
        # a sampling and a split are objects; a function, and what is called later with sizes, is partial
        partial = "_partial_: true\n" if group in ("head", "aggregation") or target.endswith("middle") else ""
        keys = "root: data/mine\n" if group == "dataset" else ""
        yaml = f"# A new part, of this test only.\n_target_: {target}\n{partial}{keys}"
        (site / "vidclf" / "conf" / group / "mine.yaml").write_text(yaml)
    shutil.copytree(Path(__file__).parent, site / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(__file__).parents[1] / "pyproject.toml", site)
    (site / "tests" / "samples" / "dataset_mine.py").write_text(SAMPLE)
    chosen = [f"{group}=mine" for group, _ in NEW_PARTS]
    (site / "tests" / "test_mine.py").write_text(TRAINING.format(chosen=[*chosen, f"dataset.root={clips}"]))
    files = ("tests/test_mine.py", "tests/test_conf.py")
    printed = run_copy(site, "pytest", *files, "-o", "addopts=-q", "-k", "mine and not new_part")
    assert f"{1 + 2 * len(NEW_PARTS)} passed" in printed  # the training; each part's purpose and its stage


def test_a_part_that_cannot_be_made_is_skipped_and_names_the_sample_to_add(make: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("test_conf.SAMPLES", Path("nowhere"))
    with pytest.raises(pytest.skip.Exception, match=r"dataset\.file must be given.*dataset_manifest\.py"):
        make("dataset", "manifest")

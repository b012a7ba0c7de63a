"""A run's configuration is data: unless it names known parts of a classifier, nothing is imported or made."""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from verbs import Outcome

from vidclf.errors import VidclfError
from vidclf.run.config import CONF
from vidclf.run.sweep import jobs_of
from vidclf.run.trust import check_plain, check_trusted
from vidclf.run.words import prepare_arguments
from vidclf.system.disk import check_links

CHECKPOINT = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint"}
DEMO = {"_target_": "vidclf.data.datasets.demo.Demo"}


def check(config: dict[str, Any], trust: bool = False) -> None:
    check_trusted(config, Path(CONF), trust)


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("dataset", "vidclf.data.datasets.ucf101.UCF101"),
        ("dataset", "vidclf.data.datasets.demo.Demo"),
        ("head", "vidclf.models.heads.mlp.MLP"),
        ("backbone", "vidclf.models.backbones.timm_models.TimmBackbone"),
        ("backbone", "vidclf.models.backbones.transformers_models.TransformersBackbone"),
        ("aggregation", "vidclf.models.aggregation.mode"),
        ("scheduler", "vidclf.models.schedules.cosine"),
        ("optimizer", "torch.optim.RMSprop"),
        ("optimizer", "torch.optim.adam.Adam"),
        ("scheduler", "torch.optim.lr_scheduler.CosineAnnealingLR"),
        ("trainer", "lightning.Trainer"),
        ("callbacks", "lightning.pytorch.callbacks.EarlyStopping"),
        ("callbacks", "vidclf.evaluation.figures.ViewSheets"),
        ("logger", "lightning.pytorch.loggers.CSVLogger"),
    ],
)
def test_parts_of_a_classifier_are_trusted(group: str, target: str):
    node = {"_target_": target, "_partial_": True}
    check({group: {"best": node} if group == "callbacks" else node})


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"backbone": {"weights": DEMO}}, "backbone.weights._target_"),
        ({"dataset": {"classes": DEMO}}, "dataset.classes._target_"),
        ({"dataset": {"root": "x", "classes": [DEMO]}}, "dataset.classes.0._target_"),
        ({"sampling": DEMO}, "sampling._target_"),
        ({"callbacks": DEMO}, "callbacks._target_"),
        ({"callbacks": {"best": {"monitor": CHECKPOINT}}}, "callbacks.best.monitor._target_"),
        ({"trainer": {"plugins": [CHECKPOINT]}}, "trainer.plugins.0._target_"),
        ({"dataset": {"_target_": "vidclf.data.catalogue.Catalogue"}}, "dataset._target_"),
        ({"dataset": {"_target_": "vidclf.data.corpus.Corpus"}}, "dataset._target_"),
        ({"seed": DEMO}, "seed._target_"),
        ({"scheduler": {"_target_": "torch.optim.SGD"}}, "scheduler._target_"),
        ({"optimizer": {"_target_": "torch.optim.lr_scheduler.StepLR"}}, "optimizer._target_"),
    ],
)
def test_each_stage_accepts_its_own_classes_only(config: dict[str, Any], key: str):
    with pytest.raises(VidclfError, match=rf"wants to run .* \({re.escape(key)}\).*not a class.*for that stage"):
        check(config)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "my_heads.MyHead",
        "torch.os.system",
        "torch.hub.load",
        "torch.load",
        "torch.nn.Linear",
        "torch.optim.os.system",
        "torch.optim.Adam.step",
        "torch.optim.swa_utils.AveragedModel",
        "torch.optim.lr_scheduler.partial",
        "torchvision.models.resnet18",
        "timm.create_model",
        "transformers.AutoModel.from_pretrained",
        "vidclf.models.backbones.hub.find_folder",
        "vidclf.models.backbones.transformers_models.LibraryBackbone",
        "torchmetrics.Accuracy",
        "lightning.Trainer",  # of no head
        "lightning.pytorch.callbacks.ModelCheckpoint",
        "lightning.pytorch.callbacks.OnExceptionCheckpoint",
        "lightning.pytorch.cli.LightningCLI",
        "lightning.LightningModule.load_from_checkpoint",
        "hydra.utils.instantiate",
        "vidclf.cli.os.execv",
        "vidclf.build.parts.instantiate",
        "vidclf.system.disk.write_atomically",
        "vidclf.data.splits.os.system",
        "vidclf.data.datasets.demo.os.remove",
        "vidclf.data.datasets.demo.ensure_written",
        "vidclf.data.datasets.demo.ThreadPoolExecutor",  # a class of another library
        "vidclf.data.datasets.demo.UCF101",  # ours, by another name
        "vidclf.models.heads.mlp._hidden",
        "vidclf.models.backbones.weights.torch.hub.load",
        "vidclf.nowhere.Nothing",
        "vidclf.models.heads.mlp.MLP\n",
        "torch",
        "",
        None,
        ["os", "system"],
    ],
)
def test_anything_else_in_a_run_needs_trust(target: object):
    config = {"head": {"_target_": target}}
    with pytest.raises(VidclfError, match=r"(?s)wants to run .* \(head._target_\).*pass trust=true"):
        check(config)
    check(config, trust=True)


def test_nothing_is_imported_to_find_out_that_it_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_canary.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    for target in ("my_canary.Part", "vidclf.data.my_canary.Part", "vidclf.data.splits.my_canary.Part"):
        with pytest.raises(VidclfError, match="wants to run"):
            check({"head": {"_target_": target}})
    assert "my_canary" not in sys.modules


@pytest.mark.parametrize("key", ["_args_", "_recursive_", "_convert_", "_execution_whitelist_", "_mode_"])
def test_other_words_of_hydra_need_trust(key: str):
    config = {"head": {"_target_": "vidclf.models.heads.mlp.MLP", key: [1]}}
    with pytest.raises(VidclfError, match=f"uses head.{key}, which vidclf never needs.*pass trust=true"):
        check(config)
    check(config, trust=True)


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "a ${hydra:runtime.cwd}", r"\${now:x}", "${a:${b}}"])
def test_resolvers_are_refused_whoever_is_trusted(text: str):
    for trust in (False, True):
        with pytest.raises(VidclfError, match=r"contains a resolver.*head.widths.1 is .*Set head.widths.1="):
            check({"head": {"widths": [1, text]}}, trust)
    check({"head": {"widths": ["${x}", "a ${x", "{a:b}", "$:"]}})


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", r"a\b", "~x", "${x}", ["x"]])
def test_a_callback_writes_under_a_plain_name(name: object):
    check({"callbacks": {"best": {**CHECKPOINT, "filename": "{epoch:02d}-x.y_1"}, "none": {"filename": None}}})
    with pytest.raises(VidclfError, match=r"wants to write to callbacks.a.filename=.*must be a plain name"):
        check({"callbacks": {"a": {**CHECKPOINT, "filename": name}}}, trust=True)


def endless() -> dict[str, Any]:
    config: dict[str, Any] = {}
    config["head"] = config
    return config


def deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


def wide(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested] * 100
    return nested


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"head": torch.zeros(1)}, "not plain data: head is a Tensor"),
        ({"head": {"a": (1,)}}, "not plain data: head.a is a tuple"),
        ({"head": {None: 1}}, "not plain data: head.None is a int"),
        (endless(), "nested deeper than 20 levels"),
        ({"head": {"a": deep(100_000)}}, "nested deeper than 20 levels"),
        ({"head": {"a": wide(15)}}, "or has more than 100000 settings"),
    ],
)
def test_what_is_no_plain_configuration_is_refused(config: dict[str, Any], sentence: str):
    check_plain({"head": {"a": [1, 0.5, None, True, "x"]}, "seed": 0})
    with pytest.raises(VidclfError, match=sentence):
        check_plain(config)


# The same by the verbs: a stranger's run, whose file must not appear


@pytest.fixture
def spoil(run: Path) -> Callable[[dict[str, Any]], None]:
    """`spoil({"head": {...}})` changes the configuration in the run's checkpoints."""

    def change(changed: dict[str, Any]) -> None:
        for path in (run / "checkpoints").iterdir():
            content = torch.load(path, weights_only=True)
            for key, value in changed.items():
                config = content["vidclf"]["config"]
                config[key] = {**config[key], **value} if isinstance(value, dict) and key in config else value
            torch.save(content, path)

    return change


def call_all(vidclf: Callable[..., Outcome], run: Path, clips: Path, *arguments: str) -> list[Outcome]:
    return [
        vidclf("evaluate", f"run={run}", *arguments),
        vidclf("predict", f"run={run}", f"source={clips}", *arguments),
        vidclf("train", f"resume={run}", "trainer.max_epochs=3", *arguments),
    ]


CANARY = "import pathlib\npathlib.Path(__file__).with_name('canary').touch()\n"
YAML = "# @package _global_\nhydra: {callbacks: {a: {_target_: my_canary.Part}}}\n"
TIMM = {"_target_": "vidclf.models.backbones.timm_models.TimmBackbone", "weights": "DEFAULT", "fetch": True}
TOUCH = {"_target_": "subprocess.run", "args": ["touch", "canary"]}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"head": {"_target_": "my_canary.Part"}}, r"wants to run my_canary.Part (head._target_)"),
        ({"backbone": {**TIMM, "name": "hf-hub:owner/model"}}, "owner/model: not on this machine"),
        ({"backbone": {**TIMM, "fetch": True, "name": {**TIMM, "fetch": True}}}, "wants to fetch files"),
        ({"trainer": {"plugins": [TOUCH]}}, "wants to run subprocess.run (trainer.plugins.0._target_)"),
        ({"callbacks": {"best": {**CHECKPOINT, "filename": "../../../canary"}}}, "it must be a plain name"),
        ({"dataset": {"root": "${touch:canary}"}}, "contains a resolver"),
        ({"hydra": {"callbacks": {"x": TOUCH}}}, "wants to run subprocess.run (hydra.callbacks.x._target_)"),
        ({"hydra": {"run": {"dir": "elsewhere"}}}, "unknown top-level key(s)"),
        ({"defaults": ["head: mlp"]}, "defaults: unknown top-level key(s)"),
        ({"head": "mlp"}, "head=mlp: head has settings of its own"),
        ({"head": {"widths": deep(100)}}, "nested deeper than"),
    ],
)
def test_a_run_cannot_do_what_it_likes(
    changed: dict[str, Any],
    sentence: str,
    spoil: Callable[..., None],
    vidclf: Callable[..., Outcome],
    run: Path,
    clips: Path,
    tmp_path: Path,
):
    spoil(changed)
    (tmp_path / "my_canary.py").write_text(CANARY)
    before = sorted(tmp_path.rglob("*"))
    for outcome in call_all(vidclf, run, clips):
        assert (outcome.status, outcome.out) == (1, "")
        assert sentence in outcome.err
        assert "Traceback" not in outcome.err
    assert not list(tmp_path.rglob("canary*"))
    left = [path for path in sorted(tmp_path.rglob("*")) if path not in before and ".hydra" not in path.parts]
    assert all(path.is_dir() for path in left)


def test_the_command_line_of_a_run_is_never_replayed(
    vidclf: Callable[..., Outcome], run: Path, clips: Path, tmp_path: Path
):
    (tmp_path / "my_canary.py").write_text(CANARY)
    (tmp_path / "evil.yaml").write_text(YAML)
    lines = ["experiment=../../evil", "head=../../evil", "hydra.callbacks.a._target_=my_canary.Part", "trust=true"]
    (run / ".hydra" / "overrides.yaml").write_text("".join(f"- {line}\n" for line in lines))
    (run / ".hydra" / "config.yaml").write_text("head: {_target_: my_canary.Part}\n")
    for outcome in call_all(vidclf, run, clips):
        assert outcome.status == 0, outcome.err
    assert not (tmp_path / "canary").exists()


def test_a_run_writes_where_this_call_says(
    spoil: Callable[..., None], vidclf: Callable[..., Outcome], run: Path, clips: Path, tmp_path: Path
):
    theirs = str(tmp_path / "theirs")
    best, last = ({**CHECKPOINT, "filename": name, "dirpath": theirs} for name in ("best", "last"))
    best |= {"monitor": "val/loss", "enable_version_counter": False}
    logger = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": theirs}
    spoil({"store": {"root": theirs}, "logger": logger, "callbacks": {"best": best, "last": last}})
    spoil({"trainer": {"default_root_dir": theirs}})
    for outcome in call_all(vidclf, run, clips):
        assert outcome.status == 0, outcome.err
    assert not Path(theirs).exists()
    assert (tmp_path / "data" / "features").is_dir()


def test_what_the_command_line_names_itself_is_its_users_choice(
    spoil: Callable[..., None], vidclf: Callable[..., Outcome], run: Path, clips: Path, tmp_path: Path
):
    (tmp_path / "my_parts.py").write_text("from vidclf.models.aggregation import mean as halved\n")
    spoil({"aggregation": {"_target_": "my_canary.Part"}})
    outcome = vidclf("predict", f"run={run}", f"source={clips}", "aggregation._target_=my_parts.halved")
    assert outcome.status == 0, outcome.err
    assert vidclf("predict", f"run={run}", f"source={clips}", "aggregation=mean").status == 0
    assert "pass trust=true" in vidclf("predict", f"run={run}", f"source={clips}").err


def test_states_in_a_checkpoint_remove_no_files(vidclf: Callable[..., Outcome], run: Path, tmp_path: Path, clips: Path):
    mine = tmp_path / "mine"
    mine.mkdir()
    path = run / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    for state in content["callbacks"].values():
        if "best_k_models" in state:
            names = {str(mine): torch.tensor(9.0), f"{run / 'checkpoints'}/..": torch.tensor(8.0)}
            state |= {"kth_best_model_path": str(mine), "best_k_models": names, "kth_value": torch.tensor(9.0)}
    torch.save(content, path)
    for folder in ([f"hydra.run.dir={tmp_path / 'new'}"], []):
        outcome = vidclf("train", f"resume={run}", "trainer.max_epochs=3", *folder)
        assert outcome.status == 0, outcome.err
        assert mine.is_dir()
        assert (run / "split.csv").is_file()


@pytest.mark.parametrize("name", ["test", "tensorboard/best", "test/videos.txt", "split.csv", "checkpoints/last.ckpt"])
def test_nothing_is_read_or_written_through_a_link_out_of_a_run(
    name: str, vidclf: Callable[..., Outcome], run: Path, tmp_path: Path
):
    mine, path = tmp_path / "mine", run / name
    path.parent.mkdir(exist_ok=True)
    if path.is_file():
        shutil.move(path, mine)
    elif path.suffix:
        mine.write_text("mine")
    else:
        shutil.rmtree(path, ignore_errors=True)
        mine.mkdir()
    before = mine.read_bytes() if mine.is_file() else [*mine.iterdir()]
    path.symlink_to(mine)
    for verb, key in (("evaluate", "run"), ("compare", "run"), ("train", "resume")):
        outcome = vidclf(verb, f"{key}={run}")
        assert (outcome.status, outcome.out) == (1, "")
        assert f"{name}: is a link that leads out of" in outcome.err
        assert before == (mine.read_bytes() if mine.is_file() else [*mine.iterdir()])


def test_links_inside_a_folder_and_to_a_folder_are_followed(tmp_path: Path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "newest").symlink_to("checkpoints")
    (tmp_path / "latest").symlink_to(folder)
    check_links(tmp_path / "latest")
    with pytest.raises(VidclfError, match="latest: is a link that leads out of"):
        check_links(tmp_path / "latest", within=folder / "checkpoints")


@pytest.mark.parametrize("name", [".hydra/config.yaml", "train.log"])
def test_a_file_that_hydra_writes_has_no_second_name_outside_of_the_run(name: str, tmp_path: Path):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    (path.parent / "circle").symlink_to("circle")
    check_links(tmp_path / "run")
    (tmp_path / "mine").write_text("mine")
    os.link(tmp_path / "mine", path)
    (tmp_path / "run" / "checkpoints").mkdir()
    with pytest.raises(VidclfError, match=f"{name}: is a link"):
        prepare_arguments("train", [f"hydra.run.dir={tmp_path / 'run'}"])
    check_links(tmp_path / "run")  # it may be read


def test_a_sweep_with_a_link_to_itself_ends(tmp_path: Path):
    (tmp_path / "again").symlink_to(".")
    (tmp_path / "multirun.yaml").touch()
    assert jobs_of(tmp_path) == []

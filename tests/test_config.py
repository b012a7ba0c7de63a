"""Paths of every kind reach a verb as they were typed, and a run keeps its settings except those that are typed."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from vidclf.errors import VidclfError
from vidclf.run.change import apply_to_run
from vidclf.run.config import CONF, HYDRA, known_keys
from vidclf.run.words import prepare_arguments

AWKWARD = [
    "a b",
    "a,b",
    "head=linear_sampling.rate_hz=5",
    "(1) [2] {3}",
    "Übung_é",
    "~old",
    "${x}",
    "a ${x",
    "it's",
    '"said"',
    "back\\slash",
    "end\\",
    "\\'",
    "%03d:#;$&*?!@",
    "null",
    "true",
    "1e3",
    r"\${x}",
    "\\\\${x}\\",
    " edge ",
]


def read_by_hydra(argument: str) -> object:
    """Return the value that a verb receives for an argument."""
    (override,) = OverridesParser.create().parse_overrides([argument])
    assert not override.is_sweep_override()
    return OmegaConf.create({"value": override.value()}).value


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("key", ["source", "resume"])
def test_a_literal_path_reaches_the_verb_as_it_was_typed(name: str, key: str):
    (argument,) = prepare_arguments("predict", [f"{key}=/data/{name}"])
    assert read_by_hydra(argument) == f"/data/{name}"


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("key", ["dataset.root", "+dataset.root", "store.root"])
def test_a_path_that_exists_reaches_the_verb_as_it_was_typed(
    name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    (argument,) = prepare_arguments("train", [f"{key}={name}"])
    expected = str(tmp_path / name) if name.startswith("~") else name  # data sets would read ~ as a user's home
    assert read_by_hydra(argument) == expected


@pytest.mark.parametrize("typed", [r"dataset.group='(person\d+)'", r"dataset.group=(person\d+)"])
def test_a_regular_expression_reaches_the_data_set_as_it_was_typed(typed: str):
    with initialize_config_dir(CONF, **HYDRA):
        cfg = compose("train", prepare_arguments("train", ["dataset=folder", typed, "~callbacks", "~logger"]))
    assert cfg.dataset.group == r"(person\d+)"


def test_what_is_no_path_is_left_to_hydra():
    many = "dataset.classes=[" + ",".join(f"AClassOfVideos{i}" for i in range(101)) + "]"
    arguments = ["head=linear,mlp", "resume=null", many, "dataset.root=a,b", "+source.x=1", "~callbacks.best"]
    assert prepare_arguments("train", arguments) == arguments


def test_flags_stand_before_the_overrides_wherever_they_stood():
    arguments = ["seed=1", "-m", "head=linear,mlp", "~callbacks.best", "--cfg", "job"]
    assert prepare_arguments("train", arguments) == [
        "-m",
        "--cfg",
        "job",
        "seed=1",
        "head=linear,mlp",
        "~callbacks.best",
    ]


def test_what_changes_a_run_is_taken_by_hydra_whatever_its_defaults_are():
    arguments = ["run=DIR", "head.hidden=8", "+head.k=1,2", "sampling=dense", "sampling.num_frames=4", "seed=1"]
    arguments += ["~callbacks.best", "hydra.run.dir=x", "logger.name=y", "part=val"]
    prepared = ["run='DIR'", "++head.hidden=8", "++head.k=1,2", "sampling=dense", "sampling.num_frames=4", "seed=1"]
    assert prepare_arguments("evaluate", arguments) == [*prepared, "hydra.run.dir=x", "logger.name=y", "part=val"]
    assert prepare_arguments("train", ["resume=DIR", "head.hidden=8"]) == ["resume='DIR'", "++head.hidden=8"]
    assert prepare_arguments("train", ["resume=null", "head.hidden=8"]) == ["resume=null", "head.hidden=8"]


# A run's configuration, and what this command line makes of it

with initialize_config_dir(CONF, **HYDRA):
    DEFAULTS = OmegaConf.to_container(compose("evaluate", ["run=DIR", "~logger", "~callbacks"]), resolve=True)
BEST = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "filename": "best"}
RUN: dict[str, Any] = {
    **{key: value for key, value in DEFAULTS.items() if key not in ("run", "part", "probe")},
    "callbacks": {"best": {**BEST, "dirpath": "/theirs/${now:}"}},
    "head": {"_target_": "vidclf.models.heads.mlp.MLP", "_partial_": True, "widths": [16], "path": r"a\${x}"},
    "sampling": {"_target_": "vidclf.data.sampling.Uniform", "num_frames": 4},
    "seed": 7,
}


def finished(*typed: str, run: dict[str, Any] = RUN) -> dict[str, Any]:
    """Return evaluate's configuration for a run and the overrides typed after run=."""
    arguments = ["run=DIR", *typed]
    with initialize_config_dir(CONF, **HYDRA):
        cfg = compose("evaluate", prepare_arguments("evaluate", arguments), return_hydra_config=True)
    overrides = OmegaConf.to_container(cfg.hydra.overrides.task, resolve=False)
    composed = {key: value for key, value in OmegaConf.to_container(cfg).items() if key != "hydra"}
    config = OmegaConf.create(apply_to_run(run, composed, overrides, arguments))
    del config.callbacks, config.logger  # they name the folder of the job that runs
    return OmegaConf.to_container(config, resolve=True)


def test_a_run_is_taken_as_it_is():
    config = finished()
    assert {key: config[key] for key in ("head", "sampling", "seed")} == {
        key: RUN[key] for key in ("head", "sampling", "seed")
    }
    assert (config["run"], config["part"]) == ("DIR", "test")


def test_a_run_of_an_older_version_has_the_defaults_of_newer_settings():
    older = {key: value for key, value in RUN.items() if key not in ("timeline", "train_groups")}
    config = finished("timeline.step_s=0.2", run=older)
    assert config["train_groups"] is None
    assert config["timeline"] == {**RUN["timeline"], "step_s": 0.2}


@pytest.mark.slow
def test_a_key_is_set_in_the_run_and_a_group_composed_afresh():
    assert finished("sampling.num_frames=8")["sampling"] == {**RUN["sampling"], "num_frames": 8}
    assert finished("+head.dropout=0.1")["head"] == {**RUN["head"], "dropout": 0.1}
    dense = {"_target_": "vidclf.data.sampling.Dense", "num_views": 2, "num_frames": 16, "stride": 2}
    assert finished("sampling=dense", "sampling.num_views=2")["sampling"] == dense
    assert finished("mixing=mixup")["mixing"]["mixup"] == 0.8
    assert "path" not in finished("~head.path")["head"]


def test_what_is_given_may_refer_to_the_runs_own():
    config = finished("batch_size=${seed}", "+head.name='x${sampling.num_frames}'")
    assert (config["batch_size"], config["head"]["name"]) == (7, "x4")


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (
            "head.hidden=8",
            r"The run has other settings: head.hidden: head has no setting hidden. .*\+head.hidden=8",
        ),
        ("sampling.rate_hz=5", "sampling has no setting rate_hz. It has num_frames"),  # though the default sampling has
        ("~head.hidden", "~head.hidden: there is no such setting to delete"),
        ("+seed.x=1", "seed.x: seed is 7 and has no settings of its own"),
        ("experiment=demo", "experiment=demo: a run keeps its own settings"),
    ],
)
def test_what_a_run_does_not_have_is_neither_set_nor_deleted(typed: str, sentence: str):
    with pytest.raises(VidclfError, match=sentence):
        finished(typed)


def test_what_is_written_to_and_what_describes_a_machine_is_not_the_runs():
    theirs = {"accelerator": "tpu", "devices": 8, "num_nodes": 9, "strategy": "ddp", "default_root_dir": "/theirs"}
    run = {
        **RUN,
        "store": {"root": "/theirs"},
        "logger": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "/theirs"},
        "trainer": {**RUN["trainer"], **theirs, "model_registry": "theirs", "max_epochs": 3},
        "num_threads": 64,
        "compile": True,
        "trust": True,
        "resume": "/theirs",
        "dataset": {"_target_": "vidclf.data.datasets.demo.Demo", "root": "/theirs"},
    }
    config = finished(run=run)
    assert "theirs" not in str(config)
    assert config["trainer"] == {**DEFAULTS["trainer"], "max_epochs": 3}
    assert (config["store"]["root"], config["dataset"]["root"]) == ("data/features", "data/demo")
    assert (config["num_threads"], config["compile"], config["trust"]) == (None, "auto", False)
    mine = finished("store.root=/mine", "dataset.root=/mine", "trainer.devices=2", "+trainer.strategy=ddp", run=run)
    assert (mine["store"]["root"], mine["dataset"]["root"]) == ("/mine", "/mine")
    assert (mine["trainer"]["devices"], mine["trainer"]["strategy"]) == (2, "ddp")


def test_whether_a_table_may_lead_out_of_its_folder_is_not_the_runs_to_say():
    run = {**RUN, "dataset": {"_target_": "vidclf.data.datasets.manifest.Manifest", "file": "v.csv", "anywhere": True}}
    assert "anywhere" not in finished(run=run)["dataset"]
    assert finished("dataset.anywhere=true", run=run)["dataset"]["anywhere"] is True


@pytest.mark.slow
def test_whether_files_of_a_model_are_fetched_is_not_the_runs_to_say():
    timm = {"_target_": "vidclf.models.backbones.timm_models.TimmBackbone", "name": "hf-hub:a/b", "fetch": True}
    run = {**RUN, "backbone": timm}
    assert "fetch" not in finished(run=run)["backbone"]  # and without it the class keeps to this machine
    assert finished("trust=true", run=run)["backbone"] == timm
    assert finished("backbone.name=vit", run=run)["backbone"] == {**timm, "name": "vit"}  # named here
    assert finished("backbone.fetch=true", run=run)["backbone"] == timm
    assert finished("backbone=timm", "backbone.name=vit", run=run)["backbone"]["fetch"] is True
    vgg16 = {"_target_": "vidclf.models.backbones.torchvision_models.ImageBackbone", "name": "vgg16"}  # of an older run
    assert "fetch" not in finished(run={**RUN, "backbone": vgg16})["backbone"]
    assert finished("trust=true", run={**RUN, "backbone": vgg16})["backbone"] == {**vgg16, "fetch": True}
    assert "fetch" not in finished("backbone=tiny", run=run)["backbone"]
    for hidden in ({"head": timm}, {"backbone": {"_target_": "vidclf.models.heads.mlp.MLP", "name": timm}}):
        with pytest.raises(VidclfError, match=r"wants to fetch files \((head|backbone.name).fetch\).*trust=true"):
            finished(run={**RUN, **hidden})


def test_the_demo_is_written_nowhere_else_wherever_a_run_hides_it():
    hidden = {"_target_": "vidclf.data.datasets.demo.Demo", "root": "/theirs"}
    assert "theirs" not in str(finished(run={**RUN, "dataset": hidden}))
    for run in ({**RUN, "sampling": hidden}, {**RUN, "dataset": {**RUN["dataset"], "root": hidden}}):
        with pytest.raises(VidclfError, match=r"wants to run vidclf.data.datasets.demo.Demo"):
            finished(run=run)


def test_callbacks_write_to_this_runs_checkpoints():
    callbacks = {"best": {**BEST, "dirpath": "/theirs"}, "a.b": {**BEST, "dirpath": "/theirs"}}
    config = apply_to_run({**RUN, "callbacks": callbacks}, DEFAULTS, [], [])
    assert config["callbacks"]["best"]["dirpath"] == "${hydra:runtime.output_dir}/checkpoints"
    assert config["callbacks"]["a.b"]["dirpath"] == "${hydra:runtime.output_dir}/checkpoints"
    given = {**DEFAULTS, "callbacks": {"best": {"dirpath": "/mine"}}}
    config = apply_to_run({**RUN, "callbacks": callbacks}, given, ["++callbacks.best.dirpath=/mine"], [])
    assert config["callbacks"]["best"]["dirpath"] == "/mine"


def test_strings_of_a_run_are_data():
    run = {**RUN, "callbacks": {}, "dataset": {"_target_": RUN["dataset"]["_target_"], "classes": AWKWARD}}
    given = {**DEFAULTS, "backbone": {**RUN["backbone"], "layer": "${dataset.classes}"}}
    config = OmegaConf.create(apply_to_run(run, given, ["++backbone.layer='${dataset.classes}'"], []))
    plain = OmegaConf.to_container(config, resolve=True)
    assert plain["dataset"]["classes"] == plain["backbone"]["layer"] == AWKWARD


def test_known_keys_are_those_of_the_verb_alone():
    assert {"dataset", "head", "seed", "trust"} <= known_keys("train")
    assert not {"part", "defaults", "hydra", "override hydra/job_logging"} & known_keys("train")
    assert known_keys("evaluate") == {"run", "part", "probe"}

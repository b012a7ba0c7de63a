"""Paths of every kind reach a verb as they were typed, and a run's own overrides stand before those given."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from vidclf.cli import CONF
from vidclf.errors import VidclfError
from vidclf.run.config import causes_of, known_keys, prepare, saved_overrides

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
    """Return the value that a verb is given for an argument."""
    (override,) = OverridesParser.create().parse_overrides([argument])
    assert not override.is_sweep_override()
    return OmegaConf.create({"value": override.value()}).value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder, as far as overrides are concerned."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    (tmp_path / ".hydra").mkdir()
    return tmp_path


def save(folder: Path, *overrides: str) -> None:
    OmegaConf.save(list(overrides), folder / ".hydra" / "overrides.yaml")


def prepared(folder: Path, *arguments: str) -> list[str]:
    return prepare("evaluate", [f"run={folder}", *arguments], Path(CONF))


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("key", ["source", "resume"])
def test_a_literal_path_reaches_the_verb_as_it_was_typed(name: str, key: str):
    (argument,) = prepare("predict", [f"{key}=/data/{name}"], Path(CONF))
    assert read_by_hydra(argument) == f"/data/{name}"


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("key", ["dataset.root", "+dataset.root", "store.root"])
def test_a_path_that_exists_reaches_the_verb_as_it_was_typed(
    name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    (argument,) = prepare("train", [f"{key}={name}"], Path(CONF))
    expected = str(tmp_path / name) if name.startswith("~") else name  # data sets would read ~ as a user's home
    assert read_by_hydra(argument) == expected


def test_what_is_no_path_is_left_to_hydra():
    many = "dataset.classes=[" + ",".join(f"AClassOfVideos{i}" for i in range(101)) + "]"
    arguments = ["head=linear,mlp", "resume=null", many, "dataset.root=a,b", "+source.x=1", "~callbacks.best"]
    assert prepare("train", arguments, Path(CONF)) == arguments


def test_flags_stand_before_the_overrides_wherever_they_stood():
    arguments = ["seed=1", "-m", "head=linear,mlp", "~callbacks.best", "--cfg", "job"]
    assert prepare("train", arguments, Path(CONF)) == [
        "-m",
        "--cfg",
        "job",
        "seed=1",
        "head=linear,mlp",
        "~callbacks.best",
    ]


def test_a_given_override_replaces_the_runs_own(folder: Path):
    save(folder, "sampling=rate", "sampling.rate_hz=5", "seed=1", "+head.hidden=64")
    assert prepared(folder, "sampling.rate_hz=2", "head.hidden=8")[:-3] == ["sampling=rate", "seed=1"]


def test_another_option_of_a_group_drops_what_was_set_inside_the_old_one(folder: Path):
    save(folder, "sampling=rate", "sampling.rate_hz=5", "seed=1")
    assert prepared(folder, "sampling=dense")[:-2] == ["seed=1"]


def test_what_was_given_stands_behind_run_wherever_run_stood(folder: Path):
    save(folder, "seed=1")
    arguments = prepare("evaluate", ["part=val", f"run={folder}"], Path(CONF))
    assert [argument.partition("=")[0] for argument in arguments] == ["seed", "run", "part"]


def test_interpolations_in_saved_overrides_stay_as_they_are(folder: Path):
    save(folder, r"dataset.root='/data/\${x}'", "trainer.max_epochs=${seed}")
    assert prepared(folder)[:2] == [r"dataset.root='/data/\${x}'", "trainer.max_epochs=${seed}"]


@pytest.mark.parametrize(
    "line",
    [
        "trust=true",
        "+trust=true",
        "run=elsewhere",
        "hydra.callbacks.x._target_=os.system",
        "+hydra.callbacks.x={_target_:os.system,command:ls}",
        "hydra/job_logging=none",
        "head@hydra.callbacks.x=custom",
        "+head@_global_=custom",
        "--config-dir=/tmp/evil",
        "-m",
    ],
)
def test_a_run_cannot_set_what_train_does_not_know(line: str, folder: Path):
    save(folder, "seed=1", line)
    with pytest.raises(VidclfError, match=r"overrides.yaml: .* is nothing that vidclf train takes"):
        prepared(folder)


@pytest.mark.parametrize("content", [None, b"", b"a: 1", b"just words", b"[1, {", b"\xff\xfe\x00"])
def test_overrides_that_are_missing_or_damaged_are_said_so(content: bytes | None, folder: Path):
    if content is not None:
        (folder / ".hydra" / "overrides.yaml").write_bytes(content)
    with pytest.raises(
        VidclfError, match=r"overrides\.yaml: (missing or damaged|.* is nothing that vidclf train takes)"
    ):
        saved_overrides(folder, known_keys(Path(CONF), "train"))


def test_the_cause_of_a_setting_is_its_override_or_that_of_its_group():
    overrides = ["sampling=dense", "+head.hidden=8", "sam=1"]
    assert causes_of("sampling.num_views", overrides) == ["sampling=dense"]
    assert causes_of("head.hidden", overrides) == ["+head.hidden=8"]
    assert causes_of("head", overrides) == []


def test_known_keys_are_those_of_the_verb_and_of_train():
    assert {"dataset", "head", "seed", "part", "trust"} <= known_keys(Path(CONF), "evaluate")
    assert not {"part", "defaults", "hydra", "override hydra/job_logging"} & known_keys(Path(CONF), "train")

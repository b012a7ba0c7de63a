"""`vidclf demo` runs the commands that a user would type, and stops at the first that fails."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from verbs import Outcome


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the demo runs in the test's folder; each train and evaluate leaves scores."""
    seen: list[list[str]] = []

    def run(command: list[str]) -> SimpleNamespace:
        assert command[1:3] == ["-m", "vidclf"]
        verb, *arguments = command[3:]
        seen.append([verb, *arguments])
        if verb != "predict":
            (name,) = [argument.partition("=")[2] for argument in arguments if "run" in argument.partition("=")[0]]
            folder = Path(name) if verb == "train" else Path(name, "test")
            folder.mkdir(parents=True)
            (folder / "metrics.json").write_text(json.dumps({"top1": 0.5 if verb == "train" else 0.6}))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    return seen


def test_the_demo_trains_evaluates_predicts_and_prints_its_scores(
    commands: list[list[str]], vidclf: Callable[..., Outcome]
):
    outcome = vidclf("demo", "seed=1")
    assert outcome.status == 0, outcome.err
    assert [command[0] for command in commands] == ["train", "evaluate", "predict"]
    assert commands[0][1] == "experiment=demo"
    assert commands[0][-1] == "seed=1"
    assert "60.0%" in outcome.out
    assert "50.0%" in outcome.out
    assert outcome.out.count("  vidclf train ") == 2


def test_the_demo_stops_where_a_verb_fails(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, vidclf: Callable[..., Outcome]
):
    monkeypatch.setattr(subprocess, "run", lambda command: SimpleNamespace(returncode=3))
    outcome = vidclf("demo")
    assert outcome.status == 1
    assert "status 3" in outcome.err


def test_a_mistyped_key_of_the_demo_is_refused_before_anything_runs(
    commands: list[list[str]], vidclf: Callable[..., Outcome]
):
    assert vidclf("demo", "haed=linear").status == 1
    assert commands == []


def test_the_help_of_the_demo_runs_nothing(commands: list[list[str]], vidclf: Callable[..., Outcome]):
    assert vidclf("demo", "--help").out.startswith("vidclf demo: train, evaluate and predict")
    assert commands == []

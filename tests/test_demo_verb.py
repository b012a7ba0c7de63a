"""`vidclf demo` is the commands that a user types, one after the other, and ends with the first that fails."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vidclf import demo


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the demo runs in the test's folder; each train and evaluate leaves scores."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["vidclf.demo", "seed=1"])
    seen: list[list[str]] = []

    def run(command: list[str]) -> SimpleNamespace:
        seen.append(command[2:])
        if command[2] != "vidclf.predict":
            (run_of,) = [
                Path(word.partition("run.dir=")[2] or word[4:]) for word in command if "run" in word.split("=")[0]
            ]
            folder = run_of if command[2] == "vidclf.train" else run_of / "test"
            folder.mkdir(parents=True)
            (folder / "metrics.json").write_text(json.dumps({"top1": 0.5 if folder == run_of else 0.6}))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    return seen


def test_the_demo_trains_evaluates_predicts_and_says_what_it_found(
    commands: list[list[str]], capsys: pytest.CaptureFixture[str]
):
    demo.main()
    assert [command[0] for command in commands] == ["vidclf.train", "vidclf.evaluate", "vidclf.predict"]
    assert commands[0][1] == "experiment=demo"
    assert commands[0][-1] == "seed=1"
    told = capsys.readouterr().out
    assert "60.0% of the test clips are named rightly (validation said 50.0%" in told
    assert told.count("  vidclf train ") == 2


def test_the_demo_ends_where_a_verb_fails(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(subprocess, "run", lambda command: SimpleNamespace(returncode=3))
    with pytest.raises(SystemExit) as end:
        demo.main()
    assert end.value.code == 3


def test_the_help_of_the_demo_runs_nothing(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["vidclf.demo", "--help"])
    demo.main()
    assert capsys.readouterr().out.startswith("vidclf demo [key=value ...]")
    assert commands == []

"""The wheel holds every file of the package and conf/, and runs without the checkout."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vidclf import __version__

PROJECT = Path(__file__).parents[1]
FEW_SCENES = """
from vidclf.data.datasets import demo

scenes = demo.scenes
demo.scenes = lambda: [scene for scene in scenes() if scene.group in (1, 8, 9)]
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the installed libraries: no network, no new environment."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_every_file_of_the_package_and_of_conf_is_in_the_wheel(wheel: Path):
    with zipfile.ZipFile(wheel) as content:
        there = set(content.namelist())
    package = {path.relative_to(PROJECT) for path in (PROJECT / "vidclf").rglob("*") if path.is_file()}
    conf = {"vidclf" / path.relative_to(PROJECT) for path in (PROJECT / "conf").rglob("*.yaml")}
    wanted = {str(path) for path in package | conf if "__pycache__" not in path.parts}
    assert wanted <= there
    assert "vidclf/py.typed" in there
    assert f"vidclf-{__version__}-" in wheel.name
    assert not [name for name in there if name.startswith(("tests/", "conf/", "experiments/"))]


def test_the_demo_of_an_installed_wheel_runs_in_an_empty_folder(wheel: Path, tmp_path: Path):
    """Three of its groups and one epoch: all three verbs, started as a user starts them."""
    target, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    install = ["install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([sys.executable, "-m", "pip", *install, "--target", target, wheel], check=True)
    (target / "sitecustomize.py").write_text(FEW_SCENES)
    result = subprocess.run(
        [sys.executable, "-m", "vidclf", "demo", "trainer.max_epochs=1"],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"Result: [\d.]+% of the test clips are classified correctly", result.stdout)
    assert {path.name for path in empty.iterdir()} == {"data", "runs"}
    hint = next(line for line in result.stdout.splitlines() if "experiment=demo_gru" in line)
    assert hint.split("#")[0].split() == ["vidclf", "train", "experiment=demo_gru"]

"""What the README shows of one's own code works as it is written."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from verbs import Outcome

from vidclf.cli import verbs

README = (Path(__file__).parents[1] / "README.md").read_text()
CODE = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", README, re.DOTALL)
OWN_VIDEOS = re.search(r"## Your own videos.*?```bash\n(.*?)```", README, re.DOTALL)
TRAININGS = re.findall(r"^vidclf train (.*custom.*)$", README, re.MULTILINE)
ON_SMALL_DATA = ("dataset=ucf101", "trainer.max_epochs=1", "num_threads=2")


def test_there_is_a_head_and_a_backbone_to_try():
    assert [re.search(r"(\w+)=custom", line)[1] for line in TRAININGS] == ["head", "backbone"]


@pytest.mark.parametrize("line", TRAININGS)
def test_ones_own_part_trains_and_is_evaluated(line: str, vidclf: Callable[..., Outcome], clips: Path, tmp_path: Path):
    for name, text in CODE:
        (tmp_path / name).write_text(text)
    outcome = vidclf("train", *line.split(), *ON_SMALL_DATA, f"dataset.root={clips}")
    assert outcome.status == 0, outcome.err
    refused = vidclf("evaluate", f"run={outcome.run}")
    assert refused.status == 1
    assert "trust=true" in refused.err
    assert vidclf("evaluate", f"run={outcome.run}", "trust=true").status == 0


def test_a_folder_of_phone_videos_becomes_a_run_with_a_test_score(
    vidclf: Callable[..., Outcome], shared: Path, tmp_path: Path
):
    """The block as it is written; a backbone that needs no weights from the net stands in for resnet50."""
    for name in ("JumpingJack", "WallPushups"):
        for group in range(1, 6):
            person = tmp_path / "my_videos" / name / f"person{group}"
            person.mkdir(parents=True)
            shutil.copy(shared / "ucf3" / name / f"v_{name}_g{group:02d}_c01.avi", person / "IMG_0001.AVI")
    assert OWN_VIDEOS
    install, *lines = OWN_VIDEOS[1].splitlines()
    assert install == "pip install -e ."
    run = ""
    for _, verb, *arguments in map(shlex.split, lines):
        if verb not in verbs():
            continue
        arguments = [argument.replace("runs/train/<time>", run) for argument in arguments]
        without_weights = [] if verb == "evaluate" else ["backbone=tiny", "trainer.max_epochs=1", "num_threads=2"]
        outcome = vidclf(verb, *arguments, *without_weights)
        assert outcome.status == 0, outcome.err
        if verb == "train":
            run = str(outcome.run)
    assert json.loads(Path(run, "test", "metrics.json").read_text())["num_videos"] == 2

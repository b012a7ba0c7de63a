"""What the README shows of one's own code works as it is written."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from verbs import Outcome

README = (Path(__file__).parents[1] / "README.md").read_text()
CODE = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", README, re.DOTALL)
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

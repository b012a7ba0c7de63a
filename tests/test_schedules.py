"""The learning rate over a whole training."""

import math
from collections.abc import Callable

import pytest
import torch

from vidclf.errors import VidclfError
from vidclf.models.schedules import constant, cosine, one_cycle, step


def rates(schedule: Callable, num_steps: int, **settings: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = schedule(optimizer, num_steps, **settings)
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_constant_stays():
    assert rates(constant, 5) == [0.1] * 5


def test_cosine_rises_linearly_and_falls_to_zero():
    found = rates(cosine, 100, warmup=0.1)
    assert found[:11] == pytest.approx([0.1 * (i + 1) / 11 for i in range(11)])
    assert found[55] == pytest.approx(0.05)
    assert found[-1] == pytest.approx(0.05 * (1 + math.cos(math.pi * 89 / 90)))


def test_step_falls_at_its_milestones():
    assert rates(step, 8) == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)


def test_one_cycle_has_its_peak_behind_the_warmup():
    found = rates(one_cycle, 100, warmup=0.25)
    assert found.index(max(found)) == 24
    assert max(found) == pytest.approx(0.1)
    assert found[-1] < 1e-5


@pytest.mark.parametrize("schedule", [cosine, step, one_cycle])
def test_a_training_without_an_end_is_refused(schedule: Callable):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(VidclfError, match=r"Set trainer\.max_epochs, or use scheduler=constant"):
        schedule(optimizer, math.inf)


def test_a_warmup_longer_than_the_training_is_refused():
    with pytest.raises(VidclfError, match=r"scheduler\.warmup=1\.5: must be"):
        rates(cosine, 10, warmup=1.5)

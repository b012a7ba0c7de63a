"""Random numbers depend on seed, purpose and every number given, and on nothing else."""

import os
import random
import re
from collections import Counter
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

import vidclf
from vidclf.errors import VidclfError
from vidclf.system.seeds import generator_for, seed_all


def test_a_generator_depends_on_seed_purpose_every_number_and_their_count():
    asked = [(0, "order"), (1, "order"), (0, "split"), (0, "order", 0), (0, "order", 0, 0), (0, "order", 1, 2)]
    asked += [(0, "order", 2, 1), (0, "order", 12), (1, "order", 2), (2, "order", 1), (2**40, "order"), (-1, "order")]
    seeds = [generator_for(*numbers).initial_seed() for numbers in asked]
    assert len(set(seeds)) == len(asked)
    again = [generator_for(*numbers).initial_seed() for numbers in asked]
    assert again == seeds
    first, second = (torch.rand(5, generator=generator_for(0, purpose)) for purpose in ("order", "split"))
    assert not torch.isclose(first, second).any()


def test_no_two_draws_have_the_same_purpose():
    package = Path(vidclf.__file__).parent
    sources = [path.read_text() for path in package.rglob("*.py") if path.name != "seeds.py"]
    purposes = Counter(re.findall(r'generator_for\([^,"]+, "(\w+)"', "".join(sources)))
    assert sum(purposes.values()) == "".join(sources).count("generator_for(")
    assert purposes >= Counter(["augmentation", "dropout", "order", "sampling", "split", "windows"])
    assert set(purposes.values()) == {1}


def test_all_streams_are_seeded_as_lightning_seeds_them(monkeypatch: pytest.MonkeyPatch):
    names = "PL_GLOBAL_SEED", "PL_SEED_WORKERS"
    for name in names:
        monkeypatch.setenv(name, "")
    drawn = []
    for seed in (lambda: L.seed_everything(7, workers=True, verbose=False), lambda: seed_all(7)):
        seed()
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item(), [os.environ[name] for name in names]))
        random.random(), np.random.rand(), torch.rand(1)
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, None, "abc"])
def test_a_seed_is_a_whole_number(seed: object):
    with pytest.raises(VidclfError, match=rf"^seed={seed}: must be a whole number from 0 to 4294967295\.$"):
        seed_all(seed)

"""Random numbers are told apart by seed, purpose and every number, and by nothing else."""

import re
from collections import Counter
from pathlib import Path

import torch

import vidclf
from vidclf.system.seeds import generator_for


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

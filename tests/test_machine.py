"""The machine is asked, and what is set for it is set."""

import subprocess
import sys

import pytest

from vidclf.system import machine

GROW = """
import ctypes, resource, sys
from vidclf.system.machine import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
import torch
for _ in range(20):  # until the heap has room for them
    torch.ones(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not machine._is_glibc(), reason="only glibc gives blocks back so")
def test_blocks_that_are_freed_are_kept():
    """Page faults tell: without, each of 20 blocks of 40 MB is faulted in again, page by page."""

    def count_faults(how: str) -> int:
        result = subprocess.run([sys.executable, "-c", GROW, how], capture_output=True, text=True, check=True)
        return int(result.stdout)

    assert count_faults("kept") < 1000
    assert count_faults("given back") > 100_000


def test_free_memory_and_cores_are_numbers_of_this_machine():
    assert 2**20 < machine.free_memory() < 2**50
    assert 1 <= machine.num_cores() < 10_000


def test_bfloat16_is_computed_where_the_cpu_says_so(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for capabilities, expected in (({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert machine.computes_in_bfloat16() == expected

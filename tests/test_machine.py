"""Cores, memory and devices are those that this process may use."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import joblib
import psutil
import pytest
import torch
from doubles import make_trainer

from vidclf.errors import VidclfError
from vidclf.system import machine

GROW = """
import resource, torch
from vidclf.system.machine import keep_memory

def count_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(count_faults())
keep_memory()
count_faults()  # until the heap has room for them
print(count_faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc returns blocks so")
def test_freed_blocks_are_kept():
    """Otherwise each of 20 blocks of 40 MB is mapped again, page by page."""
    result = subprocess.run([sys.executable, "-c", GROW], capture_output=True, text=True, check=True)
    given_back, kept = map(int, result.stdout.split())
    assert given_back > 100_000
    assert kept < 1000


def test_free_memory_and_cores_are_numbers_of_this_machine():
    assert 2**20 < machine.free_memory() < 2**50
    assert 1 <= machine.num_cores() < 10_000


def test_bfloat16_is_used_if_the_cpu_has_instructions_for_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for capabilities, expected in (({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda value=capabilities: value)
        assert machine.computes_in_bfloat16() == expected


# Limits of this process

CPUS = "SLURM_CPUS_PER_TASK"
MB = 2**20


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**6 * MB))


@pytest.mark.parametrize(("allowed", "expected"), [("6", 6), ("9", 8), ("", 8)])
def test_slurm_limits_the_cores(allowed: str, expected: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 8)
    monkeypatch.setenv(CPUS, allowed)
    assert machine.num_cores() == expected


def system_of(root: Path, group: str, files: dict[str, str]) -> Path:
    """Write below `root` the files in which Linux describes the control group of a process."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"5:memory:/\n0::{group}\n")
    for name, content in files.items():
        (root / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / name).write_text(content)
    return root


MEMORY = "slurm/job_7/memory."
LIMITS = {
    "its group": ("/slurm/job_7", {f"{MEMORY}max": 800, f"{MEMORY}current": 500, f"{MEMORY}stat": 100}, 400),
    "a group above": ("/slurm/job_7", {"slurm/memory.max": 9, "slurm/memory.current": 8, "slurm/memory.stat": 2}, 3),
    "a container": ("/", {"memory.max": 700, "memory.current": 300, "memory.stat": 20}, 420),
    "all used": ("/", {"memory.max": 300, "memory.current": 400, "memory.stat": 0}, 0),
    "another group": ("/slurm/job_8", {f"{MEMORY}max": 8, f"{MEMORY}current": 5, f"{MEMORY}stat": 1}, 10**6),
}


@pytest.mark.parametrize("kind", LIMITS)
def test_free_memory_is_limited_by_the_control_group_and_the_groups_above(kind: str, tmp_path: Path):
    group, megabytes, expected = LIMITS[kind]
    files = {
        name: f"anon 7\ninactive_file {count * MB}\n" if name.endswith("stat") else f"{count * MB}\n"
        for name, count in megabytes.items()
    }
    assert machine.free_memory(system_of(tmp_path, group, files)) == expected * MB


def test_without_a_limit_free_memory_is_that_of_the_machine(tmp_path: Path):
    unlimited = {f"{MEMORY}max": "max\n", f"{MEMORY}current": f"{MB}\n", f"{MEMORY}stat": ""}
    assert machine.free_memory(system_of(tmp_path, "/slurm/job_7", unlimited)) == 10**6 * MB
    assert machine.free_memory(tmp_path / "no Linux") == 10**6 * MB


@pytest.mark.parametrize(
    ("environment", "megabytes"),
    [
        ({"SLURM_MEM_PER_NODE": "9000"}, 8999),
        ({"SLURM_MEM_PER_CPU": "2500", CPUS: "4"}, 9999),
        ({"SLURM_MEM_PER_CPU": "2500", CPUS: "1", "SLURM_CPUS_ON_NODE": "4"}, 9999),
        ({"SLURM_MEM_PER_CPU": "2500"}, 2499),
        ({"SLURM_MEM_PER_NODE": "0"}, 10**6),
    ],
)
def test_free_memory_is_limited_by_slurm_less_what_this_process_uses(
    environment: dict[str, str], megabytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: SimpleNamespace(rss=MB))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert machine.free_memory(tmp_path) == megabytes * MB


def test_torch_uses_no_more_threads_than_there_are_cores(monkeypatch: pytest.MonkeyPatch):
    threads = [8]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    for cores in (12, 8, 3, 3):
        monkeypatch.setattr(machine, "num_cores", lambda cores=cores: cores)
        machine.limit_threads()
    assert threads == [8, 3]


def with_gpus(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch find this number of NVIDIA GPUs."""
    gpu = torch.device("cuda") if count else None
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available: gpu)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: count)


@pytest.mark.parametrize(
    ("accelerator", "devices", "chosen"),
    [
        *[("auto", 1, "cuda:0"), ("gpu", "auto", "cuda:0"), ("cuda", -1, "cuda:0"), ("auto", 2, "cuda:0")],
        *[("auto", [1], "cuda:1"), ("gpu", "1,0", "cuda:1"), ("gpu", "0,", "cuda:0"), ("cpu", 3, "cpu")],
    ],
)
def test_the_first_of_the_devices_is_chosen(
    accelerator: str, devices: object, chosen: str, monkeypatch: pytest.MonkeyPatch
):
    with_gpus(2, monkeypatch)
    assert machine.choose_device(accelerator, devices) == torch.device(chosen)


@pytest.mark.parametrize(
    ("count", "accelerator", "devices", "sentence"),
    [
        (0, "gpu", 1, "trainer.accelerator=gpu: this machine has no such device. Use one of auto, cpu"),
        (2, "tpu", 1, "trainer.accelerator=tpu: this machine has no such device. Use one of auto, cpu, gpu, cuda"),
        (2, "gpu", 3, "trainer.devices=3: this machine has 2 cuda device.*numbered from 0"),
        (2, "auto", [2], r"trainer.devices=\[2\]: this machine has 2 cuda"),
        (2, "auto", 0, "trainer.devices=0: this machine has 2 cuda"),
        (2, "auto", "some", "trainer.devices=some: this machine has 2 cuda"),
        (0, "auto", [0], r"trainer.devices=\[0\]: on a CPU, use auto or a number of processes"),
        (0, "cpu", 0, "trainer.devices=0: on a CPU, use auto or a number of processes"),
    ],
)
def test_a_missing_device_is_refused_with_the_ones_there_are(
    count: int, accelerator: str, devices: object, sentence: str, monkeypatch: pytest.MonkeyPatch
):
    with_gpus(count, monkeypatch)
    with pytest.raises(VidclfError, match=f"^{sentence}"):
        machine.choose_device(accelerator, devices)


@pytest.mark.parametrize("accelerator", ["auto", "cpu", "gpu", "cuda", "mps"])
@pytest.mark.parametrize("devices", ["auto", 1, 3, "2", 0, -1, [0], [1], "0,1", None])
def test_lightning_chooses_the_same_device_here(accelerator: str, devices: object):
    """Or neither finds one."""
    try:
        theirs = make_trainer(accelerator=accelerator, devices=devices).strategy.root_device
    except Exception:
        theirs = None
    try:
        ours = machine.choose_device(accelerator, devices)
    except VidclfError:
        ours = None
    assert ours == theirs


def test_determinism_is_set_as_the_trainer_sets_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    settings = []
    for deterministic in ("warn", True, False, None):
        for set_determinism in (lambda value: make_trainer(deterministic=value), machine.set_determinism):
            torch.use_deterministic_algorithms(False)
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ""
            set_determinism(deterministic)
            level = torch.get_deterministic_debug_mode()
            settings.append((deterministic, level, os.environ["CUBLAS_WORKSPACE_CONFIG"]))
    torch.use_deterministic_algorithms(False)
    assert settings[::2] == settings[1::2]

"""The machine is asked, and what is set for it is set."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from doubles import make_trainer

from vidclf.errors import VidclfError
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
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for capabilities, expected in (({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert machine.computes_in_bfloat16() == expected


# What a job may use

MOUNTS = {
    2: "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n",
    1: "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "36 31 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
}
GROUPS = {2: "0::/slurm/job_7\n", 1: "5:memory:/slurm/job_7\n3:cpu,cpuacct:/slurm/job_7\n1:name=systemd:/\n0::/\n"}
MB = 2**20


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def system_of(root: Path, version: int, files: dict[str, str], top: str = "/", group: str = "/slurm/job_7") -> Path:
    """Write below `root` what Linux shows of a process in a control group two levels down."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(GROUPS[version].replace("/slurm/job_7", group))
    mounts = MOUNTS[version].replace(" / /sys", f" {top} /sys")
    (root / "proc/self/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mounts)
    for name, content in files.items():
        (root / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / name).write_text(content)
    return root


V1_CPU = "cpu,cpuacct/slurm/job_7/cpu.cfs"
QUOTAS = {
    "own group": (2, {"slurm/job_7/cpu.max": "300000 100000\n"}, 3),
    "a group above": (2, {"slurm/job_7/cpu.max": "max 100000\n", "slurm/cpu.max": "250000 100000\n"}, 3),
    "the least": (2, {"slurm/job_7/cpu.max": "800000 100000\n", "slurm/cpu.max": "200000 100000\n"}, 2),
    "less than one": (2, {"slurm/job_7/cpu.max": "20000 100000\n"}, 1),
    "none": (2, {"slurm/job_7/cpu.max": "max 100000\n"}, 16),
    "version 1": (1, {f"{V1_CPU}_quota_us": "400000\n", f"{V1_CPU}_period_us": "100000\n"}, 4),
    "version 1, none": (1, {f"{V1_CPU}_quota_us": "-1\n", f"{V1_CPU}_period_us": "100000\n"}, 16),
    "another's": (2, {"slurm/job_8/cpu.max": "100000 100000\n"}, 16),
}


@pytest.mark.parametrize("kind", QUOTAS)
def test_cores_are_those_that_the_quotas_of_the_own_group_and_those_above_allow(kind: str, tmp_path: Path):
    version, files, expected = QUOTAS[kind]
    assert machine.num_cores(system_of(tmp_path, version, files)) == expected


def test_a_container_sees_its_own_group_at_the_top(tmp_path: Path):
    for top, group, number in (("/docker/a", "/docker/a", 1), ("/docker/a", "/docker/a/b", 2), ("/../..", "/", 3)):
        files = {"cpu.max": "500000 100000\n", "memory.max": f"{900 * MB}", "memory.current": "0", "memory.stat": ""}
        root = system_of(tmp_path / str(number), 2, files, top, group)
        assert machine.num_cores(root) == 5
        assert machine.free_memory(root) == 900 * MB


def test_slurm_limits_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = system_of(tmp_path, 2, {"slurm/cpu.max": "800000 100000\n"})
    for given, expected in (("6", 6), ("9", 8), ("", 8)):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
        assert machine.num_cores(root) == expected


V1, V2 = "memory/slurm/job_7/memory.", "slurm/job_7/memory."
LIMITS = {
    "own group": (2, {f"{V2}max": 800, f"{V2}current": 500, f"{V2}stat": 100}, 400),
    "a group above": (2, {"slurm/memory.max": 900, "slurm/memory.current": 800, "slurm/memory.stat": 50}, 150),
    "version 1": (1, {f"{V1}limit_in_bytes": 700, f"{V1}usage_in_bytes": 300, f"{V1}stat": 20}, 420),
    "all used, and what of it is not told": (2, {f"{V2}max": 300, f"{V2}current": 400}, 0),
}


@pytest.mark.parametrize("kind", LIMITS)
def test_free_memory_is_what_the_own_group_and_those_above_leave(kind: str, tmp_path: Path):
    version, megabytes, expected = LIMITS[kind]
    name = {1: "inactive_file 7\ntotal_inactive_file", 2: "anon 7\ninactive_file"}[version]
    files = {
        file: f"{name} {count * MB}\nactive_file 9\n" if file.endswith("stat") else f"{count * MB}\n"
        for file, count in megabytes.items()
    }
    assert machine.free_memory(system_of(tmp_path, version, files)) == expected * MB


def test_without_a_limit_memory_is_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=123 * MB))
    unlimited = {f"{V2}max": "max\n", f"{V2}current": f"{MB}\n", f"{V2}stat": ""}
    assert machine.free_memory(system_of(tmp_path, 2, unlimited)) == 123 * MB
    assert machine.free_memory(tmp_path / "no Linux") == 123 * MB
    assert machine.num_cores(tmp_path / "no Linux") == 16


@pytest.mark.parametrize(
    ("environment", "megabytes"),
    [
        ({"SLURM_MEM_PER_NODE": "9000"}, 8999),
        ({"SLURM_MEM_PER_CPU": "2500", "SLURM_CPUS_PER_TASK": "4"}, 9999),
        ({"SLURM_MEM_PER_CPU": "2500", "SLURM_CPUS_PER_TASK": "1", "SLURM_CPUS_ON_NODE": "4"}, 9999),
        ({"SLURM_MEM_PER_CPU": "2500"}, 2499),
        ({"SLURM_MEM_PER_NODE": "0"}, 10**6),
    ],
)
def test_slurms_memory_less_what_this_process_has_is_a_limit_too(
    environment: dict[str, str], megabytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**6 * MB))
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: SimpleNamespace(rss=MB))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert machine.free_memory(tmp_path) == megabytes * MB


def test_torch_computes_in_no_more_threads_than_there_are_cores(monkeypatch: pytest.MonkeyPatch):
    threads = [8]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    for cores in (12, 8, 3, 3):
        monkeypatch.setattr(machine, "num_cores", lambda cores=cores: cores)
        machine.limit_threads()
    assert threads == [8, 3]


def with_gpus(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch say that it has so many of NVIDIA's."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: count)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)


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
        (0, "gpu", 1, "trainer.accelerator=gpu: no device of this machine is called so; use one of auto, cpu"),
        (2, "tpu", 1, "trainer.accelerator=tpu: no device of this machine is called so; use one of auto, cpu, cuda, g"),
        (2, "gpu", 3, "trainer.devices=3: this machine has 2 of cuda, numbered from 0"),
        (2, "auto", [2], r"trainer.devices=\[2\]: this machine has 2 of cuda"),
        (2, "auto", 0, "trainer.devices=0: this machine has 2 of cuda"),
        (2, "auto", "some", "trainer.devices=some: this machine has 2 of cuda"),
        (0, "auto", [0], r"trainer.devices=\[0\]: of a CPU it is a number of processes, 1 or more, or auto"),
        (0, "cpu", 0, "trainer.devices=0: of a CPU it is a number of processes"),
    ],
)
def test_a_device_that_is_not_there_is_a_sentence(
    count: int, accelerator: str, devices: object, sentence: str, monkeypatch: pytest.MonkeyPatch
):
    with_gpus(count, monkeypatch)
    with pytest.raises(VidclfError, match=f"^{sentence}"):
        machine.choose_device(accelerator, devices)


@pytest.mark.parametrize("accelerator", ["auto", "cpu", "gpu", "cuda", "mps"])
@pytest.mark.parametrize("devices", ["auto", 1, 3, "2", 0, -1, [0], [1], "0,1", None])
def test_lightning_chooses_the_same_device_here(accelerator: str, devices: object):
    """Or neither does."""
    try:
        theirs = make_trainer(accelerator=accelerator, devices=devices).strategy.root_device
    except Exception:
        theirs = None
    try:
        ours = machine.choose_device(accelerator, devices)
    except VidclfError:
        ours = None
    assert ours == theirs


def test_torch_is_told_what_the_trainer_would_tell_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    told = []
    for deterministic in ("warn", True, False, None):
        for tell in (lambda value: make_trainer(deterministic=value), machine.set_determinism):
            torch.use_deterministic_algorithms(False)
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ""
            tell(deterministic)
            level = torch.get_deterministic_debug_mode()
            told.append((deterministic, level, os.environ["CUBLAS_WORKSPACE_CONFIG"]))
    torch.use_deterministic_algorithms(False)
    assert told[::2] == told[1::2]

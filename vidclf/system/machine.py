"""What this machine is made of, as far as speed goes by it, and what of it this job may use."""

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vidclf.errors import VidclfError

if TYPE_CHECKING:
    import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's <malloc.h>
ROOT = Path("/")
MEMORY_FILES = (  # of a control group: its limit, its use, and what of that is given back, by version 2 and 1
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def keep_memory() -> None:
    """Let glibc keep the blocks that are freed, in this process; call it before the first tensor.

    It gives every large block back to the system otherwise, and faults it in again page by page at the next batch:
    a third of VGG16's time on a CPU. Elsewhere (musl, macOS, Windows) nothing happens. What is freed is used again, so
    the process keeps what it needed at most (and what lies between).
    """
    if sys.platform != "linux" or not _is_glibc():
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def num_cores(root: Path = ROOT) -> int:
    """Return the number of cores that this process may use, by its affinity, its control groups' quotas and SLURM.

    joblib and psutil do not see the quota of a group below the topmost.
    """
    cores = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    for group in _groups("cpu", root):
        with suppress(OSError, ValueError):  # a group without a quota has no such file, or `max`
            quota, period = map(int, (group / "cpu.max").read_text().split())
            cores.append(math.ceil(quota / period))
        with suppress(OSError, ValueError):
            quota, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            cores += [math.ceil(quota / period)] if quota > 0 else []  # -1: none
    return min(cores + _of_slurm("SLURM_CPUS_PER_TASK"))


def limit_threads() -> None:
    """Let torch compute in no more threads than there are cores to this process: the others would only wait."""
    import torch

    if num_cores() < torch.get_num_threads():
        torch.set_num_threads(num_cores())


def computes_in_bfloat16(device_type: str | None = None) -> bool:
    """Whether the device (None: an NVIDIA GPU where there is one, else the CPU) multiplies bfloat16.

    GPUs do from the Ampere generation on. Intel's AMX has matrix units for it; AVX-512's own bfloat16 instructions
    (AMD from Zen 4, Intel from Cooper Lake) do twice the work of float32's.
    """
    import torch

    if device_type != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def has_matrix_units() -> bool:
    """Whether the CPU has units for matrices: Intel's AMX."""
    import torch

    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def free_memory(root: Path = ROOT) -> int:
    """Return the bytes that are free or can be freed, by this machine, this process's control groups and SLURM."""
    import psutil

    free = [psutil.virtual_memory().available]
    for group in _groups("memory", root):
        for limit, used, idle in MEMORY_FILES:
            with suppress(OSError, ValueError):  # a group without a limit has no such file, or `max`
                taken = int((group / used).read_text()) - _cached(group, idle)
                free.append(int((group / limit).read_text()) - taken)
    allowed = _of_slurm("SLURM_MEM_PER_NODE")
    cores = _of_slurm("SLURM_CPUS_ON_NODE") + _of_slurm("SLURM_CPUS_PER_TASK") + [1]
    allowed += [megabytes * cores[0] for megabytes in _of_slurm("SLURM_MEM_PER_CPU")]
    free += [megabytes * 2**20 - psutil.Process().memory_info().rss for megabytes in allowed]
    return max(0, min(free))


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folders of this process's control groups and of all above them, of version 1 and 2 (cgroups(7))."""
    try:
        own = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:  # not Linux
        return
    paths = {name: path for _, names, path in own for name in names.split(",")}  # version 2 has no names
    for mount in mounts:
        _, _, _, top, point, *_, kind, _, _ = mount.split()
        name = "" if kind == "cgroup2" else controller
        if name not in paths or kind not in ("cgroup", "cgroup2"):
            continue
        path = PurePosixPath(paths[name])
        # In a container, the topmost group that is seen is the container's own.
        below = path.relative_to(top) if path.is_relative_to(top) else PurePosixPath()
        for group in (below, *below.parents):
            yield root / point.lstrip("/") / group


def _cached(group: Path, name: str) -> int:
    """Return the bytes of files' pages that a group is charged for and gives back where memory is wanted."""
    with suppress(OSError):  # a kernel that does not tell
        pairs = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        return sum(int(value) for key, value in pairs if key == name)
    return 0


def _of_slurm(name: str) -> list[int]:
    """Return the number that SLURM sets under this name; none where it sets none, or 0 for no limit."""
    value = os.environ.get(name, "")
    return [int(value)] if value.isdecimal() and int(value) else []


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):
        return False


def set_number_formats(device_type: str) -> str:
    """Let a GPU's matrix units round float32 to TF32 (NVIDIA, Ampere and later); return float32's name then."""
    import torch

    if device_type != "cuda":
        return "float32"
    torch.set_float32_matmul_precision("high")
    return "tf32"


def set_determinism(deterministic: object) -> None:
    """Let torch compute alike each time, as the Trainer's argument says: `warn` names what it has no such way for."""
    import torch

    if deterministic is None:
        return
    torch.use_deterministic_algorithms(bool(deterministic), warn_only=deterministic == "warn")
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS wants it


def choose_device(accelerator: object, devices: object) -> "torch.device":
    """Return the first device that Lightning's Trainer takes, whose arguments these are.

    Args:
        accelerator: auto, cpu, gpu, cuda, mps.
        devices: a number of them, -1 or auto for all, or which: [0, 2] or "0,2"; of the CPU, a number of processes.

    Raises:
        VidclfError: this machine has no such kind of device, or not these of them.
    """
    import torch

    gpus = {"mps": torch.backends.mps.is_available(), "cuda": torch.cuda.is_available()}
    here = [kind for kind, is_there in gpus.items() if is_there]
    kinds = {"auto": [*here, "cpu"][0], "cpu": "cpu", **{kind: kind for kind in here}}
    kinds |= {"gpu": here[0]} if here else {}
    kind, text = kinds.get(str(accelerator)), str(devices).replace(" ", "")
    if kind is None:
        raise VidclfError(
            f"trainer.accelerator={accelerator}: no device of this machine is called so; use one of {', '.join(kinds)}."
        )
    if kind == "cpu":
        if text != "auto" and not (text.isdecimal() and int(text) > 0):
            raise VidclfError(f"trainer.devices={devices}: of a CPU it is a number of processes, 1 or more, or auto.")
        return torch.device("cpu")
    count = torch.accelerator.device_count()
    if text in ("auto", "-1"):
        numbers = [*range(count)]
    elif text.isdecimal():
        numbers = [*range(int(text))]
    else:
        numbers = [int(number) for number in text.strip("[]").split(",") if number.isdecimal()]
    if not numbers or not set(numbers) <= {*range(count)}:
        raise VidclfError(f"trainer.devices={devices}: this machine has {count} of {kind}, numbered from 0.")
    return torch.device(kind, numbers[0])

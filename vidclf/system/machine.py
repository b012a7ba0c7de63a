"""The cores, memory, devices and number formats that this process may use."""

import ctypes
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vidclf.errors import VidclfError

if TYPE_CHECKING:
    import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from glibc's <malloc.h>


def keep_memory() -> None:
    """Let glibc keep freed blocks for this process; call it before the first tensor.

    By default it returns every large block to the system, and faults it in again page by page at the next batch:
    a third of VGG16's time on a CPU. The process then keeps its largest use until it ends. Without glibc (musl,
    macOS, Windows), nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def num_cores() -> int:
    """Return the number of cores that the affinity, the container's quota and SLURM allow to this process."""
    from joblib import cpu_count

    return min([cpu_count(), *_slurm_limit("SLURM_CPUS_PER_TASK")])


def limit_threads() -> None:
    """Let torch use no more threads than this process has cores; more would only wait."""
    import torch

    if num_cores() < torch.get_num_threads():
        torch.set_num_threads(num_cores())


def computes_in_bfloat16(device_type: str | None = None) -> bool:
    """Return whether the device (None: an NVIDIA GPU if there is one, else the CPU) multiplies bfloat16.

    GPUs do from the Ampere generation on. Intel's AMX has matrix units for it; AVX-512's own bfloat16 instructions
    (AMD from Zen 4, Intel from Cooper Lake) do twice the work of float32's.
    """
    import torch

    if device_type != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def has_matrix_units() -> bool:
    """Return whether the CPU has matrix units (Intel's AMX)."""
    import torch

    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def saturates_int8() -> bool:
    """Return whether sums of products of bytes can overflow: on an x86 CPU without VNNI, which adds them in 16 bits."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    has_vnni = capabilities.get("avx512_vnni") or capabilities.get("avx_vnni")
    return platform.machine() in ("x86_64", "AMD64") and not has_vnni


def free_memory(root: Path = Path("/")) -> int:
    """Return the bytes that the machine, this process's control groups (version 2) and SLURM leave free.

    Args:
        root: of the file system, for tests.
    """
    import psutil

    free = [psutil.virtual_memory().available]
    mount = root / "sys/fs/cgroup"
    with suppress(OSError):  # not Linux
        name = (root / "proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
        for group in (mount / name, *(mount / name).parents):
            with suppress(OSError, ValueError):  # no limit: no such file, or `max`
                limit, used = (int((group / f"memory.{field}").read_text()) for field in ("max", "current"))
                counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                free.append(limit - used + int(counts.get("inactive_file", 0)))  # cached files give way
    allowed = _slurm_limit("SLURM_MEM_PER_NODE")
    cores = [*_slurm_limit("SLURM_CPUS_ON_NODE"), *_slurm_limit("SLURM_CPUS_PER_TASK"), 1]
    allowed += [megabytes * cores[0] for megabytes in _slurm_limit("SLURM_MEM_PER_CPU")]
    free += [megabytes * 2**20 - psutil.Process().memory_info().rss for megabytes in allowed]
    return max(0, min(free))


def _slurm_limit(name: str) -> list[int]:
    """Return the number in a variable that SLURM sets; empty if it sets none, or 0 for no limit."""
    value = os.environ.get(name, "")
    return [int(value)] if value.isdecimal() and int(value) else []


def set_number_formats(device_type: str) -> str:
    """Let a GPU's matrix units round float32 to TF32 (NVIDIA, Ampere and later); return the name of that format."""
    import torch

    if device_type != "cuda":
        return "float32"
    torch.set_float32_matmul_precision("high")
    return "tf32"


def set_determinism(deterministic: object) -> None:
    """Let torch compute deterministically, as the Trainer's argument says; `warn` only names what cannot."""
    import torch

    if deterministic is None:
        return
    torch.use_deterministic_algorithms(bool(deterministic), warn_only=deterministic == "warn")
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS requires it


def choose_device(accelerator: object, devices: object) -> "torch.device":
    """Return the first device that Lightning's Trainer would use with these arguments.

    Args:
        accelerator: auto, cpu, gpu, cuda, mps.
        devices: how many, -1 or auto for all, or which: [0, 2] or "0,2"; on a CPU, the number of processes.
    """
    import torch

    gpu = torch.accelerator.current_accelerator(check_available=True)
    gpu = gpu if gpu and gpu.type in ("cuda", "mps") else None  # Lightning knows no others
    allowed = ["auto", "cpu", *(["gpu", gpu.type] if gpu else [])]
    if str(accelerator) not in allowed:
        raise VidclfError(
            f"trainer.accelerator={accelerator}: this machine has no such device. Use one of {', '.join(allowed)}."
        )
    text = str(devices).replace(" ", "")
    if gpu is None or str(accelerator) == "cpu":
        if text != "auto" and not (text.isdecimal() and int(text) > 0):
            raise VidclfError(f"trainer.devices={devices}: on a CPU, use auto or a number of processes, 1 or more.")
        return torch.device("cpu")
    count = torch.accelerator.device_count()
    if text in ("auto", "-1"):
        numbers = [*range(count)]
    elif text.isdecimal():
        numbers = [*range(int(text))]
    else:
        numbers = [int(number) for number in text.strip("[]").split(",") if number.isdecimal()]
    if not numbers or not set(numbers) <= {*range(count)}:
        raise VidclfError(f"trainer.devices={devices}: this machine has {count} {gpu.type} device(s), numbered from 0.")
    return torch.device(gpu.type, numbers[0])

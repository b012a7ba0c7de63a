"""What this machine is made of, as far as speed goes by it."""

import ctypes
import os
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's <malloc.h>


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


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def computes_in_bfloat16() -> bool:
    """Whether there is an NVIDIA GPU of the Ampere generation or later, or else a CPU that multiplies bfloat16.

    Intel's AMX has matrix units for it; AVX-512's own bfloat16 instructions (AMD from Zen 4, Intel from Cooper
    Lake) do twice the work of float32's.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def has_matrix_units() -> bool:
    """Whether the CPU has units for matrices: Intel's AMX."""
    import torch

    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def free_memory() -> int:
    """Return the bytes of memory that are free or can be freed, to this machine or to this job's control group."""
    import psutil

    available = psutil.virtual_memory().available
    try:
        limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no group, or one without a limit, which reads `max`
        return available
    return max(0, min(available, limit - used))


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):
        return False

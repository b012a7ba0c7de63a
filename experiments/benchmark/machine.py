"""Describe the machine and the libraries of a measurement."""

import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from experiments.benchmark.setting import Setting
from vidclf.system.machine import num_cores

FLAGS = ("amx_bf16", "avx512_bf16", "avx512_f", "avx2")
LIBRARIES = ("torch", "torchvision", "lightning", "av", "opencv-python-headless")


def describe(setting: Setting) -> dict[str, object]:
    """Return processor, cores, memory, GPU, versions and the commit, with a + if files differ from it."""
    capabilities = torch.cpu.get_capabilities()
    return {
        "cpu": cpu_name(),
        "cores": num_cores(),
        "flags": [flag for flag in FLAGS if capabilities.get(flag)],
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
        "commit": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else ""),
    }


def cpu_name() -> str:
    """Return the processor's name as the system has it."""
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

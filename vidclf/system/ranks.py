"""Several processes that work as one, as Lightning, torchrun or SLURM started them."""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from lightning import Trainer

Value = TypeVar("Value")

PR_SET_PDEATHSIG = 1  # from Linux's <sys/prctl.h>


def is_rank_zero() -> bool:
    """Return whether this process writes files and prints for all; true for a process that works alone."""
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    if "LOCAL_RANK" in os.environ:  # before SLURM's variable, which processes that Lightning starts inherit
        return os.environ["LOCAL_RANK"] == os.environ.get("NODE_RANK", "0") == "0"
    return os.environ.get("SLURM_PROCID", "0") == "0"


def is_launched_externally() -> bool:
    """Return whether torchrun or SLURM starts a process for each rank, not Lightning from rank zero."""
    several_tasks = os.environ.get("SLURM_NTASKS", "1") != "1"
    return "TORCHELASTIC_RUN_ID" in os.environ or ("SLURM_PROCID" in os.environ and several_tasks)


def start_ranks(trainer: "Trainer") -> None:
    """Start the other processes that `trainer.devices` asks for, unless they run already, and wait for all."""
    if trainer.strategy.launcher is not None:
        trainer.strategy.launcher.launch(trainer.strategy.setup_environment, trainer=trainer)


def rank_and_size() -> tuple[int, int]:
    """Return this process's rank and the number of processes; 0 and 1 alone, or before they are started."""
    if not _is_started():
        return 0, 1
    import torch.distributed as dist

    return dist.get_rank(), dist.get_world_size()


def of_rank(items: Sequence[Value], rank: int | None = None) -> Sequence[Value]:
    """Return the items that belong to this process, or to process `rank`: every `size`-th one."""
    this_rank, size = rank_and_size()
    return items[this_rank if rank is None else rank :: size]


def gather(value: Value) -> list[Value]:
    """Return every rank's `value`, in the order of ranks."""
    _, size = rank_and_size()
    if size == 1:
        return [value]
    import torch.distributed as dist

    values: list = [None] * size
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait until all processes are here."""
    gather(None)


def local_world_size() -> int:
    """Return how many of the processes share this machine, as far as torchrun says; otherwise their number."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", rank_and_size()[1]))


def shut_down(status: int) -> None:
    """Leave the other processes at the end; after a failure at once, because they may be waiting for this one.

    A process that ends without this is aborted now and then.
    """
    if not _is_started():
        return
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    import torch.distributed as dist

    dist.destroy_process_group()


def prefix_of_errors(error: BaseException) -> str | None:
    """Return what to print before an error's message: the rank, where there are several; None to print nothing.

    Before the processes know each other all raise the same errors, and rank zero prints them. The loss of another
    process is printed by rank zero; the lost process has printed why, if it could.
    """
    if not _is_started():
        return "" if is_rank_zero() or not is_launched_externally() else None
    rank, size = rank_and_size()
    if is_lost_peer(error) and rank:
        return None
    return f"[rank {rank}] " if size > 1 else ""


def is_lost_peer(error: BaseException) -> bool:
    """Return whether `error` says that another process is gone."""
    return _is_started() and isinstance(error, RuntimeError) and any(name in str(error) for name in ("gloo", "NCCL"))


def die_with_rank_zero() -> None:
    """Let the system end this process when Lightning's rank zero ends, for whatever reason (Linux only)."""
    started_by_lightning = "LOCAL_RANK" in os.environ and not is_launched_externally()
    if started_by_lightning and not is_rank_zero():
        die_with_parent()


def die_with_parent() -> None:
    """Let the system end this process when the one that started it ends, for whatever reason (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # Lightning would wait for a SIGTERM


def _is_started() -> bool:
    if "torch" not in sys.modules:
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()

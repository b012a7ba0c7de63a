"""Several processes that work as one, as Lightning, torchrun or SLURM started them: who is who, who says what."""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from lightning import Trainer

Value = TypeVar("Value")

PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>
ANSWER_S = 5  # how long the other processes are waited for before an error is told anyway


def is_first() -> bool:
    """Whether this process writes and speaks for all; so does one that works alone."""
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    if "LOCAL_RANK" in os.environ:  # before SLURM's, which processes that Lightning starts in its job inherit
        return os.environ["LOCAL_RANK"] == os.environ.get("NODE_RANK", "0") == "0"
    return os.environ.get("SLURM_PROCID", "0") == "0"


def is_started_from_outside() -> bool:
    """Whether torchrun or SLURM starts a process for each rank; else Lightning starts the others from the first."""
    several_tasks = os.environ.get("SLURM_NTASKS", "1") != "1"
    return "TORCHELASTIC_RUN_ID" in os.environ or ("SLURM_PROCID" in os.environ and several_tasks)


def start_ranks(trainer: "Trainer") -> None:
    """Start the other processes that `trainer.devices` asks for, if nobody has, and wait for all to be there."""
    if trainer.strategy.launcher is not None:
        trainer.strategy.launcher.launch(trainer.strategy.setup_environment, trainer=trainer)


def rank_and_size() -> tuple[int, int]:
    """Return this process's rank and their number; 0 and 1 where it works alone, or before they are started."""
    if not _is_started():
        return 0, 1
    import torch.distributed as dist

    return dist.get_rank(), dist.get_world_size()


def of_rank(items: Sequence[Value], rank: int | None = None) -> Sequence[Value]:
    """Return the items that belong to this process, or to process `rank`: every `size`-th one."""
    this_rank, size = rank_and_size()
    return items[this_rank if rank is None else rank :: size]


def gather(value: Value) -> list[Value]:
    """Return every rank's `value`, in the order of their ranks."""
    _, size = rank_and_size()
    if size == 1:
        return [value]
    import torch.distributed as dist

    values: list = [None] * size
    dist.all_gather_object(values, value)
    return values


def num_here() -> int:
    """Return how many of the processes share this machine, as far as torchrun says; else their number."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", rank_and_size()[1]))


def shut_down(status: int) -> None:
    """Part from the other processes at the end; after a failure at once, for they may wait for what never comes.

    A process that ends without is aborted now and then.
    """
    if not _is_started():
        return
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    import torch.distributed as dist

    dist.destroy_process_group()


def reports_the_error() -> bool:
    """Whether this process is the one that prints why all of them stop: the first that asks."""
    if not _is_started():
        return is_first() or not is_started_from_outside()
    import torch.distributed as dist

    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(host, port, timeout=timedelta(seconds=ANSWER_S), wait_for_workers=False)
        return store.add("vidclf/errors", 1) == 1
    except (KeyError, RuntimeError, OSError):  # the first process, whose store it is, has stopped, and told why
        return is_first()


def is_loss_of_another(error: BaseException) -> bool:
    """Whether `error` says that another process is gone; it was killed, or it has told why itself."""
    return _is_started() and isinstance(error, RuntimeError) and any(name in str(error) for name in ("gloo", "NCCL"))


def end_with_the_first() -> None:
    """Let the system end this process when Lightning's first one ends, however that does: Linux only."""
    started_by_lightning = "LOCAL_RANK" in os.environ and not is_started_from_outside()
    if started_by_lightning and not is_first() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # Lightning would wait for a SIGTERM


def _is_started() -> bool:
    if "torch" not in sys.modules:
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()

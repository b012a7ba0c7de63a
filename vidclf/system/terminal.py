"""What a person sees: progress and notices on stderr, results on stdout; plain where there is no terminal."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from vidclf.system.ranks import is_rank_zero
from vidclf.system.text import sanitize

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

Item = TypeVar("Item")


def track(
    items: Iterable[Item],
    total: int,
    doing: str,
    unit: str,
    part: str = "",
    count_parts: Callable[[Item], int] = lambda item: 0,
) -> Iterator[Item]:
    """Yield `items`, showing `doing` with a bar, `unit`s per second (and their `part`s') and the time left.

    Without a terminal there is a line before, and one after where rates of a `part` are asked for. Nothing is shown
    for a total of 0.
    """
    if total == 0 or not is_rank_zero():
        yield from items
        return
    started, num_items, num_parts = time.perf_counter(), 0, 0

    def rate() -> str:
        elapsed_s = max(time.perf_counter() - started, 1e-9)
        parts = f", {num_parts / elapsed_s:.1f} {part}/s" if part else ""
        return f"{num_items / elapsed_s:.1f} {unit}/s{parts}"

    if not sys.stderr.isatty():
        print(f"{doing} {total} {unit}", file=sys.stderr)
        for item in items:
            num_items, num_parts = num_items + 1, num_parts + count_parts(item)
            yield item
        if part:
            print(f"{num_items} {unit} in {time.perf_counter() - started:.1f} s: {rate()}", file=sys.stderr)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(doing, total=total, rate="")
        for item in items:
            num_items, num_parts = num_items + 1, num_parts + count_parts(item)
            yield item
            progress.update(task, advance=1, rate=rate())


def say(sentence: str) -> None:
    """Print a notice on stderr, where it is never taken for a result; the first process says it for all."""
    if is_rank_zero():
        print(sanitize(sentence, keep="\n\t"), file=sys.stderr)


def table(title: str, rows: Mapping[str, object], last: str = "") -> None:
    """Print names and values on stdout, a table on a terminal, `name value` lines elsewhere, and a last line.

    Only the first process prints.
    """
    if not is_rank_zero():
        return
    shown = {name: f"{value:.4f}" if isinstance(value, float) else str(value) for name, value in rows.items()}
    title, last = sanitize(title, keep="\n\t"), sanitize(last, keep="\n\t")
    if not sys.stdout.isatty():
        print(title, *(f"{name} {value}" for name, value in shown.items()), *filter(None, [last]), sep="\n", flush=True)
        return
    from rich.console import Console
    from rich.table import Table

    grid = Table(show_header=False)
    for name, value in shown.items():
        grid.add_row(name, value)
    print(title)
    Console().print(grid)
    if last:
        print(last)


def progress_bar() -> "list[Callback]":
    """Return Lightning's bar with rates and time left, on stderr; none where that is no terminal."""
    if not (sys.stderr.isatty() and is_rank_zero()):
        return []
    from lightning.pytorch.callbacks import RichProgressBar

    # Drawn at every batch, the bar takes longer than a batch of stored features.
    return [RichProgressBar(refresh_rate=10, console_kwargs={"stderr": True})]


def quiet_lightning() -> None:
    """Silence what Lightning says of itself, not what it says of the run."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 on torch 2.14: its own use of torch's pytree.
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
    # The frozen backbone is in eval mode on purpose.
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training")
    # Whose the views are stays on the CPU, whichever source they come from.
    warnings.filterwarnings("ignore", "You have overridden `transfer_batch_to_device` in `LightningModule`")
    # Training that ends before it is validated: train says so.
    warnings.filterwarnings("ignore", ".*could not find the monitored key")
    # A resumed run may have other callbacks than before: what is set now holds.
    warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint")
    # A resumed run begins with the checkpoints that it goes on from.
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")

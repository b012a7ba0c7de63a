"""Show progress and notices on stderr, results on stdout; plain where there is no terminal."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from vidclf.system.ranks import is_rank_zero
from vidclf.system.text import redact, sanitize

Item = TypeVar("Item")

INTERVAL_S = 60  # between two lines on work that takes long


def shows_bars() -> bool:
    """Return whether progress is drawn, on a terminal or in a notebook, and not written in lines."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def track(
    items: Iterable[Item],
    total: int,
    doing: str,
    unit: str,
    part: str = "",
    count_parts: Callable[[Item], int] = lambda item: 0,
) -> Iterator[Item]:
    """Yield `items`; show a bar on a terminal, elsewhere a line before and one a minute. Show nothing for a total of 0.

    With `part`, the name of what an item consists of, a line after says the rates of items and parts.
    """
    if total == 0 or not is_rank_zero():
        yield from items
        return
    started, num_items, num_parts = time.perf_counter(), 0, 0
    if shows_bars():
        items = _draw_bar(items, total, f"{doing} {total} {unit}")
    else:
        items = _write_lines(items, total, f"{doing} {total} {unit}")
    for item in items:
        num_items, num_parts = num_items + 1, num_parts + count_parts(item)
        yield item
    if part:
        elapsed_s = max(time.perf_counter() - started, 1e-9)
        rates = f"{num_items / elapsed_s:.1f} {unit}/s, {num_parts / elapsed_s:.1f} {part}/s"
        say(f"{num_items} {unit} in {elapsed_s:.1f} s: {rates}")


def _draw_bar(items: Iterable[Item], total: int, title: str) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import Progress

    # Results that are printed meanwhile stay on stdout, which may be a file.
    with Progress(console=Console(stderr=True), redirect_stdout=False, redirect_stderr=True) as progress:
        yield from progress.track(items, total, description=title)


def _write_lines(items: Iterable[Item], total: int, title: str) -> Iterator[Item]:
    say(title)
    started = said = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        if number < total and (now := time.monotonic()) - said >= INTERVAL_S:
            said, left_s = now, (now - started) / number * (total - number)
            say(f"{title}: {number} done, about {max(1, round(left_s / 60))} min left")


def say(sentence: str) -> None:
    """Print a notice on stderr, without secrets; only the first process prints."""
    if is_rank_zero():
        print(sanitize(redact(sentence), keep="\n\t"), file=sys.stderr)


def table(title: str, rows: Mapping[str, object], last: str = "") -> None:
    """Print names and values on stdout: a table on a terminal, `name value` lines elsewhere; from rank zero only."""
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


def quiet_lightning() -> None:
    """Silence what Lightning says about itself, and warnings about what is done here on purpose."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning 2.6 on torch 2.14 uses a deprecated part of torch's pytree.
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
    for message in (
        ".*in eval mode at the start of training",  # the frozen backbone
        "You have overridden `transfer_batch_to_device` in `LightningModule`",  # video and view stay on the CPU
        ".*could not find the monitored key",  # training ended before it was validated: train says so
        # Callbacks of a resumed run may have changed; the current ones hold.
        "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
        "Checkpoint directory .* exists and is not empty",  # of a resumed run
    ):
        warnings.filterwarnings("ignore", message)

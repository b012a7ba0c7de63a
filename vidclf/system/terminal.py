"""Show progress and notices on stderr, results on stdout; plain where there is no terminal."""

import logging
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from vidclf.system.ranks import is_rank_zero
from vidclf.system.text import redact, sanitize

Item = TypeVar("Item")

FIRST_S, INTERVAL_S = 10, 60  # until the first line on work that takes long, and between two lines
RECENT = 50  # items whose time says how long the rest will take: the first may be quick, or slow to start


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

    Both say how long the rest will take. With `part`, the name of what an item consists of, a line after says the
    rates of items and parts.
    """
    if total == 0 or not is_rank_zero():
        yield from items
        return
    started, num_items, num_parts = time.perf_counter(), 0, 0
    title = f"{doing} {total:,} {unit}"
    items = _draw_bar(items, total, title) if shows_bars() else _write_lines(items, total, title)
    for item in items:
        num_items, num_parts = num_items + 1, num_parts + count_parts(item)
        yield item
    if part:
        elapsed_s = max(time.perf_counter() - started, 1e-9)
        rates = f"{num_items / elapsed_s:.1f} {unit}/s, {num_parts / elapsed_s:.1f} {part}/s"
        say(f"{num_items} {unit} in {elapsed_s:.1f} s: {rates}")


def _draw_bar(items: Iterable[Item], total: int, title: str) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    name, left = (TextColumn(f"{{task.{text}}}", markup=False) for text in ("description", "fields[left]"))
    columns = name, BarColumn(20), MofNCompleteColumn(), left
    # Results that are printed meanwhile stay on stdout, which may be a file.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False, redirect_stderr=True) as progress:
        bar = progress.add_task(sanitize(title), total=total, left="")
        for item, left_s in _forecast(items, total):
            yield item
            progress.update(bar, advance=1, left=f"about {duration(left_s)} left" if left_s else "")


def _write_lines(items: Iterable[Item], total: int, title: str) -> Iterator[Item]:
    say(title)
    due = time.monotonic() + FIRST_S
    for number, (item, left_s) in enumerate(_forecast(items, total), start=1):
        yield item
        if left_s and (now := time.monotonic()) >= due:
            due = now + INTERVAL_S
            say(f"{title}: {number:,} done, about {duration(left_s)} left")


def _forecast(items: Iterable[Item], total: int) -> Iterator[tuple[Item, float | None]]:
    """Yield each item with the seconds that the rest will take, as long as the last ones took; None: not yet known."""
    ends: deque[float] = deque([time.monotonic()], maxlen=RECENT)
    for number, item in enumerate(items, start=1):
        ends.append(time.monotonic())
        mean_s = (ends[-1] - ends[0]) / (len(ends) - 1)
        yield item, mean_s * (total - number) if ends[-1] > ends[0] else None


def duration(seconds: float) -> str:
    """Return a duration in words: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


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

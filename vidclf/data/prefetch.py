"""Run work ahead in threads, so that decoding overlaps with the backbone."""

import atexit
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL_S = 0.1  # how often a thread that waits for room checks whether to stop


@dataclass(frozen=True)
class _End:
    """Marks the end of an item's results, with an error or without."""

    error: BaseException | None = None


@dataclass(eq=False)
class _Task(Generic[Item]):
    """An item: `room` counts how many more results may wait in `results`."""

    item: Item
    room: threading.Semaphore
    results: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)


def run_ahead(
    work: Callable[[Item], Iterable[Result]], items: Iterable[Item], num_threads: int, depth: int = 4
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, result) for every result of `work(item)`, item after item, in order.

    Up to `num_threads` items are in work and the same number wait finished, each at most `depth` results ahead (plus
    the result in each thread), so memory is bounded. An error that `work` raises is raised when its item's turn comes;
    an error that it yields is a result. Closing the iterator ends the threads.
    """
    stop = threading.Event()
    tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
    waiting: deque[_Task[Item]] = deque()
    todo = iter(items)
    threads = [
        threading.Thread(target=_serve, args=(work, tasks, stop), name=f"decode-{number}", daemon=True)
        for number in range(num_threads)
    ]

    def start(count: int) -> None:
        for item in itertools.islice(todo, count):
            waiting.append(_Task(item, threading.Semaphore(depth)))
            tasks.put(waiting[-1])

    def end() -> None:
        stop.set()
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            thread.join()

    for thread in threads:
        thread.start()
    # For iterators that are never closed: the interpreter would wait forever for threads that are not daemons, and
    # abort when a daemon returns from torch's C++.
    atexit.register(end)
    try:
        start(2 * num_threads)
        while waiting:
            task = waiting.popleft()
            yield from _in_turn(task)
            start(1)
    finally:
        atexit.unregister(end)
        end()


def _in_turn(task: _Task[Item]) -> Iterator[tuple[Item, Result]]:
    while not isinstance(result := task.results.get(), _End):
        task.room.release()
        yield task.item, result
    if result.error is not None:
        raise result.error


def _serve(work: Callable, tasks: queue.SimpleQueue, stop: threading.Event) -> None:
    while not stop.is_set() and (task := tasks.get()) is not None:
        try:
            for result in work(task.item):
                while not stop.is_set() and not task.room.acquire(timeout=POLL_S):
                    pass
                if stop.is_set():
                    return
                task.results.put(result)
            task.results.put(_End())
        except BaseException as error:  # raised by the reader
            task.results.put(_End(error))

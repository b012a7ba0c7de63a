"""Run work ahead in threads, so that decoding overlaps with the backbone."""

import atexit
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL_S = 0.1  # how often a thread that waits for room checks whether to stop


def run_ahead(
    work: Callable[[Item], Iterable[Result]], items: Iterable[Item], num_threads: int, depth: int = 4
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, result) for every result of `work(item)`, item after item, in order.

    Up to `num_threads` items are in work and the same number wait finished, each at most `depth` results ahead (plus
    the result in each thread), so memory is bounded. An error that `work` raises is raised when its item's turn comes;
    an error that it yields is a result. Closing the iterator ends the threads.
    """
    stop, todo = threading.Event(), iter(items)
    tasks: SimpleQueue = SimpleQueue()  # (item, room for results, results), or None: no more
    waiting: deque = deque()  # the tasks whose results were not yielded yet

    def start(count: int) -> None:
        for item in itertools.islice(todo, count):
            waiting.append((item, threading.Semaphore(depth), SimpleQueue()))
            tasks.put(waiting[-1])

    def serve() -> None:
        while not stop.is_set() and (task := tasks.get()) is not None:
            item, room, results = task
            try:
                for result in work(item):
                    while not stop.is_set() and not room.acquire(timeout=POLL_S):
                        pass
                    if stop.is_set():
                        return
                    results.put((result,))
            except BaseException as error:  # raised again by the reader
                results.put(error)
            else:
                results.put(None)

    def end() -> None:
        stop.set()
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            thread.join()

    threads = [threading.Thread(target=serve, name=f"decode-{n}", daemon=True) for n in range(num_threads)]
    for thread in threads:
        thread.start()
    # For iterators that are never closed: the interpreter would wait forever for threads that are not daemons, and
    # abort when a daemon returns from torch's C++.
    atexit.register(end)
    try:
        start(2 * num_threads)
        while waiting:
            item, room, results = waiting.popleft()
            while isinstance(result := results.get(), tuple):
                room.release()
                yield item, result[0]
            if result is not None:
                raise result
            start(1)
    finally:
        atexit.unregister(end)
        end()

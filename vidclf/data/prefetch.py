"""Threads that work ahead of whoever reads: decoding overlaps with the backbone."""

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_END = object()


def run_ahead(
    work: Callable[[Item], Iterable[Result]], items: Iterable[Item], num_threads: int, depth: int = 4
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, result) for every result of `work(item)`, item after item, in order.

    `num_threads` items are worked on at once and as many wait finished, each at most `depth` results ahead, so
    memory stays bounded however many items there are and however many results an item has. An error of `work` is
    raised in the item's turn.
    """
    stop = threading.Event()
    waiting: deque[tuple[Item, queue.Queue]] = deque()

    def start(pool: ThreadPoolExecutor, item: Item) -> None:
        results: queue.Queue = queue.Queue(depth)
        waiting.append((item, results))
        pool.submit(_fill, work, item, results, stop)

    todo = iter(items)
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        try:
            for item in itertools.islice(todo, 2 * num_threads):
                start(pool, item)
            while waiting:
                item, results = waiting.popleft()
                while (result := results.get()) is not _END:
                    if isinstance(result, BaseException):
                        raise result
                    yield item, result
                for following in itertools.islice(todo, 1):
                    start(pool, following)
        finally:
            stop.set()


def _fill(work: Callable, item: object, results: queue.Queue, stop: threading.Event) -> None:
    def put(result: object) -> bool:
        while not stop.is_set():
            try:
                results.put(result, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    try:
        for result in work(item):
            if not put(result):
                return
    except BaseException as error:  # handed to the reader, which raises it
        put(error)
    put(_END)

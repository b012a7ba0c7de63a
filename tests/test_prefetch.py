"""Results that are computed ahead come in order, are bounded in number, and leave no thread behind."""

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from vidclf.data.prefetch import run_ahead


@pytest.fixture
def num_threads_more() -> Callable[[], int]:
    """Return a function that counts the threads started since the test began."""
    before = set(threading.enumerate())
    return lambda: len(set(threading.enumerate()) - before)


def test_results_come_in_the_order_of_the_items():
    def work(item: int) -> Iterator[int]:
        time.sleep(0.02 * (5 - item))  # the later, the faster
        yield from (10 * item, 10 * item + 1)

    results = list(run_ahead(work, range(5), num_threads=3))
    assert results == [(item, 10 * item + part) for item in range(5) for part in (0, 1)]


def test_items_are_worked_on_at_the_same_time():
    both = threading.Barrier(2, timeout=10)  # passes when two threads are there

    def work(item: int) -> Iterator[int]:
        yield both.wait()

    assert len(list(run_ahead(work, range(4), num_threads=2))) == 4


def test_an_error_is_raised_when_its_items_turn_comes(num_threads_more: Callable[[], int]):
    def work(item: int) -> Iterator[int]:
        yield item
        if item == 2:
            raise ValueError("item 2")
        time.sleep(0.05)

    seen = []
    with pytest.raises(ValueError, match="item 2"):
        seen += (result for _, result in run_ahead(work, range(9), num_threads=3))
    assert seen == [0, 1, 2]
    assert num_threads_more() == 0


def test_an_error_that_is_yielded_is_a_result():
    def work(item: int) -> Iterator[ValueError]:
        yield ValueError(item)

    assert [result.args for _, result in run_ahead(work, range(3), 2)] == [(0,), (1,), (2,)]


def test_an_error_of_the_items_themselves_ends_the_threads(num_threads_more: Callable[[], int]):
    def items() -> Iterator[int]:
        yield from range(5)
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        list(run_ahead(lambda item: [item], items(), 2))
    assert num_threads_more() == 0


@pytest.mark.parametrize("depth", [1, 3])
def test_the_number_of_waiting_results_is_bounded(depth: int):
    made = itertools.count()
    items_started = set()

    def work(item: int) -> Iterator[int]:
        items_started.add(item)
        for _ in range(20):
            yield next(made)

    results = run_ahead(work, itertools.count(), num_threads=2, depth=depth)  # items without end
    for _ in range(30):
        next(results)
    time.sleep(0.2)  # for the threads to run as far ahead as they may
    assert max(items_started) <= 1 + 2 * 2  # 30 results read: one item is done, the second is read
    waiting = next(made) - 30
    assert depth <= waiting <= 2 * 2 * depth + 2
    results.close()


def test_a_finished_item_does_not_hold_its_thread_up():
    done = threading.Event()

    def work(item: int) -> Iterator[int]:
        yield item
        if item == 1:
            done.set()

    results = run_ahead(work, range(5), num_threads=1, depth=1)
    assert next(results) == (0, 0)
    assert done.wait(10)
    assert list(results) == [(item, item) for item in range(1, 5)]


def test_closing_early_ends_the_threads(num_threads_more: Callable[[], int]):
    results = run_ahead(lambda item: itertools.repeat(item), range(100), num_threads=3)
    next(results)
    assert num_threads_more() == 3
    results.close()
    assert num_threads_more() == 0


def test_closing_early_starts_nothing_more():
    started = []

    def work(item: int) -> Iterator[int]:
        started.append(item)
        time.sleep(0.1)
        yield item

    results = run_ahead(work, range(100), num_threads=1)
    next(results)
    results.close()
    assert len(started) <= 2


def test_an_iterator_left_open_lets_the_program_end():
    program = (
        "import itertools, torch\n"
        "from vidclf.data.prefetch import run_ahead\n"
        "def work(item):\n"
        "    yield item\n"
        "    for _ in range(20 if item else 0):\n"
        "        torch.rand(10**6).sort()\n"
        "    yield from itertools.repeat(item)\n"
        "results = run_ahead(work, range(100), 4)\n"
        "print(next(results))"
    )
    ended = subprocess.run([sys.executable, "-c", program], timeout=30, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "(0, 0)\n", "")

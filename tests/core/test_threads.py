"""Pools that work after the main thread has ended, and kept values that wait for nobody."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from retclip.core.threads import Threads, cached_property

_AFTER_THE_END = """
import threading
from retclip.core.threads import Threads

def serve():
    threading.main_thread().join()
    with Threads(2) as threads:
        print(sum(threads.map(abs, (-1, -2))), flush=True)
        print(type(threads.submit(int, "x").exception()).__name__, flush=True)

threading.Thread(target=serve).start()
"""


def test_a_pool_works_after_the_main_thread_has_ended() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AFTER_THE_END], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["3", "ValueError"], done.stderr


def test_a_pool_is_a_pool() -> None:
    with Threads(2) as threads:
        names = set(threads.map(lambda _: threading.current_thread().name, range(8)))
        with pytest.raises(ZeroDivisionError):
            threads.submit(lambda: 1 / 0).result()
    assert threading.current_thread().name not in names


class Slow:
    def __init__(self, leave: threading.Event | None = None) -> None:
        self.entered, self.leave, self.computed = threading.Event(), leave, 0

    @cached_property
    def value(self) -> list[int]:
        """What is kept."""
        self.computed += 1
        self.entered.set()
        if self.leave is not None:
            self.leave.wait(60)
        return [self.computed]


def test_a_value_is_kept() -> None:
    slow = Slow()
    assert slow.value is slow.value
    assert slow.computed == 1
    assert Slow.value.__doc__ == "What is kept."


def test_nobody_waits_for_the_value_of_another_object() -> None:
    leave = threading.Event()
    busy, free = Slow(leave), Slow()
    threads = [threading.Thread(target=lambda slow=slow: slow.value, daemon=True) for slow in (busy, free)]
    threads[0].start()
    assert busy.entered.wait(60)
    threads[1].start()
    threads[1].join(10)
    waited = threads[1].is_alive()
    leave.set()
    assert not waited


class Together:
    barrier = threading.Barrier(4)

    @cached_property
    def value(self) -> list[int]:
        self.barrier.wait(60)  # four threads compute before one has a value
        return []


def test_all_threads_get_the_same_object() -> None:
    together = Together()
    with Threads(4) as threads:
        found = list(threads.map(lambda _: together.value, range(4)))
    assert len({id(value) for value in found}) == 1

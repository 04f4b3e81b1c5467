"""Work ahead: a thread prepares the next items while the caller uses the last one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

from retclip.core.errors import require

T = TypeVar("T")


class _End:
    """Last in the queue: how the thread ended."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetched(items: Iterable[T], ahead: int) -> Iterator[T]:
    """The same items in the same order, produced by a thread at most `ahead` items before they are asked for.

    An error of the source is raised where its item would have come. A caller that stops early stops the source at its
    next item. Decoding pictures leaves Python's lock, so it overlaps with a network even on one core's worth of Python.
    """
    require(ahead > 0, "ahead", "> 0", ahead)
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(item: T | _End) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if stopped.is_set():
                    return
                put(item)
        except BaseException as caught:
            error = caught
        put(_End(error))

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join()

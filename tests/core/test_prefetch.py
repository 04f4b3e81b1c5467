"""Work ahead of the caller."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.prefetch import prefetched


@given(st.lists(st.integers(), max_size=20), st.integers(1, 5))
def test_the_items_and_their_order_stay(items: list[int], ahead: int) -> None:
    assert list(prefetched(items, ahead)) == items


def test_an_error_comes_where_its_item_would_have_come() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("gone")

    got = []
    with pytest.raises(OSError, match="gone"):
        got.extend(prefetched(source(), 4))
    stream = prefetched(source(), 4)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(stream)


def test_no_more_than_the_asked_items_are_prepared() -> None:
    produced = []
    enough = threading.Event()

    def source() -> Iterator[int]:
        for number in range(100):
            produced.append(number)
            if number >= 3:
                enough.set()
            yield number

    stream = prefetched(source(), 2)
    assert next(stream) == 0
    assert enough.wait(5), "two wait in the queue and one in the thread's hand"
    stream.close()
    assert len(produced) <= 5, "0 taken, 1 and 2 queued, 3 in hand, at most one more while stopping"
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())


def test_looking_ahead_by_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="ahead"):
        next(prefetched([1], 0))

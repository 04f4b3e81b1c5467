"""Keys stay in memory within one budget, whatever number of databases is open."""

from __future__ import annotations

import gc
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retclip.shards.search import keys, machine, planner
from retclip.shards.search.keys import KeyBlock, KeyBudget, KeyCache


def block(number: int) -> KeyBlock:
    return KeyBlock(number, torch.zeros(1, 1), 0.0, np.zeros(1, np.int64))


def reader(read: list[int], number: int) -> Callable[[bool], list[KeyBlock]]:
    def blocks(_passing: bool) -> list[KeyBlock]:
        read.append(number)
        return [block(number)]

    return blocks


def test_what_was_asked_longest_ago_gives_way_in_whichever_cache_it_is() -> None:
    budget, read = KeyBudget(20), []
    mine, other = KeyCache(budget), KeyCache(budget)
    for cache, number in ((mine, 0), (other, 1), (mine, 0), (other, 2), (mine, 0), (other, 1)):
        [found] = cache.blocks(("vocabulary", number), 10, reader(read, number))
        assert found.begin == number
    assert read == [0, 1, 2, 1]
    assert budget.used == 20


def test_only_blocks_that_are_not_kept_may_share_memory() -> None:
    told: list[bool] = []

    def blocks(passing: bool) -> list[KeyBlock]:
        told.append(passing)
        return [block(0)]

    cache = KeyCache(KeyBudget(20))
    for number, size in ((0, 20), (1, 21), (2, 20)):
        cache.blocks(("vocabulary", number), size, blocks)
    assert told == [False, True, False]


def test_caches_do_not_take_one_another_s_blocks_for_their_own() -> None:
    budget = KeyBudget(100)
    [[mine], [other]] = (KeyCache(budget).blocks(("same",), 1, reader([], number)) for number in (1, 2))
    assert (mine.begin, other.begin) == (1, 2)


def test_a_cache_that_is_gone_gives_its_memory_back_and_only_its_own() -> None:
    budget = KeyBudget(100)
    first, second = KeyCache(budget), KeyCache(budget)
    first.blocks(("a",), 10, reader([], 0))
    second.blocks(("b",), 7, reader([], 0))
    del first
    gc.collect()
    assert budget.used == 7


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 30))), st.integers(0, 40))
def test_the_budget_is_never_exceeded(asked: list[tuple[int, int, int]], limit: int) -> None:
    budget = KeyBudget(limit)
    caches = [KeyCache(budget) for _ in range(3)]
    for cache, number, size in asked:
        [found] = caches[cache].blocks((number, size), size, reader([], number))
        assert found.begin == number
        assert budget.used <= limit


@contextmanager
def reading(cache: KeyCache, size: int) -> Iterator[None]:
    """While another thread reads blocks for a cache."""
    entered, leave = threading.Event(), threading.Event()

    def slow(_passing: bool) -> list[KeyBlock]:
        entered.set()
        leave.wait(60)
        return [block(0)]

    holder = threading.Thread(target=lambda: cache.blocks(("slow",), size, slow))
    holder.start()
    assert entered.wait(60)
    try:
        yield
    finally:
        leave.set()
        holder.join()


def test_a_database_does_not_wait_for_another_that_is_read() -> None:
    budget = KeyBudget(10)
    mine, other = KeyCache(budget), KeyCache(budget)
    with reading(other, 6):
        assert len(list(mine.blocks(("a",), 4, reader([], 1)))) == 1
        assert budget.used == 10


def test_what_is_being_read_keeps_its_place() -> None:
    budget, read = KeyBudget(10), []
    mine, other = KeyCache(budget), KeyCache(budget)
    with reading(other, 6):
        for _ in range(2):
            list(mine.blocks(("a",), 5, reader(read, 1)))
    assert read == [1, 1], "there was no room to keep it"
    assert budget.used == 6


def test_what_could_not_be_read_takes_no_room() -> None:
    def broken(_passing: bool) -> list[KeyBlock]:
        raise OSError("the disk is gone")

    budget = KeyBudget(10)
    cache = KeyCache(budget)
    with pytest.raises(OSError, match="the disk is gone"):
        cache.blocks(("a",), 10, broken)
    assert budget.used == 0
    [found] = cache.blocks(("a",), 10, reader([], 3))
    assert found.begin == 3


def ask(cache: KeyCache) -> None:
    cache.blocks(("a",), 10, reader([], 0))
    assert cache.blocks(("a",), 10, reader([], 1))[0].begin == 0  # type: ignore[index]  # kept: all room is free again


def test_a_child_of_fork_does_not_wait_for_a_thread_of_its_parent() -> None:
    cache = KeyCache(KeyBudget(10))
    with reading(cache, 6):
        child = multiprocessing.get_context("fork").Process(target=ask, args=(cache,))
        child.start()
        child.join(60)
    assert child.exitcode == 0


def test_open_databases_share_the_budget_of_the_process(make, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    shared = KeyBudget(1 << 20)
    monkeypatch.setattr(keys, "shared_budget", {"cpu": shared}.__getitem__)
    databases, used = [], []
    for name in ("one", "two"):
        segments, vectors = make.rows(60)
        databases.append(make.build(tmp_path / f"{name}.retdb", segments, vectors))
        databases[-1].search(vectors[:4], 3)
        used.append(shared.used)
    assert used[1] == 2 * used[0] > 0
    del databases
    gc.collect()
    assert shared.used == 0


@pytest.mark.parametrize(("content", "share"), [("4000", 1000), ("max\n", None), (None, None)])
def test_a_container_s_limit_counts(
    content: str | None, share: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "memory.max"
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(machine, "CONTAINER_LIMIT", file)
    limit = machine.cache_limit("cpu")
    assert limit == share if share else limit > 1 << 28


def test_keys_may_take_a_share_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "machine", lambda: planner.Machine(1, cuda_bytes=1000))
    assert machine.cache_limit("cuda") == 1000 * planner.GPU_SHARE

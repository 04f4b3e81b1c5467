"""Keys stay in memory within one budget, whatever number of databases is open."""

from __future__ import annotations

import gc
import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retclip.shards.search import keys, machine
from retclip.shards.search.keys import KeyBlock, KeyBudget, KeyCache


def block(number: int) -> KeyBlock:
    return KeyBlock(number, torch.zeros(1, 1), 0.0, np.zeros(1, np.int64))


def reader(read: list[int], number: int) -> Callable[[], list[KeyBlock]]:
    def blocks() -> list[KeyBlock]:
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


def _ask(budget: KeyBudget) -> None:
    KeyCache(budget).blocks(("a",), 1, reader([], 0))


def test_a_child_of_fork_does_not_wait_for_a_thread_of_its_parent() -> None:
    budget, entered, leave = KeyBudget(10), threading.Event(), threading.Event()

    def slow() -> list[KeyBlock]:
        entered.set()
        leave.wait(60)
        return [block(0)]

    holder = threading.Thread(target=lambda: KeyCache(budget).blocks(("slow",), 1, slow))
    holder.start()
    assert entered.wait(60)
    child = multiprocessing.get_context("fork").Process(target=_ask, args=(budget,))
    child.start()
    child.join(60)
    leave.set()
    holder.join()
    assert child.exitcode == 0


def test_open_databases_share_the_budget_of_the_process(make, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    shared = KeyBudget(1 << 20)
    monkeypatch.setattr(keys, "shared_budget", {"cpu": shared}.__getitem__)
    databases = []
    for name in ("one", "two"):
        segments, vectors = make.rows(60)
        databases.append(make.build(tmp_path / f"{name}.retdb", segments, vectors))
        databases[-1].search(vectors[:4], 3)
    row_bytes = shared.used // 120
    assert shared.used == 120 * row_bytes > 0
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

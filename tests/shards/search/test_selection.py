"""Entries that selection must not lose."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.shards.search.kernels import PAD
from retclip.shards.search.selection import Wanted, select


def padded(scores):
    return torch.nn.functional.pad(
        torch.from_numpy(scores), (0, -scores.shape[1] % PAD), value=-torch.inf
    ).T.contiguous()


@settings(max_examples=60, deadline=None)
@given(
    columns=st.integers(1, 700),
    classes=st.integers(1, 30),
    k=st.integers(1, 12),
    cap=st.none() | st.integers(1, 4),
    levels=st.sampled_from([3, 1000]),
    seed=st.integers(0, 100),
)
def test_no_entry_of_the_answer_is_lost(columns, classes, k, cap, levels, seed):
    rng = np.random.default_rng(seed)
    ordinal = np.sort(rng.integers(0, classes, columns))
    scores = (rng.integers(-levels, levels, (3, columns)) / levels).astype(np.float32)
    query, column, score = select(padded(scores), ordinal, np.full(3, -np.inf, np.float32), Wanted(k, cap, 0.125))
    got = set(zip(query.tolist(), column.tolist(), strict=True))
    assert len(got) == len(query)
    assert np.array_equal(scores[query, column], score)
    for row in range(3):
        taken, counts = [], {}
        for place in np.argsort(-scores[row], kind="stable").tolist():
            counts[ordinal[place]] = counts.get(ordinal[place], 0) + 1
            if (cap is None or counts[ordinal[place]] <= cap) and len(taken) < k:
                taken.append(place)
        worst = {c: min(scores[row, p] for p in taken if ordinal[p] == c) for c in {ordinal[p] for p in taken}}
        last = scores[row, taken[-1]] if len(taken) == k else -np.inf
        for place in range(columns):
            full = cap is not None and sum(ordinal[p] == ordinal[place] for p in taken) == cap
            floor = max(last, worst[ordinal[place]]) if full else last
            if scores[row, place] >= floor - 0.125:
                assert (row, place) in got


@pytest.mark.parametrize("cap", [None, 2])
def test_few_entries_of_many_are_looked_at(cap):
    """The floor must do its work: an answer of 8 does not take thousands of entries."""
    scores = np.random.default_rng(0).uniform(-1, 1, (4, 6400)).astype(np.float32)
    ordinal = np.arange(6400) // 100
    query, _, _ = select(padded(scores), ordinal, np.full(4, -np.inf, np.float32), Wanted(8, cap, 0.0))
    assert 4 * 8 <= len(query) < 4 * 80


def test_a_known_floor_is_kept():
    scores = np.linspace(-1, 1, 128, dtype=np.float32)[None]
    query, column, _ = select(
        padded(scores), np.zeros(128, np.int64), np.array([2.0], np.float32), Wanted(4, None, 0.5)
    )
    assert len(query) == len(column) == 0

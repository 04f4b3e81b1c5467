"""Distances found by quick sums are, bit by bit, those that are defined by slow ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.shards.moments import Moments
from retclip.shards.search.measure import distances, exact_distances
from retclip.shards.transforms import KINDS, NORM_FLOOR, KeyTransform, fit, normalised


def transform_of(kind: str, vectors: np.ndarray) -> KeyTransform:
    return fit(kind, Moments.of(vectors))


def drawn(rng: np.random.Generator, rows: int, dim: int, spread: float) -> np.ndarray:
    """Unit vectors about one direction: the smaller the spread, the more of a vector is what all share."""
    values = rng.standard_normal(dim) + spread * rng.standard_normal((rows, dim))
    return normalised(values).astype(np.float16)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(KINDS),
    st.integers(2, 40),
    st.sampled_from((1, 3, 8, 33, 768)),
    st.sampled_from((1e-3, 0.1, 10.0)),
)
def test_quick_distances_are_the_exact_ones(seed: int, kind: str, rows: int, dim: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = drawn(rng, rows, dim, spread)
    transform = transform_of(kind, vectors)
    values = transform.mapped(vectors)
    row = np.sort(np.concatenate([np.arange(rows), rng.integers(0, rows, 2 * rows * (seed % 2))]))
    # Half of the asked keys are stored ones, whose distance is near zero, where float32 is finest.
    asked = transform.keys(np.concatenate([vectors[row[::2]], drawn(rng, len(row) - len(row[::2]), dim, spread)]))
    found = distances(values, row, asked)
    assert found.tobytes() == exact_distances(values[row], asked).tobytes()
    assert found.dtype == np.float32


@pytest.mark.parametrize("length", [0.0, NORM_FLOOR * (1 - 1e-15), NORM_FLOOR, NORM_FLOOR * 1.5, 1.0])
def test_what_is_too_short_to_have_a_direction_is_at_distance_one(length: float) -> None:
    values = np.array([[length, 0.0, 0.0]])
    [found] = distances(values, np.array([0]), np.array([[1.0, 0.0, 0.0]]))
    assert found == (0.0 if length >= NORM_FLOOR else 1.0)


def test_few_distances_need_the_slow_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the quick sum would be of no use."""
    from retclip.shards.search import measure

    slow: list[int] = []

    def counted(values: np.ndarray, asked: np.ndarray) -> np.ndarray:
        slow.append(len(values))
        return exact_distances(values, asked)

    monkeypatch.setattr(measure, "exact_distances", counted)
    rng = np.random.default_rng(0)
    vectors = drawn(rng, 1000, 768, 1.0)
    values, asked = transform_of("centre", vectors).mapped(vectors), normalised(rng.standard_normal((1000, 768)))
    measure.distances(values, np.arange(1000), asked)
    assert sum(slow) < 20

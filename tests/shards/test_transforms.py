"""Key transforms and the whole-number moments they are fitted on."""

import hashlib
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.errors import DatabaseError
from retclip.shards.moments import Moments
from retclip.shards.search.index_files import fingerprint
from retclip.shards.transforms import KINDS, fit, normalised


def unit(count, dim, seed=0):
    values = np.random.default_rng(seed).normal(size=(count, dim)) + 0.5
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


@given(count=st.integers(0, 30), cut=st.integers(0, 30), seed=st.integers(0, 99))
def test_moments_add_and_subtract_exactly(count, cut, seed):
    vectors = unit(count, 5, seed)
    whole, first, second = Moments.of(vectors), Moments.of(vectors[:cut]), Moments.of(vectors[cut:])
    for total in (first + second, whole + first - first):
        assert total.rows == whole.rows
        assert (total.first == whole.first).all()
        assert (total.second == whole.second).all()


def test_moments_are_those_of_the_vectors():
    vectors = unit(500, 6)
    moments = Moments.of(vectors)
    values = vectors.astype(np.float64)
    np.testing.assert_allclose(moments.mean(), values.mean(axis=0), atol=2**-17)
    np.testing.assert_allclose(moments.covariance(), np.cov(values.T, bias=True), atol=2**-15)
    again = Moments.from_bytes(bytes(moments.to_bytes()), 500, 6)
    assert (again.second == moments.second).all()


@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_the_same_bits_in_any_batch(kind):
    vectors = unit(700, 300)
    transform = fit(kind, Moments.of(vectors))
    keys = transform.keys(vectors)
    np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1.0, atol=1e-12)
    for part in (slice(3, 4), slice(100, 117), slice(1, None)):
        assert transform.keys(vectors[part]).tobytes() == keys[part].tobytes()


def test_whitened_keys_have_equal_spread_and_at_most_256_components():
    vectors = unit(4000, 300)
    transform = fit("whiten", Moments.of(vectors))
    assert transform.matrix is not None
    assert transform.matrix.shape == (300, 256)
    raw = (vectors.astype(np.float64) - vectors.astype(np.float64).mean(axis=0)) @ (transform.matrix * transform.unit)
    spread = (raw * 2.0**24).std(axis=0)
    np.testing.assert_allclose(spread, 1.0, rtol=0.01)


def test_whitening_keeps_no_more_than_the_rank():
    vectors = np.zeros((50, 10), np.float16)
    angle = np.linspace(0, 3, 50)
    vectors[:, 2], vectors[:, 5] = np.cos(angle), np.sin(angle)
    transform = fit("whiten", Moments.of(vectors))
    assert transform.matrix is not None
    assert transform.matrix.shape == (10, 2)


def test_constant_components_tell_nothing():
    vectors = unit(50, 4)
    vectors[:, 1] = 0.25
    keys = fit("standardise", Moments.of(vectors)).keys(vectors)
    assert (keys[:, 1] == 0).all()


def test_too_few_rows():
    one = Moments.of(unit(1, 4))
    for kind in ("standardise", "whiten"):
        for moments in (one, Moments.zero(4)):
            with pytest.raises(DatabaseError, match="E302"):
                fit(kind, moments)
    assert (fit("centre", one).keys(unit(1, 4)) == 0).all()
    with pytest.raises(ValueError, match="transform"):
        fit("rotate", one)


def test_normalised_leaves_zero_vectors_zero():
    assert (normalised(np.zeros((2, 3))) == 0).all()


@pytest.mark.parametrize("kind", ["centre", "standardise", "whiten"])
def test_equal_vectors_have_no_direction(kind):
    vectors = np.repeat(unit(1, 6), 5, axis=0)
    assert (np.abs(fit(kind, Moments.of(vectors)).keys(vectors)) == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_fingerprint_is_what_the_format_page_says(kind):
    """Written from docs/database-format.md, "Search index", number by number."""
    dim = 5
    moments = Moments.of(unit(60, dim))
    mean = moments.mean().astype(np.float32).tolist()
    data = kind.encode()
    if kind == "none":
        data += b"---"
    elif kind == "centre":
        data += struct.pack("<5d", *mean) + b"---"
    elif kind == "standardise":
        deviations = np.sqrt(np.diag(moments.covariance())).astype(np.float32).tolist()
        data += struct.pack("<10d", *mean, *(1 / s for s in deviations)) + b"--"
    else:
        values, vectors = np.linalg.eigh(moments.covariance())
        lengths = np.sqrt(values[::-1] + 1e-3 * values[::-1].mean())
        rows = (vectors[:, ::-1] / lengths).T
        exponents = [math.floor(math.log2(math.sqrt(sum(x * x for x in row)))) + 1 for row in rows.tolist()]
        matrix = [[round(rows[j, i] * 2 ** (28 - exponents[j])) for j in range(dim)] for i in range(dim)]
        offset = [
            sum(round(mean[i] * 2**24) * matrix[i][j] for i in range(dim)) * 2.0 ** (exponents[j] - 52)
            for j in range(dim)
        ]
        data += struct.pack("<5d", *offset) + b"-" + struct.pack("<25d", *(x for row in matrix for x in row))
        data += struct.pack("<5d", *(2.0 ** (e - 52) for e in exponents))
    assert fingerprint(fit(kind, moments)) == hashlib.sha256(data).hexdigest()

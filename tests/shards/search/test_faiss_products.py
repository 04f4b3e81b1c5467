"""Products of chosen rows."""

import numpy as np

from retclip.shards.search.faiss_products import products_of_pairs, products_with

RNG = np.random.default_rng(0)
ASKED, OTHERS = RNG.normal(size=(5, 7)).astype(np.float32), RNG.normal(size=(11, 7)).astype(np.float32)


def test_products_with_some_rows():
    some = np.array([10, 0, 3])
    assert np.allclose(products_with(ASKED, OTHERS, some), ASKED @ OTHERS[some].T, atol=1e-5)
    assert products_with(ASKED, OTHERS, some[:0]).shape == (5, 0)


def test_products_of_pairs_in_any_memory_layout():
    pairs = RNG.integers(0, 5, (40, 2))  # columns of a table are not contiguous
    found = products_of_pairs(ASKED, pairs[:, 0], OTHERS, pairs[:, 1])
    assert np.allclose(found, np.einsum("ij,ij->i", ASKED[pairs[:, 0]], OTHERS[pairs[:, 1]]), atol=1e-5)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.evaluation.atoms import Atoms, split_into_atoms


@given(seed=st.integers(0, 10_000), count=st.integers(0, 12))
def test_the_partition_gives_the_masks_back_and_is_the_coarsest(seed, count):
    rng = np.random.default_rng(seed)
    masks = rng.random((count, 7, 9)) < rng.random((count, 1, 1))
    atoms = split_into_atoms(masks)
    np.testing.assert_array_equal(atoms.masks(), masks)
    signatures = {tuple(column) for column in masks.reshape(count, 63).T.tolist()}
    assert len(atoms.inside) == len(signatures)
    assert {tuple(row) for row in atoms.inside.tolist()} == signatures


def test_an_index_beyond_the_atoms_is_refused():
    with pytest.raises(ValueError, match=r"Atoms\.index"):
        Atoms(np.array([[0, 2]], np.int32), np.ones((2, 1), bool))

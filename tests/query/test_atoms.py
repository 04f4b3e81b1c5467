from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.rle import mask_box
from retclip.query.atoms import AtomOutline, Atoms, outline, split_into_atoms


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


@given(seed=st.integers(0, 10_000), count=st.integers(0, 6))
def test_the_outline_is_what_the_pixels_say(seed, count):
    rng = np.random.default_rng(seed)
    atoms = split_into_atoms(rng.random((count, 6, 5)) < rng.random((count, 1, 1)))
    found = outline(atoms)
    pairs = set()
    for y in range(6):
        for x in range(5):
            here = atoms.index[y, x]
            pairs |= {
                tuple(sorted((here, other)))
                for other in (*atoms.index[y + 1 : y + 2, x], *atoms.index[y, x + 1 : x + 2])
            }
    assert sorted(map(tuple, found.touching.tolist())) == sorted((a, b) for a, b in pairs if a != b)
    for atom in range(len(found.inside)):
        mask = atoms.index == atom
        assert found.size[atom] == mask.sum()
        assert tuple(found.box[atom]) == mask_box(mask)


def test_an_outline_of_other_atoms_is_refused():
    box, inside = np.zeros((2, 4), np.int64), np.ones((2, 1), bool)
    with pytest.raises(ValueError, match=r"AtomOutline\.touching"):
        AtomOutline(inside, np.ones(2, np.int64), box, np.array([[0, 2]], np.int32))
    with pytest.raises(ValueError, match="AtomOutline"):
        AtomOutline(inside, np.ones(3, np.int64), box, np.zeros((0, 2), np.int32))

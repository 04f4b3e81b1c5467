"""join_touching against a flood fill by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label

from retclip.query.touching import borders, join_touching


def joined_of(ids: np.ndarray, column: np.ndarray, joins: np.ndarray) -> np.ndarray:
    return join_touching(borders(ids), np.bincount(ids.ravel(), minlength=len(column)), column, joins)


def test_parts_of_one_object_take_the_id_of_the_largest() -> None:
    ids = np.array([[1, 1, 2, 0, 3], [1, 1, 2, 0, 3]], dtype=np.int32)
    column = np.array([-1, 7, 7, 7])
    assert joined_of(ids, column, np.array([False, True, True, True])).tolist() == [0, 1, 1, 3]


def test_classes_that_do_not_join_and_other_classes_stay_apart() -> None:
    ids = np.array([[1, 2, 3, 4]], dtype=np.int32)
    column = np.array([-1, 7, 7, 8, 8])
    assert joined_of(ids, column, np.array([False, False, False, True, True])).tolist() == [0, 1, 2, 3, 3]


@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 5)))
def test_equals_connected_components_of_each_class(drawn: np.ndarray) -> None:
    # Connected ids first: a segment is one region here, so that components of the class map are the groups.
    ids = np.asarray(label(drawn + 1, background=0, connectivity=1), dtype=np.int32)
    count = int(ids.max()) + 1
    column = np.full(count, -1)
    for value in range(1, count):
        column[value] = drawn[ids == value][0] % 3
    joins = np.r_[False, np.ones(count - 1, dtype=bool)]
    target = joined_of(ids, column, joins)
    expected = label(column[ids] + 1, background=0, connectivity=1)
    joined = target[ids]
    for value in np.unique(expected):
        assert len(np.unique(joined[expected == value])) == 1
    assert len(np.unique(joined)) == len(np.unique(expected))

"""Panoptic maps and their colours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retclip.core.panoptic import PanopticMap, Segment, ids_to_rgb, rgb_to_ids, values_of


def segment(number: int) -> Segment:
    return Segment(number, 0, True, 0.5, 1, (0, 0, 1, 1))


@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, (1 << 24) - 1)))
def test_colours_and_back_are_the_same_ids(ids: np.ndarray) -> None:
    rgb = ids_to_rgb(ids)
    assert rgb.dtype == np.uint8
    assert np.array_equal(rgb_to_ids(rgb), ids)


def test_colours_are_those_of_coco() -> None:
    assert ids_to_rgb(np.array([[0, 1, 256, 65536, (1 << 24) - 1]], np.int32)).tolist() == [
        [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [255, 255, 255]]
    ]


@pytest.mark.parametrize("value", [-1, 1 << 24])
def test_ids_that_have_no_colour_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="ids"):
        ids_to_rgb(np.array([[0, value]], np.int32))


def test_wrong_colour_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="rgb"):
        rgb_to_ids(np.zeros((2, 2), np.uint8))


def test_a_map_lists_exactly_its_ids() -> None:
    ids = np.array([[0, 1], [3, 3]], np.int32)
    assert len(PanopticMap(ids, (segment(3), segment(1))).segments) == 2
    for listed in ([1], [1, 2, 3], [1, 3, 3], []):
        with pytest.raises(ValueError, match="ids of the map"):
            PanopticMap(ids, tuple(map(segment, listed)))


@pytest.mark.parametrize("ids", [np.zeros((2, 2), np.int64), np.zeros((2, 2, 1), np.int32)])
def test_wrong_maps_are_refused(ids: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"PanopticMap\.ids"):
        PanopticMap(ids, ())


@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(-2, 9) | st.just(1 << 30)))
def test_values_of_a_map_are_those_that_occur(ids: np.ndarray) -> None:
    assert np.array_equal(values_of(ids), np.unique(ids))

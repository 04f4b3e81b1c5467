"""Places of labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.reports.placement import Wish, interior_depth, interior_points, place_labels

MAPS = st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(0, 12), st.integers(0, 99))


@given(MAPS)
def test_every_point_lies_in_its_segment(samples, drawn):
    ids = samples.make_blocks(*drawn)
    for segment_id, points in interior_points(ids).items():
        assert len(points) > 0
        assert (ids[points[:, 1], points[:, 0]] == segment_id).all()


@given(MAPS, st.integers(1, 30), st.integers(1, 12))
def test_boxes_cover_their_anchor_and_never_overlap(samples, drawn, width, height):
    ids = samples.make_blocks(*drawn)
    wishes = [Wish(int(i), width, height) for i in np.unique(ids) if i]
    cover = np.zeros(ids.shape, dtype=int)
    for placed in place_labels(ids, wishes):
        x, y = placed.anchor
        x0, y0, x1, y1 = placed.box
        assert ids[y, x] == placed.segment_id
        assert x0 <= x < x1
        assert y0 <= y < y1
        assert 0 <= x0 < x1 <= ids.shape[1]
        assert 0 <= y0 < y1 <= ids.shape[0]
        assert (x1 - x0, y1 - y0) == (width, height)
        cover[y0:y1, x0:x1] += 1
    assert cover.max() <= 1


def test_the_first_wish_has_the_free_choice_and_the_next_steps_aside():
    ids = np.ones((40, 60), dtype=np.int32)
    ids[15:25, 25:35] = 2
    first, second = place_labels(ids, [Wish(2, 20, 8), Wish(1, 20, 8)])
    assert 25 <= first.anchor[0] < 35
    assert second.segment_id == 1
    assert place_labels(ids, [Wish(2, 61, 8)]) == []


def test_a_disc_is_labelled_at_its_centre():
    y, x = np.mgrid[:101, :101]
    ids = ((x - 50) ** 2 + (y - 50) ** 2 <= 40**2).astype(np.int32)
    assert np.abs(interior_points(ids)[1][0] - 50).max() <= 1


def test_a_ring_is_not_labelled_in_its_hole():
    y, x = np.mgrid[:101, :101]
    radius = np.hypot(x - 50, y - 50)
    ids = ((radius <= 45) & (radius >= 25)).astype(np.int32)
    x, y = interior_points(ids)[1][0]
    assert 28 <= np.hypot(x - 50, y - 50) <= 42


def test_the_deep_part_wins_over_the_middle_of_a_long_one():
    ids = np.zeros((60, 200), dtype=np.int32)
    ids[20:40, :] = 1
    ids[:, :60] = 1
    x, y = interior_points(ids)[1][0]
    assert 15 <= x <= 45
    assert 15 <= y <= 45


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1)])
def test_thin_maps_have_depth_one(shape):
    ids = np.full(shape, 5, dtype=np.int32)
    assert (interior_depth(ids) == 1).all()
    assert list(interior_points(ids)) == [5]


@settings(max_examples=30)
@given(MAPS)
def test_depth_grows_by_one_from_the_border(samples, drawn):
    ids = samples.make_blocks(*drawn)
    depth = interior_depth(ids)
    padded_ids = np.pad(ids, 1, constant_values=-1)
    padded = np.pad(depth, 1)
    for y, x in ((0, 1), (1, 0), (1, 2), (2, 1)):
        same = padded_ids[y : y + len(ids), x : x + ids.shape[1]] == ids
        near = padded[y : y + len(ids), x : x + ids.shape[1]]
        assert (depth[~same] == 1).all()
        assert (np.abs(near - depth)[same] <= 1).all()

"""Class colours."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.panoptic import Segment
from retclip.reports.palette import PALETTE_SIZE, category_color, segment_colors

PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
)


def make_segment(number, category_id, is_thing=True):
    return Segment(number, category_id, is_thing, 0.9, 10, (0, 0, 5, 2))


def smallest_gap(colors, vision):
    """Smallest distance between two colours as seen, in 0..1 encoded RGB."""
    linear = (np.array(colors) / 255) ** 2.2
    seen = (linear @ vision.T).clip(0, 1) ** (1 / 2.2)
    gaps = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    return gaps[~np.eye(len(colors), dtype=bool)].min()


def test_all_colors_differ():
    assert len({category_color(i) for i in range(PALETTE_SIZE)}) == PALETTE_SIZE


def test_the_first_colors_are_okabe_and_itos():
    assert [category_color(0), category_color(1)] == [(0, 114, 178), (230, 159, 0)]


@pytest.mark.parametrize(("count", "gap"), [(20, 0.1), (40, 0.07), (80, 0.045)])
@pytest.mark.parametrize("vision", [np.eye(3), PROTANOPIA, DEUTERANOPIA], ids=["normal", "protanopia", "deuteranopia"])
def test_classes_stay_apart_without_red_green_vision(vision, count, gap):
    assert smallest_gap([category_color(i) for i in range(count)], vision) > gap


@given(st.integers(0, 10**9))
def test_color_depends_on_the_id_alone(category_id):
    color = category_color(category_id)
    assert color == category_color(category_id % PALETTE_SIZE)
    assert all(0 <= channel <= 255 for channel in color)


def test_instances_of_a_class_differ_and_stuff_does_not():
    things = segment_colors([make_segment(i, 3) for i in range(1, 9)])
    assert len({tuple(color) for color in things.tolist()}) == 8
    assert tuple(things[0].tolist()) == category_color(3)
    stuff = segment_colors([make_segment(i, 3, is_thing=False) for i in range(1, 4)])
    assert {tuple(color) for color in stuff.tolist()} == {category_color(3)}


def test_no_segments_no_colors():
    assert segment_colors([]).shape == (0, 3)

"""Which of several masks are the same region twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from retclip.core import overlap
from retclip.core.overlap import distinct

mask_stacks = arrays.arrays(bool, st.tuples(st.integers(0, 12), st.integers(1, 5), st.integers(1, 5)))


def kept_one_by_one(masks: np.ndarray, most_iou: float) -> list[int]:
    kept: list[int] = []
    for row, mask in enumerate(masks):
        others = masks[kept]
        common = (others & mask).sum(axis=(1, 2))
        union = (others | mask).sum(axis=(1, 2))
        if not (common > most_iou * union).any():
            kept.append(row)
    return kept


@given(mask_stacks, st.sampled_from([0.0, 0.25, 0.5, 0.85, 1.0]))
def test_rows_are_those_of_the_plain_rule(masks: np.ndarray, most_iou: float) -> None:
    assert distinct(torch.from_numpy(masks), most_iou).tolist() == kept_one_by_one(masks, most_iou)


@given(mask_stacks, st.integers(1, 40))
def test_comparing_in_parts_changes_nothing(masks: np.ndarray, most_values: int) -> None:
    whole = distinct(torch.from_numpy(masks), 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "_MOST_VALUES", most_values)
        assert torch.equal(distinct(torch.from_numpy(masks), 0.5), whole)


def test_the_earlier_of_two_alike_wins_and_a_dropped_one_drops_nothing() -> None:
    masks = torch.zeros(3, 1, 10, dtype=torch.bool)
    masks[0, 0, :6] = masks[1, 0, 1:8] = masks[2, 0, 3:10] = True
    # Neighbours share 5 cells of 8 and of 9, the outer two 3 of 10: the middle one goes, and with it its own claim.
    assert distinct(masks, 0.5).tolist() == [0, 2]
    assert distinct(masks.flip(0), 0.5).tolist() == [0, 2]
    assert distinct(masks, 0.7).tolist() == [0, 1, 2]


def test_equal_masks_are_one_unless_the_limit_is_one() -> None:
    masks = torch.ones(4, 3, 3, dtype=torch.bool)
    assert distinct(masks, 0.99).tolist() == [0]
    assert distinct(masks, 1.0).tolist() == [0, 1, 2, 3]


def test_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="bool"):
        distinct(torch.zeros(1, 2, 2), 0.5)

"""Sets of mask proposals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.masks import MaskSet


@st.composite
def logit_sets(draw: st.DrawFn) -> MaskSet:
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
    size = draw(st.tuples(st.integers(1, 17), st.integers(1, 17)))
    logits = torch.randn(*shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 999)))) * 4
    return MaskSet(logits, size, "test")


@given(logit_sets(), st.integers(0, 16), st.integers(1, 17))
def test_a_band_is_a_band_of_the_resized_masks(masks: MaskSet, top: int, rows: int) -> None:
    top = min(top, masks.image_size[0] - 1)
    bottom = min(masks.image_size[0], top + rows)
    whole = torch.nn.functional.interpolate(masks.masks[None], masks.image_size, mode="bilinear")[0].sigmoid()
    torch.testing.assert_close(masks.band(top, bottom), whole[:, top:bottom], atol=2e-5, rtol=0)


@given(logit_sets())
def test_a_region_is_where_the_probability_is_one_half(masks: MaskSet) -> None:
    whole = masks.band(0, masks.image_size[0])
    for row in range(len(masks)):
        assert torch.equal(masks.region(row), whole[row] >= 0.5)


@given(logit_sets())
def test_regions_for_pooling_are_never_empty(masks: MaskSet) -> None:
    chosen = masks.for_pooling()
    assert chosen.dtype == torch.bool
    assert chosen.flatten(1).any(dim=1).all()
    for logits, region in zip(masks.masks, chosen, strict=True):
        if (logits > 0).any():
            assert torch.equal(region, logits > 0)
        else:
            assert region.sum() == 1
            assert logits[region].item() == logits.max()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5), st.integers(1, 500), st.integers(0, 9))
def test_bands_cover_every_row_once_within_the_bound(
    height: int, width: int, count: int, most: int, planes: int
) -> None:
    masks = MaskSet(torch.zeros(count, height, width, dtype=torch.bool), (height, width), "test")
    bands = list(masks.bands(most, planes or None))
    assert [row for top, bottom in bands for row in range(top, bottom)] == list(range(height))
    for top, bottom in bands:
        assert (bottom - top) * width * (planes or count) <= most or bottom - top == 1


def test_bool_masks_are_their_own_probability() -> None:
    masks = MaskSet(torch.eye(4, dtype=torch.bool)[None], (4, 4), "test")
    assert torch.equal(masks.band(1, 3)[0], torch.eye(4)[1:3])
    assert torch.equal(masks.region(0), masks.masks[0])
    assert masks.for_pooling() is masks.masks


def test_select_keeps_the_asked_order() -> None:
    masks = MaskSet(torch.arange(12.0).view(3, 2, 2), (4, 4), "given")
    chosen = masks.select(torch.tensor([2, 0, 2]))
    assert chosen.masks[:, 0, 0].tolist() == [8.0, 0.0, 8.0]
    assert (chosen.image_size, chosen.origin, len(chosen)) == ((4, 4), "given", 3)
    assert len(masks.select(torch.zeros(0, dtype=torch.long))) == 0


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.zeros(4, 4, dtype=torch.bool), "expected .N, h, w."),
        (torch.zeros(1, 4, 4, dtype=torch.int64), "bool or float"),
        (torch.zeros(1, 4, 5, dtype=torch.bool), "image size"),
    ],
)
def test_wrong_masks_are_refused_at_birth(masks: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskSet(masks, (4, 4), "test")

"""Sets of mask proposals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.masks import Frame, MaskSet


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


@st.composite
def framed_sets(draw: st.DrawFn) -> MaskSet:
    """Logits at a quarter of a padded input, as a network gives them."""
    content = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    padded = (-(-content[0] // 8) * 8, -(-content[1] // 8) * 8)
    size = draw(st.tuples(st.integers(1, 50), st.integers(1, 50)))
    random = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    logits = torch.randn(draw(st.integers(1, 3)), padded[0] // 4, padded[1] // 4, generator=random) * 4
    return MaskSet(logits, size, "test", Frame(padded, content, size))


def resized_in_two_steps(masks: MaskSet) -> torch.Tensor:
    frame = masks.frame
    assert frame is not None
    whole = torch.nn.functional.interpolate(masks.masks[None], frame.padded, mode="bilinear")
    content = whole[..., : frame.content[0], : frame.content[1]]
    return torch.nn.functional.interpolate(content, frame.output, mode="bilinear")[0]


@given(framed_sets(), st.integers(0, 49), st.integers(1, 50))
def test_framed_masks_are_resized_in_two_steps(masks: MaskSet, top: int, rows: int) -> None:
    top = min(top, masks.image_size[0] - 1)
    bottom = min(masks.image_size[0], top + rows)
    whole = resized_in_two_steps(masks).sigmoid()
    torch.testing.assert_close(masks.band(top, bottom), whole[:, top:bottom], atol=2e-5, rtol=0)
    torch.testing.assert_close(masks.select(torch.tensor([0])).band(top, bottom), masks.band(top, bottom)[:1])
    assert torch.equal(masks.region(0), masks.band(0, masks.image_size[0])[0] >= 0.5)


@given(framed_sets())
def test_framed_regions_for_pooling_leave_the_padding_out(masks: MaskSet) -> None:
    chosen = masks.for_pooling()
    assert chosen.flatten(1).any(dim=1).all()
    frame, size = masks.frame, (chosen.shape[1], chosen.shape[2])
    assert frame is not None
    assert size == tuple(max(1, round(side / 4)) for side in frame.content)
    whole = resized_in_two_steps(MaskSet(masks.masks, size, "test", Frame(frame.padded, frame.content, size)))
    for logits, region in zip(whole, chosen, strict=True):
        clear = logits.abs() > 1e-5
        if (logits > 1e-5).any():
            assert torch.equal(region[clear], logits[clear] > 0)
        else:
            assert region.sum() >= 1


def test_bands_of_framed_masks_stay_within_the_bound() -> None:
    """The planes between the two steps are as wide as the padded input, not as the picture."""
    masks = MaskSet(torch.zeros(5, 8, 200), (30, 20), "test", Frame((32, 800), (30, 797), (30, 20)))
    for top, bottom in masks.bands(most_values=10_000):
        assert (bottom - top) * 800 * len(masks) <= 10_000


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


def test_wrong_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="content"):
        Frame((32, 32), (33, 20), (4, 4))
    frame = Frame((8, 8), (7, 8), (4, 4))
    for masks, size in ((torch.zeros(1, 4, 4, dtype=torch.bool), (4, 4)), (torch.zeros(1, 2, 2), (5, 4))):
        with pytest.raises(ValueError, match="frame"):
            MaskSet(masks, size, "test", frame)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from retclip.core.images import MAX_PIXELS
from retclip.core.rle import decode_mask, encode_mask, encode_regions, mask_box, paint_runs

masks = arrays(np.bool_, st.tuples(st.integers(1, 20), st.integers(1, 20)))


@given(masks)
def test_decoding_inverts_encoding(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), mask.shape), mask)


@given(masks, st.integers(1, 25), st.integers(1, 25))
def test_a_code_fits_only_its_own_number_of_pixels(mask: np.ndarray, height: int, width: int) -> None:
    counts = encode_mask(mask)
    if height * width == mask.size:
        assert decode_mask(counts, (height, width)).sum() == mask.sum()
    else:
        with pytest.raises(ValueError, match="mask code"):
            decode_mask(counts, (height, width))


@given(masks)
def test_the_reference_implementation_decodes_the_same(mask: np.ndarray) -> None:
    counts = encode_mask(mask)
    reference = coco_mask.decode({"size": list(mask.shape), "counts": counts})
    np.testing.assert_array_equal(decode_mask(counts, mask.shape), reference.astype(bool))


def test_runs_longer_than_one_character_keep_their_sign() -> None:
    mask = np.zeros((700, 900), np.bool_)
    mask[10:650, 3], mask[600:, 5], mask[:, 800:] = True, True, True
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), mask.shape), mask)


@given(st.one_of(st.binary(max_size=60), st.text("0123456789PQRSo`_", max_size=40).map(str.encode)))
def test_arbitrary_bytes_are_refused_or_cover_the_picture(counts: bytes) -> None:
    refused = False
    try:
        mask = decode_mask(counts, (7, 9))
    except ValueError as error:
        refused = str(error).startswith("mask code")
    assert refused or mask.shape == (7, 9)


@pytest.mark.parametrize(
    "counts",
    [b"", b"0", b"o", b"ooooooooo0", b"\xff", b"/", b"p", b"j1j1", b"N", b"0" * 100],
    ids=["empty", "nothing", "goes on", "too long", "high", "low", "above", "too many", "negative", "zeros"],
)
def test_hostile_codes_are_refused(counts: bytes) -> None:
    with pytest.raises(ValueError, match="mask code"):
        decode_mask(counts, (7, 9))


@pytest.mark.parametrize("size", [(0, 5), (-1, 5), (MAX_PIXELS, 2)])
def test_impossible_sizes_are_refused_before_memory_is_taken(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="mask size"):
        decode_mask(b"0", size)


@pytest.mark.parametrize("mask", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 1), np.bool_)])
def test_only_boolean_planes_are_encoded(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(H, W\) bool"):
        encode_mask(mask)


@given(masks.filter(np.any))
def test_box_is_the_smallest_that_holds_every_pixel(mask: np.ndarray) -> None:
    x0, y0, x1, y1 = mask_box(mask)
    inside = mask[y0:y1, x0:x1]
    assert inside.sum() == mask.sum()
    assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_box_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        mask_box(np.zeros((3, 3), np.bool_))


def test_uncompressed_runs_go_down_the_columns_and_must_cover_the_picture() -> None:
    assert paint_runs(np.array([1, 2, 1]), (2, 2)).tolist() == [[False, True], [True, False]]
    for runs in ([1, 2], [-1, 5], [1 << 62] * 4):
        with pytest.raises(ValueError, match="mask code"):
            paint_runs(np.array(runs), (2, 2))


@given(arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 4)))
def test_regions_of_a_map_are_coded_as_their_masks(ids: np.ndarray) -> None:
    values = [3, 0, 4, 7, 1]
    assert encode_regions(ids, values) == [encode_mask(ids == value) for value in values]
    assert encode_regions(ids, []) == []

"""The weight-free proposer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retclip.adapters.region_hierarchy import RegionHierarchy, distinct_regions
from retclip.core.images import Picture
from retclip.core.vocabulary import Vocabulary
from retclip.presets import ProposalSettings
from tests.fakes import picture_of

WORDS = Vocabulary.from_names("w", ["x"])


def propose(pixels: np.ndarray, settings: ProposalSettings | None = None) -> torch.Tensor:
    picture = Picture(pixels, "0" * 64, "x")
    found = RegionHierarchy(settings or ProposalSettings()).propose([picture], WORDS)[0].masks
    assert found.origin == "regions"
    assert found.image_size == picture.size
    return found.masks


def test_stripes_are_found_as_they_are() -> None:
    pixels = np.kron(picture_of(["red", "blue", "green"]).pixels, np.ones((5, 5, 1), np.uint8))
    masks = propose(pixels)
    for number in range(3):
        truth = torch.zeros(120, 240, dtype=torch.bool)
        truth[:, number * 80 : (number + 1) * 80] = True
        iou = (masks & truth).sum(dim=(1, 2)) / (masks | truth).sum(dim=(1, 2))
        assert iou.max() > 0.9


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 900), (900, 1), (3, 3), (700, 350)])
def test_any_size_is_covered_by_non_empty_regions_largest_first(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    masks = propose(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    areas = masks.sum(dim=(1, 2))
    assert len(masks) > 0
    assert (areas > 0).all()
    assert masks.any(dim=0).all()


def test_proposals_repeat_and_obey_their_limits() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    first, second = propose(pixels), propose(pixels)
    assert torch.equal(first, second)
    few = propose(pixels, ProposalSettings(max_regions=3))
    assert torch.equal(few, first[:3])
    coarse = propose(pixels, ProposalSettings(scales=(100.0,), min_share=0.2))
    assert (coarse.sum(dim=(1, 2)) >= 0.15 * 240 * 320).all()


LEVELS = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda shape: st.lists(hnp.arrays(np.int64, shape, elements=st.integers(0, 3)), min_size=1, max_size=3)
)


@given(LEVELS, st.integers(1, 12))
def test_near_duplicates_are_left_out_and_nothing_else(levels: list[np.ndarray], most: int) -> None:
    kept = distinct_regions(levels, 10_000)
    regions = {(n, int(v)): level == v for n, level in enumerate(levels) for v in np.unique(level)}
    assert set(kept) <= set(regions)

    def iou(a: np.ndarray, b: np.ndarray) -> float:
        return float((a & b).sum() / (a | b).sum())

    for key, region in regions.items():
        twins = [other for other in regions if other[0] > key[0] and iou(region, regions[other]) > 0.9]
        assert (key in kept) == (not twins)
    areas = [int(regions[key].sum()) for key in kept]
    assert areas == sorted(areas, reverse=True)
    assert distinct_regions(levels, most) == kept[:most]

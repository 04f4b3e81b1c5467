from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from retclip.ports.corpora import CorpusClass, CorpusImage, ImageLabel, Region

MASK = np.ones((2, 3), np.bool_)


def region(mask: np.ndarray = MASK, box: tuple[float, float, float, float] = (0, 0, 3, 2)) -> Region:
    return Region("cat", (), True, mask, box, False, "table.boxes", "box")


def test_a_whole_region_is_accepted() -> None:
    assert region().mask.shape == (2, 3)


@pytest.mark.parametrize("mask", [MASK[None], MASK.astype(np.uint8), np.zeros((2, 3), np.bool_)])
def test_masks_are_boolean_planes_with_a_pixel(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"Region\.mask"):
        region(mask=mask)


@pytest.mark.parametrize("box", [(0, 0, 0, 2), (0, 2, 3, 1), (0, 0, math.nan, 2), (-math.inf, 0, 3, 2)])
def test_boxes_are_finite_and_have_an_area(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"Region\.box"):
        region(box=box)


@pytest.mark.parametrize("confidence", [-0.1, 1.1, math.nan])
def test_confidence_is_a_probability(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"ImageLabel\.confidence"):
        ImageLabel("cat", "machine", confidence, True)


def test_names_and_ids_are_not_empty() -> None:
    with pytest.raises(ValueError, match="CorpusClass"):
        CorpusClass("cat", " ", (), True)
    with pytest.raises(ValueError, match=r"CorpusImage\.image_id"):
        CorpusImage("coco", "", Path("a.jpg"), "")

"""Segmenting everything: every step of SAM's automatic generator, on low-resolution logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.utils.amg import build_point_grid, calculate_stability_score

from benchmarks.models.sam_names import released_names
from retclip.adapters.promptable import PromptedMasker
from retclip.adapters.sam_grid import PUBLISHED, GridFilters, SamGrid, point_grid, stability
from retclip.adapters.segment_anything import SegmentAnything
from retclip.adapters.transformers_sam import load_transformers_sam
from retclip.core.images import Picture
from retclip.core.masks import Frame, MaskSet
from retclip.core.vocabulary import Category, Vocabulary
from retclip.ports.masking import BoxMasks
from retclip.presets import MaskerSettings, ProposalSettings
from tests.adapters.tiny_sam import original_sam, write_tiny_sam, write_tiny_sam2

CPU = torch.device("cpu")
ANYTHING = Vocabulary("any", (Category(0, ("thing",), True),))
EVERYTHING = GridFilters(least_quality=-100, least_stability=0, box_iou=1)
SETTINGS = ProposalSettings(min_share=0, duplicate_iou=1, max_regions=10_000, grid=5)


def photo(height: int = 48, width: int = 64) -> Picture:
    pixels = np.random.default_rng(0).integers(0, 80, (height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 3 : width // 2] += 150
    return Picture(pixels, "0" * 64, "photo")


class Scripted:
    """Hands out given candidates, two at a time, whatever the points."""

    def __init__(self, masks: MaskSet, quality: torch.Tensor) -> None:
        self.candidates = BoxMasks(masks, quality)

    def point_masks(self, picture: np.ndarray, points: torch.Tensor) -> Iterator[BoxMasks]:
        for rows in torch.arange(len(self.candidates.masks)).split(2):
            yield BoxMasks(self.candidates.masks.select(rows), self.candidates.quality[rows])


def boxes_as_logits(boxes: list[tuple[int, int, int, int]], certain: float = 9.0) -> torch.Tensor:
    logits = torch.full((len(boxes), 20, 20), -certain)
    for row, (x0, y0, x1, y1) in enumerate(boxes):
        logits[row, y0:y1, x0:x1] = certain
    return logits


def proposed(
    logits: torch.Tensor,
    quality: list[float],
    settings: ProposalSettings = SETTINGS,
    filters: GridFilters = PUBLISHED,
) -> list[int]:
    """Rows of the candidates that come back, in that order."""
    masker = Scripted(MaskSet(logits, (40, 40), "prompts"), torch.tensor(quality))
    [found] = SamGrid(masker, settings, filters).propose([photo(40, 40)], ANYTHING)
    assert found.masks.origin == "sam-grid"
    assert found.masks.image_size == (40, 40)
    return [next(i for i in range(len(logits)) if torch.equal(logits[i], mask)) for mask in found.masks.masks]


@given(st.integers(1, 9), st.tuples(st.integers(1, 99), st.integers(1, 99)))
def test_the_grid_is_that_of_the_generator(per_side: int, size: tuple[int, int]) -> None:
    wanted = build_point_grid(per_side) * np.array([size[1], size[0]])
    np.testing.assert_allclose(point_grid(per_side, size).numpy(), wanted, rtol=1e-5)


@given(st.integers(0, 999), st.floats(0.1, 2))
def test_stability_is_that_of_the_generator(seed: int, offset: float) -> None:
    logits = torch.randn(4, 6, 7, generator=torch.Generator().manual_seed(seed)) - 1
    wanted = calculate_stability_score(logits, 0.0, offset)
    assert torch.equal(stability(logits, offset).nan_to_num(-1), wanted.nan_to_num(-1))


def test_published_filters_are_the_generators_defaults() -> None:
    generator = SamAutomaticMaskGenerator(original_sam())
    assert GridFilters() == GridFilters(
        generator.pred_iou_thresh,
        generator.stability_score_thresh,
        generator.stability_score_offset,
        generator.box_nms_thresh,
    )
    assert len(generator.point_grids[0]) == ProposalSettings().grid ** 2


@pytest.mark.parametrize("quality", [0.01, 0.4, 0.8])
def test_proposals_are_those_of_the_generator(tmp_path: Path, quality: float) -> None:
    sam = original_sam()
    sam.load_state_dict(released_names(load_file(write_tiny_sam(tmp_path, seed=3) / "model.safetensors")))
    generator = SamAutomaticMaskGenerator(
        sam.eval(), points_per_side=5, pred_iou_thresh=quality, stability_score_thresh=0, box_nms_thresh=1
    )
    wanted = {entry["segmentation"].tobytes() for entry in generator.generate(photo().pixels) if entry["area"]}
    masker = PromptedMasker(SegmentAnything(sam, "sam", CPU), prompts=7)
    filters = replace(EVERYTHING, least_quality=quality)
    [found] = SamGrid(masker, SETTINGS, filters).propose([photo()], ANYTHING)
    regions = {found.masks.region(row).numpy().tobytes() for row in range(len(found.masks))}
    assert len(wanted) > 3
    assert regions == wanted


def test_doubtful_unstable_empty_and_small_candidates_are_dropped() -> None:
    logits = boxes_as_logits([(0, 0, 9, 9), (10, 0, 19, 9), (0, 10, 9, 19), (10, 10, 19, 19), (0, 0, 2, 2)])
    logits[1] *= 0.05  # certain to 0.45 alone: cut at 1 nothing is left
    logits[2] = -3.0
    quality = [0.95, 0.95, 0.95, 0.88, 0.95]
    assert proposed(logits, quality) == [0, 4]
    assert proposed(logits, quality, replace(SETTINGS, min_share=0.02)) == [0]
    assert proposed(logits, quality, filters=replace(PUBLISHED, least_quality=0.87)) == [0, 3, 4]
    assert proposed(logits, quality, filters=replace(PUBLISHED, offset=0.4)) == [0, 1, 4]


def test_of_alike_boxes_the_better_candidate_is_kept() -> None:
    logits = boxes_as_logits([(0, 0, 10, 10), (0, 0, 10, 9), (12, 12, 18, 18)])
    assert proposed(logits, [0.9, 0.99, 0.9]) == [1, 2]
    assert proposed(logits, [0.99, 0.9, 0.9]) == [0, 2]
    assert proposed(logits, [0.99, 0.9, 0.9], filters=replace(PUBLISHED, box_iou=0.95)) == [0, 1, 2]


def test_a_mask_and_a_part_of_it_in_one_box_are_two_unless_nearly_the_same() -> None:
    logits = boxes_as_logits([(0, 0, 10, 10), (0, 0, 10, 10)])
    logits[1, 4:6, 4:6] = -9.0  # shares 96 of 100 cells
    keep_both = replace(PUBLISHED, box_iou=1)
    assert proposed(logits, [0.9, 0.95], replace(SETTINGS, duplicate_iou=0.97), keep_both) == [0, 1]
    assert proposed(logits, [0.9, 0.95], replace(SETTINGS, duplicate_iou=0.95), keep_both) == [1]


def test_the_largest_come_first_and_the_rest_is_cut() -> None:
    logits = boxes_as_logits([(0, 0, 3, 3), (4, 4, 15, 15), (0, 16, 8, 20)])
    assert proposed(logits, [0.99, 0.9, 0.95]) == [1, 2, 0]
    assert proposed(logits, [0.99, 0.9, 0.95], replace(SETTINGS, max_regions=2)) == [1, 2]


def test_a_picture_in_which_nothing_is_found_has_no_proposals() -> None:
    assert proposed(boxes_as_logits([(0, 0, 9, 9)]), [0.1]) == []


def test_cells_that_cover_padding_count_for_nothing() -> None:
    frame = Frame((40, 40), (20, 40), (50, 100))
    below = boxes_as_logits([(0, 12, 20, 20), (0, 0, 10, 10)])  # the picture ends at the tenth row of cells
    below[0, 9, 0] = 9.0
    masker = Scripted(MaskSet(below, (50, 100), "prompts", frame), torch.tensor([0.9, 0.9]))
    half = replace(SETTINGS, min_share=0.45)
    [found] = SamGrid(masker, half, EVERYTHING).propose([photo(50, 100)], ANYTHING)
    assert torch.equal(found.masks.masks, below[1:])
    assert found.masks.frame == frame


@pytest.mark.parametrize(("library", "write"), [("sam", write_tiny_sam), ("sam2", write_tiny_sam2)])
def test_every_network_behind_it_proposes_for_each_picture_alone(tmp_path: Path, library: str, write: object) -> None:
    assert callable(write)
    masker = load_transformers_sam(MaskerSettings(library=library), write(tmp_path, seed=4), CPU)  # type: ignore[arg-type]
    grid = SamGrid(masker, replace(SETTINGS, duplicate_iou=0.9, max_regions=6), EVERYTHING)
    pictures = [photo(), photo(1, 1), photo(300, 20)]
    together = grid.propose(pictures, ANYTHING)
    assert [found.masks.image_size for found in together] == [(48, 64), (1, 1), (300, 20)]
    for picture, found in zip(pictures, together, strict=True):
        [alone] = grid.propose([picture], ANYTHING)
        assert torch.equal(alone.masks.masks, found.masks.masks)
        assert len(found.masks) <= 6
    areas = together[0].masks.for_pooling().flatten(1).sum(1)
    assert len(areas) > 1
    assert torch.equal(areas, areas.sort(descending=True).values)

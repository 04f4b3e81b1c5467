"""Proposals of a promptable segmenter that is asked about a grid of points: "segment everything".

SAM's automatic generator (Kirillov et al. 2023, appendix "Automatic Mask Generation Details") on the whole picture,
without crops. Its filters work here on the network's own low-resolution logits: full-size ones of 3,072 masks of a
megapixel are 12 GB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes, nms

from retclip.core.errors import require
from retclip.core.images import Picture
from retclip.core.masks import MaskSet
from retclip.core.overlap import distinct
from retclip.core.vocabulary import Vocabulary
from retclip.ports.masking import BoxMasks, PointMasker
from retclip.ports.proposals import Proposals
from retclip.presets import ProposalSettings


@dataclass(frozen=True)
class GridFilters:
    """Which candidates are good masks; the defaults are those of segment-anything's SamAutomaticMaskGenerator.

    Attributes:
        least_quality: IoU that the network predicts for its mask; only above it a mask is kept.
        least_stability: IoU of the mask with logits cut at `offset` and the one cut at `-offset`.
        offset: in units of logits.
        box_iou: of two masks whose boxes overlap more, the one with the better predicted IoU is kept.
    """

    least_quality: float = 0.88
    least_stability: float = 0.95
    offset: float = 1.0
    box_iou: float = 0.7


PUBLISHED = GridFilters()


class SamGrid:
    """Proposes everything that a grid of points finds; the vocabulary plays no part."""

    def __init__(self, masker: PointMasker, settings: ProposalSettings, filters: GridFilters = PUBLISHED) -> None:
        self._masker, self._settings, self._filters = masker, settings, filters

    def propose(self, pictures: Sequence[Picture], vocabulary: Vocabulary) -> list[Proposals]:
        """Masks per picture, possibly none, largest first; parts and wholes overlap by design."""
        return [Proposals(self._everything(picture)) for picture in pictures]

    def _everything(self, picture: Picture) -> MaskSet:
        points = point_grid(self._settings.grid, picture.size)
        parts = [self._good(chunk) for chunk in self._masker.point_masks(picture.pixels, points)]
        masks = replace(parts[0].masks, masks=torch.cat([part.masks.masks for part in parts]), origin="sam-grid")
        return self._without_repeats(BoxMasks(masks, torch.cat([part.quality for part in parts])))

    def _good(self, found: BoxMasks) -> BoxMasks:
        """Candidates that the network believes in, that are stable and that are not too small."""
        logits, filters = found.masks.over_picture(), self._filters
        areas = (logits > 0).flatten(1).sum(1)
        good = found.quality > filters.least_quality
        good &= stability(logits, filters.offset) >= filters.least_stability
        good &= areas >= max(1.0, self._settings.min_share * logits.shape[1] * logits.shape[2])
        rows = good.nonzero()[:, 0]
        return BoxMasks(found.masks.select(rows), found.quality[rows])

    def _without_repeats(self, found: BoxMasks) -> MaskSet:
        """Of masks that are alike the best is kept; of those that are left the largest, and in that order."""
        covered = found.masks.over_picture() > 0
        # Half-open boxes, in cells: a mask of one cell has an area.
        boxes = masks_to_boxes(covered) + torch.tensor([0, 0, 1, 1], device=covered.device)
        best_first = nms(boxes, found.quality, self._filters.box_iou)
        rows = best_first[distinct(covered[best_first], self._settings.duplicate_iou)]
        by_size = covered[rows].flatten(1).sum(1).argsort(descending=True, stable=True)
        return found.masks.select(rows[by_size[: self._settings.max_regions]])


def point_grid(per_side: int, size: tuple[int, int]) -> Tensor:
    """Centres of `per_side` x `per_side` cells of a picture of `size` (height, width).

    Returns:
        (P, 2) float32 x, y in pixels, row by row.
    """
    require(per_side > 0, "per_side", "> 0", per_side)
    centres = (torch.arange(per_side) + 0.5) / per_side
    y, x = torch.meshgrid(centres * size[0], centres * size[1], indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def stability(logits: Tensor, offset: float) -> Tensor:
    """Logits (N, h, w) -> (N,) IoU of the masks cut at `offset` and `-offset`; NaN where even the latter is empty."""
    inner = (logits > offset).flatten(1).sum(1)
    outer = (logits > -offset).flatten(1).sum(1)
    return inner / outer

"""A weight-free proposer: graph-based segmentation (Felzenszwalb and Huttenlocher 2004) at several scales.

Every scale gives a partition of the image; all their regions together form a hierarchy of proposals from parts to
large surfaces. It knows nothing of objects, so its masks are modest; it runs on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from skimage.segmentation import felzenszwalb

from retclip.core.images import Picture
from retclip.core.masks import MaskSet
from retclip.core.vocabulary import Vocabulary
from retclip.ports.proposals import Proposals
from retclip.presets import ProposalSettings

# Graph building is linear in pixels and colour edges survive scaling: 320 px keeps the time per photo below a second.
_WORKING_SIDE = 320
_DUPLICATE_IOU = 0.9


class RegionHierarchy:
    """Proposes regions of any photo without weights."""

    def __init__(self, settings: ProposalSettings) -> None:
        self._settings = settings

    def propose(self, pictures: Sequence[Picture], vocabulary: Vocabulary) -> list[Proposals]:
        """Masks per picture, largest region first; the vocabulary plays no part."""
        return [Proposals(self._regions(picture)) for picture in pictures]

    def _regions(self, picture: Picture) -> MaskSet:
        height, width = picture.size
        scale = min(1.0, _WORKING_SIDE / max(height, width))
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(Image.fromarray(picture.pixels).resize(small, Image.Resampling.BOX))
        least = max(1, int(self._settings.min_share * image.shape[0] * image.shape[1]))
        levels = [felzenszwalb(image, scale=value, sigma=0.8, min_size=least) for value in self._settings.scales]
        kept = distinct_regions(levels, self._settings.max_regions)
        masks = np.zeros((len(kept), height, width), dtype=bool)
        for row, (level, label) in enumerate(kept):
            region = Image.fromarray(levels[level] == label).resize((width, height), Image.Resampling.NEAREST)
            masks[row] = np.asarray(region)
        return MaskSet(torch.from_numpy(masks), (height, width), "regions")


def distinct_regions(levels: Sequence[npt.NDArray[np.int64]], most: int) -> list[tuple[int, int]]:
    """(level, label) of the regions of several partitions, largest first, near-duplicates across levels left out.

    Two regions are duplicates when their IoU is above 0.9; all pairs of two partitions are compared through one joint
    histogram, so the cost is linear in pixels.
    """
    areas = [np.bincount(level.ravel()) for level in levels]
    dropped: set[tuple[int, int]] = set()
    for fine in range(len(levels)):
        for coarse in range(fine + 1, len(levels)):
            width = len(areas[coarse])
            joint, counts = np.unique(levels[fine].astype(np.int64) * width + levels[coarse], return_counts=True)
            first, second = joint // width, joint % width
            iou = counts / (areas[fine][first] + areas[coarse][second] - counts)
            dropped.update((fine, int(label)) for label in first[iou > _DUPLICATE_IOU])
    regions = [
        (int(area), index, label)
        for index, level in enumerate(areas)
        for label, area in enumerate(level)
        if area > 0 and (index, label) not in dropped
    ]
    regions.sort(key=lambda region: (-region[0], region[1], region[2]))
    return [(index, label) for _, index, label in regions[:most]]

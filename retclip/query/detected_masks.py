"""The training-free proposer: a detector looks for every asked class, a masker turns its boxes into masks.

The classes that the detector saw are forgotten: retrieval and CLIP name the masks (RetCLIP, training-free setting).
"""

from __future__ import annotations

from collections.abc import Sequence

from retclip.core.images import Picture
from retclip.core.masks import MaskSet
from retclip.core.overlap import distinct
from retclip.core.vocabulary import Vocabulary
from retclip.ports.detection import Detector
from retclip.ports.masking import BoxMasker, BoxMasks
from retclip.ports.proposals import Proposals
from retclip.presets import ProposalSettings


class DetectedMasks:
    """Boxes of all classes above a confidence -> masks -> near-duplicates left out, most confident first."""

    def __init__(self, detector: Detector, masker: BoxMasker, settings: ProposalSettings) -> None:
        self._detector, self._masker, self._settings = detector, masker, settings

    def propose(self, pictures: Sequence[Picture], vocabulary: Vocabulary) -> list[Proposals]:
        """Masks per picture, possibly none; every class is looked for by its first name."""
        pixels = [picture.pixels for picture in pictures]
        found = self._detector.detect(pixels, [vocabulary.names] * len(pixels), self._settings.box_threshold)
        masked = self._masker.masks(pixels, [boxes.boxes for boxes in found])
        return [Proposals(self._pruned(masks)) for masks in masked]

    def _pruned(self, found: BoxMasks) -> MaskSet:
        """Boxes come best first, so the first of several alike masks is the most confident."""
        masks = found.masks
        kept = distinct(masks.for_pooling(), self._settings.duplicate_iou)[: self._settings.max_regions]
        return MaskSet(masks.masks[kept.to(masks.masks.device)], masks.image_size, "gdino-sam", masks.frame)

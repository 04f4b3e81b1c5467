"""FC-CLIP as a proposer: regions with keys, scores, void and validity from one backbone pass."""

from __future__ import annotations

from collections.abc import Sequence

from retclip.core.images import Picture
from retclip.core.masks import MaskSet
from retclip.core.vocabulary import Vocabulary
from retclip.ports.encoders import unit_keys
from retclip.ports.proposals import Proposals
from retclip.segmenters.fcclip.segmenter import FCCLIPSegmenter, ImagePass


class FCCLIPProposer:
    """Every query of the mask decoder is a proposal; its key lies in the space of the `FCCLIPEncoder` beside it."""

    def __init__(self, segmenter: FCCLIPSegmenter) -> None:
        self._segmenter = segmenter

    def propose(self, pictures: Sequence[Picture], vocabulary: Vocabulary) -> list[Proposals]:
        """Regions of every picture, with what its one pass said of them."""
        passes = self._segmenter.passes([picture.pixels for picture in pictures], vocabulary)
        return [proposals_of(found) for found in passes]


def proposals_of(found: ImagePass) -> Proposals:
    """One image's pass as the query pipeline wants it."""
    masks = MaskSet(found.mask_logits, found.frame.output, "fcclip", found.frame)
    return Proposals(masks, unit_keys(found.embeddings), found.in_vocabulary, found.void, found.valid)

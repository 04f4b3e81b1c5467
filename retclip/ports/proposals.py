"""Where class-agnostic regions come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from retclip.core.images import Picture
from retclip.core.masks import MaskSet
from retclip.core.vocabulary import Vocabulary


class MaskProposer(Protocol):
    """Proposes regions of pictures; a proposer without a detector ignores the vocabulary."""

    def propose(self, pictures: Sequence[Picture], vocabulary: Vocabulary) -> list[MaskSet]:
        """One MaskSet per picture, possibly empty."""
        ...

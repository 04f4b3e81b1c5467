"""Where class-agnostic regions come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from retclip.core.errors import require
from retclip.core.images import Picture
from retclip.core.masks import MaskSet
from retclip.core.vocabulary import Vocabulary


@dataclass(frozen=True)
class Proposals:
    """Regions of one picture, and what the pass that found them already knows of them.

    Attributes:
        masks: N regions.
        keys: (N, D) float32 unit vectors of the encoder's feature space; None where the encoder has yet to run.
        in_vocab: (N, C) probabilities of a trained head over the asked classes, None without one.
        void: (N,) probability that a region is nothing, None without a trained head.
        valid: (N,) bool, regions that cover a cell of the feature map; the keys of others must not be looked up.
    """

    masks: MaskSet
    keys: Tensor | None = None
    in_vocab: Tensor | None = None
    void: Tensor | None = None
    valid: Tensor | None = None

    def __post_init__(self) -> None:
        for name, axes in (("keys", 2), ("in_vocab", 2), ("void", 1), ("valid", 1)):
            table = getattr(self, name)
            if table is not None:
                fits = table.ndim == axes and len(table) == len(self.masks)
                require(fits, f"Proposals.{name}", f"{axes} axes, {len(self.masks)} rows", tuple(table.shape))


class MaskProposer(Protocol):
    """Proposes regions of pictures; a proposer without a detector ignores the vocabulary."""

    def propose(self, pictures: Sequence[Picture], vocabulary: Vocabulary) -> list[Proposals]:
        """Regions of every picture, possibly none."""
        ...

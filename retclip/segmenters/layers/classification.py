"""Open-vocabulary classification: cosine with text rows, the best name of each class counts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from retclip.adapters.open_clip.backbones import MAX_LOGIT_SCALE
from retclip.core.errors import require


@dataclass(frozen=True)
class TextRows:
    """Text vectors of a vocabulary.

    Attributes:
        rows: (N, D) unit vectors, one per NAME, the names of a class beside each other.
        names_per_class: how many rows each class owns; sums to N.
    """

    rows: Tensor
    names_per_class: tuple[int, ...]

    def __post_init__(self) -> None:
        require(self.rows.ndim == 2, "TextRows.rows", "(N, D)", tuple(self.rows.shape))
        require(
            bool(self.names_per_class) and min(self.names_per_class) > 0,
            "TextRows.names_per_class",
            "at least one name per class",
            self.names_per_class,
        )
        require(
            sum(self.names_per_class) == len(self.rows),
            "TextRows.names_per_class",
            f"sum {len(self.rows)}",
            sum(self.names_per_class),
        )

    def __len__(self) -> int:
        return len(self.names_per_class)

    def with_void(self, void: Tensor) -> Self:
        """The same vocabulary with a last class, void: (1, D), normalised here."""
        return type(self)(torch.cat([self.rows, F.normalize(void, dim=-1)]), (*self.names_per_class, 1))

    def to(self, device: torch.device) -> Self:
        """The same rows on another device."""
        return type(self)(self.rows.to(device), self.names_per_class)


def class_logits(vectors: Tensor, text: TextRows, log_scale: Tensor) -> Tensor:
    """Scaled cosine of every vector with every name, maximum over the names of a class.

    Args:
        vectors: (..., D), any length.
        text: C classes.
        log_scale: scalar; its exponential is clamped to 100 (CLIP, section 2.5).

    Returns:
        (..., C).
    """
    cosine = F.normalize(vectors, dim=-1) @ text.rows.to(vectors.dtype).T
    logits = log_scale.exp().clamp(max=MAX_LOGIT_SCALE) * cosine
    if max(text.names_per_class) == 1:
        return logits
    return logits[..., _name_table(text.names_per_class, logits.device)].amax(-1)


def _name_table(names_per_class: tuple[int, ...], device: torch.device) -> Tensor:
    """(C, most names) row numbers; classes with fewer names repeat their first, which leaves a maximum as it is."""
    most = max(names_per_class)
    starts = [0, *accumulate(names_per_class)]
    table = [
        [start + (i if i < count else 0) for i in range(most)]
        for start, count in zip(starts[:-1], names_per_class, strict=True)
    ]
    return torch.tensor(table, device=device)

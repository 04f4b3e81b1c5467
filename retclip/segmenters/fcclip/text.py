"""Text rows of vocabularies as FC-CLIP's class files write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from retclip.adapters.open_clip import prompts
from retclip.segmenters.layers.classification import TextRows


def split_names(line: str) -> tuple[str, ...]:
    """`wall, walls,brick wall` -> its names; a comma separates with or without a blank."""
    return tuple(line.replace(", ", ",").split(","))


def encode_names(
    names_of_classes: Sequence[Sequence[str]],
    encode: Callable[[Tensor], Tensor],
    tokenizer: prompts.Tokenizer,
    device: torch.device,
) -> TextRows:
    """Text rows of a vocabulary.

    Args:
        names_of_classes: synonyms per class, each of which becomes a row of its own.
        encode, tokenizer, device: as for `prompts.encode_names`.
    """
    names = [name for names in names_of_classes for name in names]
    rows = prompts.encode_names(names, encode, tokenizer, device)
    return TextRows(rows, tuple(len(names) for names in names_of_classes))

"""From class names to text rows: prompts, tokens, averaging (FC-CLIP, section 3.3; prompts of ViLD)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from retclip.segmenters.layers.classification import TextRows

SIZES = ("small", "medium", "large")
# Only the first of the five unsized prompts ends in a period; trained heads have seen exactly these strings.
PROMPTS: tuple[str, ...] = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(f"a photo of a {size} {{}}." for size in SIZES),
    *(f"This is a photo of a {size} {{}}." for size in SIZES),
    *(f"There is a {size} {{}} in the scene." for size in SIZES),
)
CHUNK = 128  # texts per pass: bounds memory, changes no value
CACHED_NAMES = 20_000  # 80 MB at 1,024 numbers a row

Tokenizer = Callable[[list[str]], Tensor]


def split_names(line: str) -> tuple[str, ...]:
    """`wall, walls,brick wall` -> its names; a comma separates with or without a blank."""
    return tuple(line.replace(", ", ",").split(","))


def prompts(names: Iterable[str]) -> list[str]:
    """All prompts of all names, the prompts of a name beside each other."""
    return [prompt.format(name) for name in names for prompt in PROMPTS]


def average_prompts(features: Tensor) -> Tensor:
    """Raw text features (N * prompts, D), name by name -> (N, D) unit rows: mean of unit vectors, normalised again."""
    units = F.normalize(features, dim=-1).view(-1, len(PROMPTS), features.shape[-1])
    return F.normalize(units.mean(1), dim=-1)


def encode_names(
    names_of_classes: Sequence[Sequence[str]],
    encode: Callable[[Tensor], Tensor],
    tokenizer: Tokenizer,
    device: torch.device,
) -> TextRows:
    """Text rows of a vocabulary.

    Args:
        names_of_classes: synonyms per class, each of which becomes a row of its own.
        encode: token ids (T, 77) -> (T, D) raw text features.
        tokenizer: CLIP's byte-pair encoding, texts -> ids.
        device: where `encode` computes.
    """
    texts = prompts(name for names in names_of_classes for name in names)
    chunks = [encode(tokenizer(texts[i : i + CHUNK]).to(device)) for i in range(0, len(texts), CHUNK)]
    return TextRows(average_prompts(torch.cat(chunks)), tuple(len(names) for names in names_of_classes))


class NameRows:
    """Text rows by class name; the most recently used names are kept.

    Vocabularies, label matching and the text tower's port ask for the same names, and a text tower on a CPU takes
    minutes for a large vocabulary.

    Args:
        encode, tokenizer, device: as for `encode_names`.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor], tokenizer: Tokenizer, device: torch.device) -> None:
        self._encode, self._tokenizer, self._device = encode, tokenizer, device
        self._rows: dict[str, Tensor] = {}

    def rows(self, names: Sequence[str]) -> Tensor:
        """(N, D) unit rows, one per name."""
        known = {name: self._rows.pop(name) for name in dict.fromkeys(names) if name in self._rows}
        new = [name for name in dict.fromkeys(names) if name not in known]
        if new:
            encoded = encode_names([(name,) for name in new], self._encode, self._tokenizer, self._device)
            known |= dict(zip(new, encoded.rows, strict=True))
        self._rows |= known
        for name in list(self._rows)[: max(0, len(self._rows) - CACHED_NAMES)]:
            del self._rows[name]
        return torch.stack([known[name] for name in names])

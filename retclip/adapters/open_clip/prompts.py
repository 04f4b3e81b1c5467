"""From class names to text rows: prompts, tokens, averaging (FC-CLIP, section 3.3; prompts of ViLD)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from open_clip import CLIP
from torch import Tensor

from retclip.adapters.open_clip.text_store import MOST_NAMES, TextStore, text_digest
from retclip.shards import home

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

Tokenizer = Callable[[list[str]], Tensor]
CLIP_TOKENIZER = "clip-bpe"  # tells CLIP's own byte-pair encoding from a folder's tokenizer


def prompts(names: Iterable[str]) -> list[str]:
    """All prompts of all names, the prompts of a name beside each other."""
    return [prompt.format(name) for name in names for prompt in PROMPTS]


def average_prompts(features: Tensor) -> Tensor:
    """Raw text features (N * prompts, D), name by name -> (N, D) unit rows: mean of unit vectors, normalised again."""
    units = F.normalize(features, dim=-1).view(-1, len(PROMPTS), features.shape[-1])
    return F.normalize(units.mean(1), dim=-1)


def encode_names(
    names: Sequence[str], encode: Callable[[Tensor], Tensor], tokenizer: Tokenizer, device: torch.device
) -> Tensor:
    """Unit rows (N, D) of N >= 1 class names.

    Args:
        names: synonyms are names like any other, each a row of its own.
        encode: token ids (T, 77) -> (T, D) raw text features.
        tokenizer: texts -> ids.
        device: where `encode` computes.
    """
    texts = prompts(names)
    chunks = [encode(tokenizer(texts[i : i + CHUNK]).to(device)) for i in range(0, len(texts), CHUNK)]
    return average_prompts(torch.cat(chunks))


def shared_store(clip: CLIP, tokenizer: str = CLIP_TOKENIZER) -> TextStore:
    """Where all processes of a user keep the rows of this text tower: a file in `$RETCLIP_HOME/cache/text`."""
    return TextStore(home() / "cache" / "text" / f"{text_digest(clip, PROMPTS, tokenizer)}.safetensors")


class NameRows:
    """Text rows by class name; the most recently used names are kept, and in a store for the next process.

    Vocabularies, label matching and the text tower's port ask for the same names, and a text tower on a CPU takes
    minutes for a large vocabulary.

    Args:
        encode, tokenizer, device: as for `encode_names`.
        store: rows of this very tower and tokenizer on disk; None keeps none.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], Tensor],
        tokenizer: Tokenizer,
        device: torch.device,
        store: TextStore | None = None,
    ) -> None:
        self._encode, self._tokenizer, self._device = encode, tokenizer, device
        self._store = store
        self._rows: dict[str, Tensor] = {}

    def rows(self, names: Sequence[str]) -> Tensor:
        """(N, D) unit rows, one per name, N >= 1."""
        known = {name: self._rows.pop(name) for name in dict.fromkeys(names) if name in self._rows}
        known |= self._stored([name for name in names if name not in known])
        new = [name for name in dict.fromkeys(names) if name not in known]
        if new:
            encoded = dict(zip(new, encode_names(new, self._encode, self._tokenizer, self._device), strict=True))
            known |= encoded
            if self._store is not None:
                self._store.add({name: row.cpu() for name, row in encoded.items()})
        self._rows |= known
        for name in list(self._rows)[: max(0, len(self._rows) - MOST_NAMES)]:
            del self._rows[name]
        return torch.stack([known[name] for name in names])

    def _stored(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Rows of those names that the store holds; it is read only if any is asked."""
        if self._store is None or not names:
            return {}
        stored = self._store.read()
        return {name: stored[name].to(self._device) for name in names if name in stored}

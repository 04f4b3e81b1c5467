"""A vocabulary of word pieces small enough for a small text tower."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# Grounding DINO knows these by number, those of bert-base-uncased.
_FIXED = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1010: ",", 1012: ".", 1029: "?"}
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def write_word_pieces(path: Path, words: Iterable[str]) -> int:
    """Write `vocab.txt` with whole `words` and all letters, ends of phrases numbered as in BERT's; returns its length.

    Args:
        path: of the file.
        words: in lower case; they get a token each, others are spelled in letters.
    """
    lines = [_FIXED.get(index, f"[unused{index}]") for index in range(max(_FIXED) + 1)]
    lines += [*_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    known = set(lines)
    lines += [word for word in dict.fromkeys(words) if word not in known]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)

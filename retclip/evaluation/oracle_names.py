"""Which oracles there are; read without torch, so that a command line is checked before anything heavy is imported."""

from __future__ import annotations

from retclip.core.errors import InputError

ORACLES = ("masks", "labels", "vocabulary", "selection")


def parse_oracles(text: str | None) -> frozenset[str]:
    """`labels,selection` -> a set of known oracles. Raises InputError E160."""
    chosen = frozenset(word.strip() for word in (text or "").split(",") if word.strip())
    strange = sorted(chosen - set(ORACLES))
    if strange:
        raise InputError(
            "E160", f"Unknown oracle '{strange[0]}'.", why=f"Known are {', '.join(ORACLES)}.", fix="Correct --oracle."
        )
    return chosen

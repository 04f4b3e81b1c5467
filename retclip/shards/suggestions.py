"""Which classes gain most from further exemplars, and of what kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retclip.shards.health import FEW_EXEMPLARS, ClassHealth

FEW_IMAGES = 5
CONFUSED = 0.25  # share of neighbours that carry another label, above which the two classes are told apart badly
UNIFORM = 0.25  # a class is uniform when its spread is below this share of the median class's


@dataclass(frozen=True)
class Suggestion:
    """What to add to a class.

    Attributes:
        name: of the class.
        need: how urgent, comparable between classes; the sum of what each reason lacks, in [0, 4].
        reasons: what was found; `additions`: what to add, in the same order.
    """

    name: str
    need: float
    reasons: tuple[str, ...]
    additions: tuple[str, ...]


def suggest(classes: Sequence[ClassHealth]) -> list[Suggestion]:
    """Suggestions for the classes that lack something, most urgent first."""
    spreads = [item.spread for item in classes if np.isfinite(item.spread)]
    typical = float(np.median(spreads)) if spreads else 0.0
    found = [_suggestion(item, typical) for item in classes]
    return sorted((item for item in found if item.reasons), key=lambda item: (-item.need, item.name))


def _suggestion(item: ClassHealth, typical_spread: float) -> Suggestion:
    wants: list[tuple[float, str, str]] = []
    if item.segments < FEW_EXEMPLARS:
        missing = FEW_EXEMPLARS - item.segments
        wants.append(
            (
                missing / FEW_EXEMPLARS,
                f"only {_count(item.segments, 'exemplar')}",
                f"{_count(missing, 'exemplar')} or more",
            )
        )
    if item.images < FEW_IMAGES and item.segments > item.images:
        wants.append(
            (
                1 - item.images / FEW_IMAGES,
                f"all from {_count(item.images, 'picture')}",
                "exemplars from other pictures",
            )
        )
    for other, share in item.confused_with.items():
        if share > CONFUSED:
            wants.append(
                (share, f"{share:.0%} of its neighbours are '{other}'", f"exemplars that differ from '{other}'")
            )
    if item.segments >= FEW_EXEMPLARS and item.spread < UNIFORM * typical_spread:
        wants.append((1 - item.spread / typical_spread, "its exemplars look alike", "other views, sizes and light"))
    return Suggestion(
        item.name,
        sum(need for need, _, _ in wants),
        tuple(reason for _, reason, _ in wants),
        tuple(addition for _, _, addition in wants),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")

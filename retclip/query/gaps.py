"""What a class list will meet in a database, told before a run: missing, thin, ambiguous and colliding classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

from retclip.core.vocabulary import Category, Vocabulary, normalise_name
from retclip.ports.encoders import TextEncoder
from retclip.query.matching import LabelMap

_PHRASE_ENDS = ".?"


class CountedClass(Protocol):
    """A class of a database with the number of its live segments."""

    @property
    def name(self) -> str:
        """The name shown to people."""
        ...

    @property
    def count(self) -> int:
        """Live segments."""
        ...


@dataclass(frozen=True)
class ClassGap:
    """What one asked class meets.

    Attributes:
        requested: its first name.
        state: `stored`, `few` (fewer exemplars than wished) or `missing`.
        exemplars: live segments of the stored classes that answer for it.
        stored: labels of those classes.
        method, similarity: how they were matched, see `LabelMatch`.
        nearest: stored label whose class text is nearest, with its cosine; only for missing classes and with a text
            tower.
    """

    requested: str
    state: Literal["stored", "few", "missing"]
    exemplars: int
    stored: tuple[str, ...]
    method: str
    similarity: float
    nearest: tuple[str, float] | None = None


@dataclass(frozen=True)
class GapReport:
    """A class list held against a database.

    Attributes:
        classes: one entry per asked class, in the order of the list.
        ambiguous: stored labels that fit several asked classes, with those classes; the first one gets its segments.
        collisions: names that several asked classes share, with those classes.
        punctuated: asked names with a full stop or question mark, which end a phrase for a detector and are left out.
    """

    classes: tuple[ClassGap, ...]
    ambiguous: tuple[tuple[str, tuple[str, ...]], ...]
    collisions: Mapping[str, tuple[str, ...]]
    punctuated: tuple[str, ...]

    def having(self, state: Literal["stored", "few", "missing"]) -> tuple[ClassGap, ...]:
        """Classes in one state."""
        return tuple(gap for gap in self.classes if gap.state == state)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def vocabulary_gaps(
    vocabulary: Vocabulary, stored: Sequence[CountedClass], labels: LabelMap, few: int, text: TextEncoder | None = None
) -> GapReport:
    """Hold a class list against a database.

    Args:
        stored: classes of the database.
        labels: how `match_labels` mapped them.
        few: a class with fewer exemplars is thin.
        text: names the stored label that is nearest to each missing class.
    """
    counts = {item.name: item.count for item in stored}
    nearest = _nearest_labels([m.requested for m in labels.matches if m.method == "none"], stored, text)
    classes = []
    for match in labels.matches:
        exemplars = sum(counts[label] for label in match.stored)
        state: Literal["stored", "few", "missing"] = (
            "missing" if exemplars == 0 else "few" if exemplars < few else "stored"
        )
        entry = (match.requested, state, exemplars, match.stored, match.method, match.similarity)
        classes.append(ClassGap(*entry, nearest.get(match.requested)))
    punctuated = tuple(name for name in vocabulary.names if any(mark in name for mark in _PHRASE_ENDS))
    return GapReport(tuple(classes), labels.ambiguous, vocabulary.shared_names(), punctuated)


def _nearest_labels(
    names: Sequence[str], stored: Sequence[CountedClass], text: TextEncoder | None
) -> dict[str, tuple[str, float]]:
    if text is None or not names or not stored:
        return {}
    best = (text.encode_names(names) @ text.encode_names([item.name for item in stored]).T).max(dim=1)
    labels = [stored[index].name for index in best.indices.tolist()]
    return dict(zip(names, zip(labels, best.values.tolist(), strict=True), strict=True))


def missing_classes(vocabulary: Vocabulary, labels: LabelMap) -> Vocabulary | None:
    """The asked classes that nothing stored answers for; None when there is none."""
    missing = tuple(
        category for category, match in zip(vocabulary, labels.matches, strict=True) if match.method == "none"
    )
    return Vocabulary(vocabulary.name, missing) if missing else None


def with_foreign_names(vocabulary: Vocabulary, labels: LabelMap) -> Vocabulary:
    """Every category with the labels that answer for it elsewhere among its names, so that names alone find them.

    Args:
        vocabulary: the asked classes.
        labels: its mapping to the classes of another database or corpus.
    """
    return Vocabulary(
        vocabulary.name,
        tuple(_widened(category, match.stored) for category, match in zip(vocabulary, labels.matches, strict=True)),
    )


def _widened(category: Category, names: Sequence[str]) -> Category:
    known = {normalise_name(name) for name in category.names}
    return replace(category, names=(*category.names, *(name for name in names if normalise_name(name) not in known)))

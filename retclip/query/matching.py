"""Which stored classes answer for which asked classes (RetCLIP: equal names, else class texts above a cosine)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from retclip.core.errors import EmptyDatabase
from retclip.core.results import LabelMatch
from retclip.core.vocabulary import Category, Vocabulary, normalise_name
from retclip.ports.encoders import TextEncoder
from retclip.ports.neighbors import NeighborIndex, StoredClass


@dataclass(frozen=True)
class LabelMap:
    """The mapping used for one vocabulary and one database version.

    Attributes:
        column: stored class id -> column of the vocabulary; only matched classes are listed.
        matches: one per category, in column order.
        ambiguous: (stored label, candidate categories), where names alone did not decide; the first candidate is used.
    """

    column: dict[int, int]
    matches: tuple[LabelMatch, ...]
    ambiguous: tuple[tuple[str, tuple[str, ...]], ...]


def match_labels(
    vocabulary: Vocabulary, stored: Sequence[StoredClass], text: TextEncoder | None = None, threshold: float = 0.95
) -> LabelMap:
    """Match every stored class to at most one asked category.

    A category with the stored class's own name beats those that share only aliases; then the one sharing most names
    wins; ties go to the one whose first name is shared, then to the lower column, and are reported as ambiguous. Stored
    classes without a shared name are matched by text cosine above `threshold`, when there is a text tower.
    """
    owners: defaultdict[str, list[int]] = defaultdict(list)
    for column, category in enumerate(vocabulary):
        for name in {normalise_name(n) for n in category.names}:
            owners[name].append(column)
    found: dict[int, tuple[int, Literal["name", "synonym", "text"], float]] = {}
    ambiguous = []
    for item in stored:
        ranked = _rank(item, owners, vocabulary)
        if not ranked:
            continue
        best = ranked[0][1]
        if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
            ambiguous.append((item.name, tuple(vocabulary[column].name for _, column in ranked)))
        same = normalise_name(item.name) == normalise_name(vocabulary[best].name)
        found[item.id] = (best, "name" if same else "synonym", 1.0)
    left = [item for item in stored if item.id not in found]
    if text is not None and left:
        found.update(_match_by_text(vocabulary, left, text, threshold))
    columns = {key: value[0] for key, value in found.items()}
    return LabelMap(columns, _matches(vocabulary, stored, found), tuple(ambiguous))


def _rank(
    item: StoredClass, owners: Mapping[str, Sequence[int]], vocabulary: Vocabulary
) -> list[tuple[tuple[bool, int, bool], int]]:
    """((own name not shared, -shared names, first name not shared), column) of every candidate, best first."""
    names = {normalise_name(n) for n in (item.name, *item.aliases)}
    shared = Counter(column for name in names for column in owners.get(name, ()))
    own = owners.get(normalise_name(item.name), ())
    return sorted(
        ((column not in own, -count, normalise_name(vocabulary[column].name) not in names), column)
        for column, count in shared.items()
    )


def _match_by_text(
    vocabulary: Vocabulary, stored: Sequence[StoredClass], text: TextEncoder, threshold: float
) -> dict[int, tuple[int, Literal["text"], float]]:
    owners = [column for column, category in enumerate(vocabulary) for _ in category.names]
    asked = text.encode_names([name for category in vocabulary for name in category.names])
    cosine = text.encode_names([item.name for item in stored]) @ asked.T
    best, index = cosine.max(dim=1)
    return {
        item.id: (owners[int(where)], "text", float(value))
        for item, value, where in zip(stored, best, index, strict=True)
        if float(value) > threshold
    }


def _matches(
    vocabulary: Vocabulary,
    stored: Sequence[StoredClass],
    found: dict[int, tuple[int, Literal["name", "synonym", "text"], float]],
) -> tuple[LabelMatch, ...]:
    order = ("name", "synonym", "text")
    result = []
    for column, category in enumerate(vocabulary):
        answers = [(item.name, found[item.id]) for item in stored if item.id in found and found[item.id][0] == column]
        answers.sort(key=lambda answer: (order.index(answer[1][1]), -answer[1][2], answer[0]))
        if answers:
            result.append(
                LabelMatch(category.name, tuple(name for name, _ in answers), answers[0][1][1], answers[0][1][2])
            )
        else:
            result.append(LabelMatch(category.name, (), "none", 0.0))
    return tuple(result)


def with_stored_kinds(vocabulary: Vocabulary, stored: Sequence[StoredClass], labels: LabelMap) -> Vocabulary:
    """The vocabulary with thing or stuff taken from the stored classes where the class list does not say."""
    kinds = {item.name: item.is_thing for item in stored}
    categories = [
        category if category.kind_stated or not match.stored else replace(category, is_thing=kinds[match.stored[0]])
        for category, match in zip(vocabulary, labels.matches, strict=True)
    ]
    return Vocabulary(vocabulary.name, tuple(categories))


def vocabulary_of(name: str, stored: Sequence[StoredClass]) -> Vocabulary:
    """The vocabulary of everything a database knows; raises ValueError for an empty one."""
    return Vocabulary(name, tuple(Category(item.id, (item.name, *item.aliases), item.is_thing) for item in stored))


def stored_vocabulary(index: NeighborIndex) -> Vocabulary:
    """Every class of a database version, named after it. Raises EmptyDatabase."""
    if not index.classes:
        raise EmptyDatabase(index.name, index.version)
    return vocabulary_of(f"{index.name}@{index.version}", index.classes)

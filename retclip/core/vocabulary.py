"""The classes a user asks for: categories with synonyms, and whether they are things or stuff."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from retclip.core.errors import require


def normalise_name(name: str) -> str:
    """The form in which class names are compared: case, underscores and repeated blanks do not count."""
    return re.sub(r"[\s_]+", " ", name).strip().casefold()


@dataclass(frozen=True)
class Category:
    """One class.

    Attributes:
        id: its number in results.
        names: synonyms, the first is shown.
        is_thing: countable object (True) or stuff.
        kind_stated: False when nobody said which, so that a database that knows the class may decide.
    """

    id: int
    names: tuple[str, ...]
    is_thing: bool = True
    kind_stated: bool = True

    def __post_init__(self) -> None:
        require(self.id >= 0, "Category.id", ">= 0", self.id)
        require(
            bool(self.names) and all(n.strip() for n in self.names), "Category.names", "non-empty names", self.names
        )

    @property
    def name(self) -> str:
        """The name shown to people."""
        return self.names[0]


@dataclass(frozen=True)
class Vocabulary:
    """An ordered list of categories with unique ids and unique first names; column c of a score table is category c."""

    name: str
    categories: tuple[Category, ...]

    def __post_init__(self) -> None:
        ids = [category.id for category in self.categories]
        require(bool(ids), "Vocabulary.categories", "at least one category", 0)
        require(len(set(ids)) == len(ids), "Vocabulary ids", "unique", sorted({i for i in ids if ids.count(i) > 1}))
        firsts = [normalise_name(category.name) for category in self.categories]
        doubled = sorted({n for n in firsts if firsts.count(n) > 1})
        require(not doubled, "Vocabulary names", "unique first names", doubled)

    def __len__(self) -> int:
        return len(self.categories)

    def __iter__(self) -> Iterator[Category]:
        return iter(self.categories)

    def __getitem__(self, column: int) -> Category:
        return self.categories[column]

    @property
    def names(self) -> tuple[str, ...]:
        """First name of every category, in column order."""
        return tuple(category.name for category in self.categories)

    def shared_names(self) -> dict[str, tuple[str, ...]]:
        """Synonyms that belong to more than one category: normalised name -> first names of those categories."""
        owners: defaultdict[str, list[str]] = defaultdict(list)
        for category in self.categories:
            for name in {normalise_name(n) for n in category.names}:
                owners[name].append(category.name)
        return {name: tuple(firsts) for name, firsts in owners.items() if len(firsts) > 1}

    @classmethod
    def from_names(cls, name: str, names: Iterable[str]) -> Vocabulary:
        """A vocabulary of things with one name each, ids counted from 0."""
        return cls(name, tuple(Category(index, (text,)) for index, text in enumerate(names)))


def seen_classes(vocabulary: Vocabulary, training_names: Iterable[str]) -> list[bool]:
    """Per class, whether one of its names is, letter by letter, one that a head was trained with (FC-CLIP's rule)."""
    known = frozenset(training_names)
    return [not known.isdisjoint(category.names) for category in vocabulary]

"""Classes of several databases under common names: the first class to have a name keeps it."""

from __future__ import annotations

from collections.abc import Iterable

from retclip.core.vocabulary import normalise_name
from retclip.shards.classes import StoredClass


class ClassUnion:
    """Finds the class that takes a class of another database, by the names that they share."""

    def __init__(self, classes: Iterable[StoredClass] = ()) -> None:
        self._by_name: dict[str, StoredClass] = {}
        for item in classes:
            self.add(item)

    def add(self, item: StoredClass) -> None:
        """Let a class have those of its names that are free."""
        self.join(item, item)

    def join(self, item: StoredClass, home: StoredClass) -> list[str]:
        """Let the names of `item` that are free lead to `home`, and return them."""
        names = (item.name, *item.aliases)
        free = {key: name for name in names if (key := normalise_name(name)) not in self._by_name}
        self._by_name.update(dict.fromkeys(free, home))
        return list(free.values())

    def homes(self, item: StoredClass) -> list[StoredClass]:
        """Classes that share a name with `item`; the one that has its first name comes first."""
        return list({id(home): home for name in _names(item) if (home := self._by_name.get(name))}.values())


def _names(item: StoredClass) -> list[str]:
    return [normalise_name(name) for name in (item.name, *item.aliases)]

"""The class table of a version: names, aliases, and which stored class counts as which."""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from retclip.core.errors import DatabaseError, require
from retclip.core.vocabulary import normalise_name

MAX_CLASSES = 1 << 31  # rows keep the id of their class in 32 bits, signed


@dataclass(frozen=True)
class StoredClass:
    """A live class as users see it: `count` live segments; `aliases` are other names that lead to it."""

    id: int
    name: str
    aliases: tuple[str, ...]
    is_thing: bool
    count: int


@dataclass(frozen=True)
class ClassEntry:
    """A class as the manifest keeps it; `into` is the class that took a merged one, else -1."""

    id: int
    name: str
    aliases: tuple[str, ...] = ()
    state: Literal["live", "merged", "deleted"] = "live"
    into: int = -1

    def to_json(self, count: int, things: int) -> dict[str, Any]:
        """Plain JSON with the live counts of this version."""
        return {
            "id": self.id,
            "name": self.name,
            "aliases": list(self.aliases),
            "state": self.state,
            "into": None if self.into < 0 else self.into,
            "count": count,
            "things": things,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ClassEntry:
        """Inverse of `to_json`, without the counts."""
        into = -1 if data["into"] is None else int(data["into"])
        require(data["state"] in ("live", "merged", "deleted"), "class state", "live, merged or deleted", data["state"])
        require((data["state"] == "merged") == (into >= 0), "class into", "given exactly for merged classes", into)
        return cls(int(data["id"]), str(data["name"]), tuple(map(str, data["aliases"])), data["state"], into)


class ClassTable:
    """Finds classes by name and follows merges. A transaction changes its own copy."""

    def __init__(self, entries: Iterable[ClassEntry], next_id: int) -> None:
        self._entries = {entry.id: entry for entry in entries}
        self.next_id = next_id
        require(next_id <= MAX_CLASSES, "next_class_id", f"<= {MAX_CLASSES}", next_id)
        for entry in self._entries.values():
            require(0 <= entry.id < next_id, "class id", f"0 to next_class_id {next_id}, exclusive", entry.id)
            require(entry.into < 0 or entry.into in self._entries, "class into", "an existing class", entry.into)
        for entry in self._entries.values():
            self.effective(entry.id)  # ends, for there is no circle
        self._ids = {
            normalise_name(name): entry.id
            for entry in self._entries.values()
            if entry.state == "live"
            for name in (*reversed(entry.aliases), entry.name)
        }

    def __iter__(self) -> Iterator[ClassEntry]:
        return iter(self._entries.values())

    def copy(self) -> ClassTable:
        """An independent table with the same content."""
        return ClassTable(self._entries.values(), self.next_id)

    def effective(self, class_id: int) -> int:
        """The live class that rows written as `class_id` belong to, -1 when it was deleted.

        Raises:
            DatabaseError: E303 for a class that a shard has rows of, and the table does not.
        """
        if class_id not in self._entries:
            raise DatabaseError(
                "E303",
                f"The database is damaged: a shard has rows of class {class_id}, which its manifest does not name.",
                fix="Open another version, or restore the manifest from a backup.",
            )
        entry = self._entries[class_id]
        steps = 0
        while entry.state == "merged":
            entry = self._entries[entry.into]
            steps += 1
            require(steps <= len(self._entries), "class into", "no circle", class_id)
        return entry.id if entry.state == "live" else -1

    def __getitem__(self, class_id: int) -> ClassEntry:
        return self._entries[class_id]

    def is_live(self, class_id: int) -> bool:
        """Whether `class_id` names a class that is neither merged nor deleted."""
        return class_id in self._entries and self._entries[class_id].state == "live"

    def knows(self, label: str) -> bool:
        """Whether a live class has this name or alias."""
        return normalise_name(label) in self._ids

    def find(self, label: str) -> int:
        """Class id of a name or an alias.

        Raises:
            DatabaseError: E309 when no live class has that name.
        """
        found = self._ids.get(normalise_name(label))
        if found is None:
            near = difflib.get_close_matches(normalise_name(label), list(self._ids), n=3)
            raise DatabaseError(
                "E309",
                f"The database has no class '{label}'.",
                why=f"It has {sum(e.state == 'live' for e in self)} classes"
                + (f"; near: {', '.join(near)}." if near else "."),
                fix="List the classes with: retclip db classes NAME",
            )
        return found

    def find_or_add(self, label: str) -> int:
        """Class id of a name or an alias; a new class when there is none."""
        key = normalise_name(label)
        if key not in self._ids:
            self._entries[self.next_id] = ClassEntry(self.next_id, label)
            self._ids[key] = self.next_id
            self.next_id += 1
        return self._ids[key]

    def find_or_add_all(self, labels: Sequence[str]) -> list[int]:
        """`find_or_add` of each label, in their order; most segments of a batch share few labels."""
        found = {label: self.find_or_add(label) for label in dict.fromkeys(labels)}
        return [found[label] for label in labels]

    def delete(self, class_id: int) -> None:
        """Make a class and every class merged into it dead; its names become free."""
        entry = self._entries[class_id]
        self._entries[entry.id] = replace(entry, state="deleted")
        for key in map(normalise_name, {entry.name, *entry.aliases}):
            if self._ids.get(key) == entry.id:
                del self._ids[key]

    def destination(self, label: str, leaving: Container[int]) -> int:
        """Class id for rows that leave the classes `leaving` for `label`: a new class when there is none.

        An alias of a class that they leave, as after a merge, becomes a class of its own.
        """
        entry, key = self._entries[self.find_or_add(label)], normalise_name(label)
        if entry.id not in leaving or key == normalise_name(entry.name):
            return entry.id
        left = tuple(name for name in entry.aliases if normalise_name(name) != key)
        self._entries[entry.id] = replace(entry, aliases=left)
        del self._ids[key]
        return self.find_or_add(label)

    def relabel(self, old: str, new: str) -> bool:
        """Rename a class, or merge it into the class that already has the name; the old names stay as aliases.

        True if anything changed.
        """
        require(bool(new.strip()), "new label", "a non-empty name", repr(new))
        source = self._entries[self.find(old)]
        target = self._entries.get(self._ids.get(normalise_name(new), source.id), source)
        if target.id == source.id:
            self._set_names(source, new, (source.name, *source.aliases))
            return self._entries[source.id] != source
        self._entries[source.id] = replace(source, state="merged", into=target.id)
        self._set_names(target, target.name, (*target.aliases, source.name, *source.aliases))
        return True

    def declare(self, label: str, aliases: Iterable[str]) -> bool:
        """Give a class further names; names that lead to another class stay with it. True if anything changed."""
        entry = self._entries[self.find(label)]
        free = [name for name in aliases if self._ids.get(normalise_name(name), entry.id) == entry.id]
        self._set_names(entry, entry.name, (*entry.aliases, *free))
        return self._entries[entry.id] != entry

    def _set_names(self, entry: ClassEntry, name: str, others: Iterable[str]) -> None:
        aliases: dict[str, str] = {}
        for other in others:
            aliases.setdefault(normalise_name(other), other)
        aliases.pop(normalise_name(name), None)
        self._entries[entry.id] = replace(entry, name=name, aliases=tuple(aliases.values()))
        self._ids.update(dict.fromkeys([normalise_name(name), *aliases], entry.id))

"""Any sequence of changes, compactions, collections and restores equals a plain dictionary."""

import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from retclip.core.errors import DatabaseError
from retclip.shards import Database, verify
from retclip.shards.manifest import versions
from retclip.shards.retention import collect

LABELS = ["cat", "dog", "tree"]
NUMBERS = st.lists(st.integers(0, 15), min_size=1, max_size=6)


class Model(RuleBasedStateMachine):
    """The database against a dictionary: segment id -> label, and the same for every version that is kept.

    `before` follows the changes of content, as undo does; `names` says under which class an old label counts;
    `seen` counts what happened in all runs, because rules that never meet rows would show nothing.
    """

    seen: ClassVar[Counter[str]] = Counter()

    @initialize()
    def create(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "model.retdb"
        self.database = Database.create(self.path, self.make.space(), {})
        self.model, self.names = {}, {label: label for label in LABELS}
        self.past = {1: (self.model, self.names)}
        self.before = {1: None}
        for number, label in enumerate(LABELS):
            self.add(range(4 * number, 4 * number + 4), label)

    def write(self, change):
        with self.database.write("step", "model", shard_rows=3) as transaction:
            count = change(transaction)
            result = transaction.commit()
        if result.version != self.database.version:
            self.before[result.version] = self.database.version
        self.database = result
        self.past[result.version] = (self.model, self.names)
        return count

    def identity(self, number):
        return self.make.segment(number, "x").segment_id

    @rule(numbers=NUMBERS, label=st.sampled_from(LABELS))
    def add(self, numbers, label):
        segments = [self.make.segment(n, label) for n in numbers]
        vectors = np.array([[1.0, n + 1, 0, 0, 0, 0, 0, 0] for n in numbers]).reshape(-1, 8)
        fresh = {s.segment_id: self.names[label] for s in segments if s.segment_id not in self.model}
        self.model = self.model | fresh
        assert self.write(lambda t: t.add(segments, vectors)) == len(fresh)

    @rule(numbers=NUMBERS, tidy=st.booleans())
    def delete(self, numbers, tidy):
        ids = {self.identity(n) for n in numbers}
        gone = ids & set(self.model)
        self.model = {i: label for i, label in self.model.items() if i not in gone}

        def change(transaction):
            count = transaction.delete(segment_ids=ids)
            if tidy and count:
                transaction.compact()
            return count

        assert self.write(change) == len(gone)

    @rule(label=st.sampled_from(LABELS))
    def delete_class(self, label):
        name = self.names[label]
        if name in self.model.values():
            gone = sum(v == name for v in self.model.values())
            self.model = {i: v for i, v in self.model.items() if v != name}
            self.names = {one: one if two == name else two for one, two in self.names.items()}
            assert self.write(lambda t: t.delete(labels=[label])) == gone

    @rule(numbers=NUMBERS, label=st.sampled_from(LABELS))
    def relabel(self, numbers, label):
        """A name that was merged away becomes a class again when segments leave the class it leads to."""
        ids = {i for i in map(self.identity, numbers) if i in self.model}
        name = label if self.names[label] in map(self.model.get, ids) else self.names[label]
        self.names = self.names | {label: name}
        moved = {i for i in ids if self.model[i] != name}
        self.model = self.model | dict.fromkeys(moved, name)
        assert self.write(lambda t: t.relabel_segments(map(self.identity, numbers), label)) == len(moved)

    @rule(old=st.sampled_from(LABELS), new=st.sampled_from(LABELS))
    def merge(self, old, new):
        """Every class has a segment here, so that both names are known to the database."""
        one, two = self.names[old], self.names[new]
        if {one, two} <= set(self.model.values()) and one != two:
            count = sum(v == one for v in self.model.values())
            self.model = {i: two if v == one else v for i, v in self.model.items()}
            self.names = {label: two if name == one else name for label, name in self.names.items()}
            assert self.write(lambda t: t.relabel(old, new)) == count
            self.seen["merged"] += 1

    @rule(everything=st.sampled_from([True, True, True, False]))
    def compact(self, everything):
        content = self.database.content_hash()
        dead = sum(entry.rows for entry in self.database.manifest.shards) - len(self.model)
        shards = [entry.id for entry in self.database.manifest.shards] if everything else None
        with self.database.write("compact", "model", shard_rows=5) as transaction:
            self.seen["rewritten dead rows"] += bool(transaction.compact(shards) and dead)
            result = transaction.commit()
        if result.version != self.database.version:
            self.before[result.version] = self.before[self.database.version]
            self.past[result.version] = (self.model, self.names)
        self.database = result
        assert result.content_hash() == content
        if everything:
            assert sum(entry.rows for entry in result.manifest.shards) == len(self.model)
            assert all(entry.deletes is None for entry in result.manifest.shards)

    @rule(keep=st.integers(1, 4))
    def collect(self, keep):
        kept = versions(self.path)[-keep:]
        found = collect(self.path, keep)
        self.seen["collected"] += bool(found.versions)
        assert found.in_use == ()
        assert versions(self.path) == kept
        self.past = {version: content for version, content in self.past.items() if version in kept}

    @rule(data=st.data())
    def restore(self, data):
        version = data.draw(st.sampled_from(sorted(self.past)))
        self.bring_back(version, self.database.restore(version))

    @rule()
    def undo(self):
        before = self.before[self.database.version]
        if before in self.past:
            self.bring_back(before, self.database.undo())
            self.seen["undone"] += 1
        else:
            with pytest.raises(DatabaseError, match="E306"):
                self.database.undo()

    def bring_back(self, version, restored):
        self.before[restored.version] = self.database.version
        self.database = restored
        self.model, self.names = self.past[restored.version] = self.past[version]

    @rule()
    def reopen(self):
        self.database = Database.open(self.path)

    @precondition(lambda self: len(self.past) > 1)
    @rule(data=st.data())
    def open_an_old_version(self, data):
        version = data.draw(st.sampled_from(sorted(self.past)))
        old = Database.open(self.path, version)
        assert {s.segment_id: s.label for _, _, s in old.iter_segments()} == self.past[version][0]

    @invariant()
    def agrees(self):
        database = self.database
        assert {s.segment_id: s.label for _, _, s in database.iter_segments()} == self.model
        assert {c.name: c.count for c in database.classes} == {
            label: list(self.model.values()).count(label) for label in set(self.model.values())
        }
        found = database.search(np.ones((1, 8), np.float32), 16)
        assert sorted(found.segment_id[0][found.row[0] >= 0].tolist()) == sorted(self.model)
        report = verify(self.path, deep=True)
        assert report.ok, report.problems

    def teardown(self):
        self.folder.cleanup()


def test_model(make, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # nothing crashes here, and flushing is what takes time
    Model.make = make
    case = Model.TestCase
    case.settings = settings(max_examples=24, stateful_step_count=15, deadline=None)
    Model.seen.clear()
    case().runTest()
    assert all(Model.seen[what] >= 2 for what in ("rewritten dead rows", "collected", "merged", "undone")), Model.seen

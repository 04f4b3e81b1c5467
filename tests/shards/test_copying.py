"""Copies hold what was asked for and no more; merges unite classes by name and tell contradictions."""

from dataclasses import replace

import numpy as np
import pytest

from retclip.core.errors import DatabaseError, FeatureSpaceMismatch
from retclip.shards import Database, verify
from retclip.shards.class_union import ClassUnion
from retclip.shards.classes import StoredClass
from retclip.shards.copying import copy_database, merge_databases


def test_a_copy_holds_what_its_source_holds_and_no_history(database, tmp_path):
    with database.write("delete", "tests") as transaction:
        transaction.delete(source="beta")
        transaction.relabel("class 0", "zero")
        transaction.set_transform("whiten")
        transaction.record_models([{"role": "encoder", "name": "m", "license": "MIT", "sha256": "0" * 64}])
        database = transaction.commit()
    first = next(database.iter_segments())[2].segment_id
    database.store_thumbnails({first: b"jpeg"})
    copy = copy_database(database, tmp_path / "copy.retdb", [], "tests")
    assert copy.content_hash() == database.content_hash()
    assert (copy.space, copy.preset, copy.transform) == (database.space, database.preset, "whiten")
    assert copy.models == database.models
    assert [(c.name, c.aliases) for c in copy.classes] == [(c.name, c.aliases) for c in database.classes]
    assert copy.thumbnail(first) == b"jpeg"
    assert sum(entry.rows for entry in copy.manifest.shards) == len(database) == 45
    assert [entry.operation for entry in copy.history()] == ["create", "copy"]
    assert verify(copy.path, deep=True).ok
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.retdb", "tiny.retdb"]


def test_some_classes_can_be_copied_by_any_of_their_names(database, tmp_path):
    with database.write("name", "tests") as transaction:
        transaction.declare("class 1", ["one"])
        database = transaction.commit()
    copy = copy_database(database, tmp_path / "copy.retdb", ["One", "class 3"], "tests")
    assert {c.name: c.count for c in copy.classes} == {"class 1": 12, "class 3": 12}
    with pytest.raises(DatabaseError, match="E309"):
        copy_database(database, tmp_path / "other.retdb", ["zebra"], "tests")
    assert not (tmp_path / "other.retdb").exists()


def test_a_copy_never_replaces_anything_and_leaves_nothing_when_it_fails(database, tmp_path, monkeypatch):
    with pytest.raises(DatabaseError, match="E307"):
        copy_database(database, database.path, [], "tests")
    from retclip.shards import copying

    def fail(*arguments):
        raise RuntimeError("the user's program fails")

    monkeypatch.setattr(copying, "copy_segments", fail)
    with pytest.raises(RuntimeError):
        copy_database(database, tmp_path / "copy.retdb", [], "tests")
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.retdb"]


def halves(make, tmp_path):
    segments, vectors = make.rows(40)
    return segments, vectors, tmp_path / "a.retdb", tmp_path / "b.retdb"


def test_a_merge_of_two_halves_is_the_whole(make, tmp_path):
    segments, vectors, a, b = halves(make, tmp_path)
    whole = make.build(tmp_path / "whole.retdb", segments, vectors)
    first, second = make.build(a, segments[:25], vectors[:25]), make.build(b, segments[15:], vectors[15:])
    merged = merge_databases(first, second, tmp_path / "c.retdb", "tests")
    assert merged.database.content_hash() == whole.content_hash()
    assert merged.known == 10
    assert verify(merged.database.path, deep=True).ok


def test_classes_unite_by_names_and_contradictions_are_told(make, tmp_path):
    segments, vectors, a, b = halves(make, tmp_path)
    names = {"class 0": "couch", "class 1": "dog"}
    first = make.build(a, [replace(s, label=names.get(s.label, s.label)) for s in segments[:20]], vectors[:20])
    with first.write("name", "tests") as transaction:
        transaction.declare("couch", ["settee"])
        transaction.set_transform("centre")
        first = transaction.commit()
    other = {"class 0": "sofa", "class 1": "cat"}
    rows = [replace(s, label=other.get(s.label, s.label), is_thing=True) for s in segments[15:]]
    second = make.build(b, rows, vectors[15:])
    with second.write("name", "tests") as transaction:
        transaction.declare("sofa", ["Settee", "divan"])
        second = transaction.commit()
    merged = merge_databases(first, second, tmp_path / "c.retdb", "tests")
    table = {c.name: c for c in merged.database.classes}
    assert set(table) == {"couch", "dog", "cat", "class 2", "class 3", "class 4"}
    assert table["couch"].count == 8
    assert {"settee", "sofa", "divan"} <= set(table["couch"].aliases)
    assert (table["dog"].count, table["cat"].count) == (4, 4)  # one picture of a cat was known as a dog before
    assert merged.known == 5
    told = "\n".join(merged.conflicts)
    assert "1 segments are 'dog' in a, 'cat' in b" in told
    assert "key transform: 'centre' is taken, b has 'none'" in told
    assert merged.database.transform == "centre"


def test_a_class_whose_segments_are_all_known_under_another_name_is_no_class_of_the_merge(make, tmp_path):
    segments, vectors, a, b = halves(make, tmp_path)
    first = make.build(a, segments, vectors)
    second = make.build(b, [replace(s, label="cat" if s.label == "class 1" else s.label) for s in segments], vectors)
    merged = merge_databases(first, second, tmp_path / "c.retdb", "tests")
    assert merged.database.content_hash() == first.content_hash()
    assert (merged.known, merged.conflicts) == (40, ("8 segments are 'class 1' in a, 'cat' in b",))


def test_other_encoders_are_refused(make, tmp_path, database):
    stranger = Database.create(tmp_path / "s.retdb", make.space(4), {})
    with pytest.raises(FeatureSpaceMismatch):
        merge_databases(database, stranger, tmp_path / "c.retdb", "tests")
    assert not (tmp_path / "c.retdb").exists()


def stored(class_id, name, *aliases, thing=True):
    return StoredClass(class_id, name, aliases, thing, 1)


def test_the_first_class_to_have_a_name_keeps_it():
    union = ClassUnion([stored(0, "sofa", "couch"), stored(1, "settee", "couch")])
    assert [home.id for home in union.homes(stored(9, "Couch"))] == [0]
    assert [home.id for home in union.homes(stored(9, "divan", "settee", "sofa"))] == [1, 0]
    assert union.homes(stored(9, "divan")) == []
    newcomer = stored(2, "divan", "sofa")
    union.join(newcomer, union.homes(newcomer)[0])
    assert [home.id for home in union.homes(stored(9, "divan"))] == [0]


def test_large_classes_travel_in_pieces(make, tmp_path, monkeypatch):
    monkeypatch.setattr("retclip.shards.copying._BATCH", 4)
    segments, vectors = make.rows(30, classes=2)
    database = make.build(tmp_path / "a.retdb", segments, vectors, shard_rows=7)
    copy = copy_database(database, tmp_path / "b.retdb", [], "tests")
    assert copy.content_hash() == database.content_hash()
    np.testing.assert_array_equal(copy.search(vectors, 5).segment_id, database.search(vectors, 5).segment_id)


def test_thumbnails_of_known_segments_are_those_of_the_first(make, tmp_path):
    segments, vectors, a, b = halves(make, tmp_path)
    first, second = make.build(a, segments[:3], vectors[:3]), make.build(b, segments[1:5], vectors[1:5])
    first.store_thumbnails({segments[1].segment_id: b"first"})
    second.store_thumbnails({s.segment_id: b"second" for s in segments})
    merged = merge_databases(first, second, tmp_path / "c.retdb", "tests").database
    assert [merged.thumbnail(s.segment_id) for s in segments[:5]] == [None, b"first", b"second", b"second", b"second"]

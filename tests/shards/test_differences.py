"""What two versions or databases do not share is told by class, and nothing else."""

from dataclasses import replace

import pytest

from retclip.core.errors import FeatureSpaceMismatch
from retclip.shards import Database
from retclip.shards.differences import compare


def changed(database, change):
    with database.write("change", "tests") as transaction:
        change(transaction)
        return transaction.commit()


def test_equal_versions_have_no_difference(database):
    found = compare(database, database)
    assert (found.added, found.removed, found.relabelled, found.changed) == ({}, {}, {}, 0)
    assert (found.classes_added, found.classes_removed, found.same_content) == ((), (), True)


def test_added_removed_and_relabelled_segments_are_counted_by_class(database, rows, make):
    segments, vectors = rows
    ids = [s.segment_id for s in segments]

    def change(transaction):
        transaction.add([make.segment(900, "new"), make.segment(901, "class 0")], vectors[:2])
        transaction.delete(segment_ids=ids[2:4])
        transaction.relabel_segments([ids[5], ids[10], ids[11]], "pier")

    after = changed(database, change)
    found = compare(database, after)
    assert found.added == {"class 0": 1, "new": 1}
    assert found.removed == {"class 2": 1, "class 3": 1}
    assert found.relabelled == {("class 0", "pier"): 2, ("class 1", "pier"): 1}
    assert found.changed == 0
    assert (found.classes_added, found.classes_removed) == (("new", "pier"), ())
    assert not found.same_content
    back = compare(after, database)
    assert (back.added, back.removed) == (found.removed, found.added)
    assert back.relabelled == {("pier", "class 0"): 2, ("pier", "class 1"): 1}


def test_a_renamed_class_is_relabelled_and_a_deleted_one_removed(database):
    def change(transaction):
        transaction.relabel("class 1", "one")
        transaction.delete(labels=["class 2"])

    found = compare(database, changed(database, change))
    assert found.relabelled == {("class 1", "one"): 12}
    assert found.removed == {"class 2": 12}
    assert (found.classes_added, found.classes_removed) == (("one",), ("class 1", "class 2"))


def test_compaction_and_copies_make_no_difference(database, make, tmp_path, rows):
    after = changed(database, lambda t: t.compact([entry.id for entry in database.manifest.shards]))
    found = compare(database, after)
    assert (found.same_content, found.changed, found.added, found.removed) == (True, 0, {}, {})
    twin = make.build(tmp_path / "twin.retdb", rows[0][::-1], rows[1][::-1])
    assert compare(database, twin).same_content


def test_segments_of_one_id_that_differ_are_counted(make, tmp_path, rows):
    segments, vectors = rows
    other = vectors.copy()
    other[7, 2] += 0.5
    moved = [replace(s, box=(0.0, 0.0, 1.0, 1.0)) if n == 9 else s for n, s in enumerate(segments)]
    one, two = make.build(tmp_path / "one.retdb", *rows), make.build(tmp_path / "two.retdb", moved, other, 13)
    assert compare(one, two).changed == 2
    assert not compare(one, two).same_content


def test_empty_databases_and_other_encoders(database, make, tmp_path):
    empty = Database.open(database.path, 1)
    assert sum(compare(empty, database).added.values()) == sum(compare(database, empty).removed.values()) == 60
    with pytest.raises(FeatureSpaceMismatch):
        compare(database, Database.create(tmp_path / "s.retdb", make.space(4), {}))


def test_another_spelling_of_a_name_is_no_difference(database):
    found = compare(database, changed(database, lambda t: t.relabel("class 0", "Class_0")))
    assert (found.relabelled, found.classes_added, found.classes_removed, found.same_content) == ({}, (), (), True)

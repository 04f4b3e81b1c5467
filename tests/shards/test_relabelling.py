"""Classes get other names, are merged and taken apart; rows move between them."""

from dataclasses import replace

import numpy as np

from retclip.shards import verify


def test_rename_and_merge_keep_aliases(database, rows, make):
    with database.write("relabel", "tests") as transaction:
        assert transaction.relabel("class 0", "sofa") == 12
        assert transaction.relabel("class 1", "couch") == 12
        assert transaction.relabel("couch", "sofa") == 12
        after = transaction.commit()
    sofa = next(c for c in after.classes if c.name == "sofa")
    assert (sofa.aliases, sofa.count) == (("class 0", "couch", "class 1"), 24)
    with after.write("add", "tests") as transaction:
        transaction.add([make.segment(500, "Couch")], np.ones((1, 8), np.float32))
        later = transaction.commit()
    assert next(c for c in later.classes if c.name == "sofa").count == 25
    assert (later.search(rows[1], 25, classes=[sofa.id]).class_id == sofa.id).all()
    assert {s.label for _, _, s in later.iter_segments([sofa.id])} == {"sofa"}


def test_declared_aliases_make_a_version_of_their_own(database):
    with database.write("alias", "tests") as transaction:
        transaction.declare("class 0", ["null"])
        after = transaction.commit()
    assert (after.version, after.classes[0].aliases) == (3, ("null",))
    assert after.content_hash() == database.content_hash()
    with after.write("alias", "tests") as transaction:
        transaction.declare("class 0", ["NULL"])
        assert transaction.commit().version == 3


def test_relabelling_rows_keeps_raw_label_and_vector(database, rows):
    segments, vectors = rows
    chosen = segments[7]
    with database.write("relabel", "tests") as transaction:
        assert transaction.relabel_segments([chosen.segment_id, 1], "pier") == 1
        assert transaction.relabel_segments([chosen.segment_id], "pier") == 0
        assert transaction.add([chosen], vectors[7:8]) == 0
        after = transaction.commit()
    assert len(after) == 60
    found = next((s, r, x) for s, r, x in after.iter_segments() if x.segment_id == chosen.segment_id)
    assert found[2] == replace(chosen, label="pier")
    hit = after.search(vectors[7:8], 1)
    assert hit.segment_id[0, 0] == chosen.segment_id
    assert hit.distance[0, 0] < 1e-6
    assert verify(after.path, deep=True).ok


def test_rows_may_leave_a_class_under_a_name_that_was_merged_into_it(database, rows):
    segments = rows[0]
    with database.write("relabel", "tests") as transaction:
        transaction.relabel("class 1", "class 2")
        merged = transaction.commit()
    with merged.write("relabel", "tests") as transaction:
        assert transaction.relabel_segments([segments[0].segment_id], "class 1") == 1
        assert transaction.relabel_segments([segments[1].segment_id], "class 1") == 1
        after = transaction.commit()
    assert after.live_labels([segments[1].segment_id]) == {segments[1].segment_id: "class 1"}
    found = {c.name: (c.aliases, c.count) for c in after.classes}
    assert (found["class 1"], found["class 2"]) == (((), 1), ((), 24))
    assert verify(after.path, deep=True).ok


def test_a_class_that_gets_its_own_name_makes_no_version(database):
    with database.write("relabel", "tests") as transaction:
        assert transaction.relabel("class 0", "class 0") == 0
        assert transaction.commit().version == database.version

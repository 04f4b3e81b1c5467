"""Positions of a scope."""

import numpy as np

from retclip.shards.search.scope import Scope


def expected_rows(snapshot, classes):
    return [(c, s, r) for c in classes for s, rows in snapshot.class_rows(c) for r in rows.tolist()]


def test_positions_count_through_live_rows_by_class(database, rows):
    segments, _ = rows
    with database.write("delete", "tests") as transaction:
        transaction.delete(segment_ids={s.segment_id for s in segments[::3]})
        after = transaction.commit()
    classes = (0, 2, 3)
    scope = Scope.of(after.snapshot, classes)
    expected = expected_rows(after.snapshot, classes)
    assert len(scope) == len(expected) > 10
    positions = np.arange(len(scope))[::-1].copy()
    found = scope.located(positions)
    assert list(zip(found.class_id.tolist(), found.shard.tolist(), found.row.tolist(), strict=True)) == expected[::-1]
    assert scope.classes_at(positions).tolist() == found.class_id.tolist()
    for place in range(len(positions)):
        reader = after.snapshot.shards[int(found.shard[place])].reader
        assert found.segment_id[place] == reader.row_ids[found.row[place]]
        assert np.array_equal(scope.vectors_at(positions)[place], reader.vectors[found.row[place]])


def test_rows_find_their_positions_back_and_others_do_not(database, rows):
    segments, _ = rows
    with database.write("delete", "tests") as transaction:
        transaction.delete(segment_ids={s.segment_id for s in segments[::3]})
        after = transaction.commit()
    scope = Scope.of(after.snapshot, (1, 4))
    inside = {(s, r): p for p, (_, s, r) in enumerate(expected_rows(after.snapshot, (1, 4)))}
    for shard, part in enumerate(after.snapshot.shards):
        every = np.arange(part.reader.rows)
        assert scope.positions_of(shard, every).tolist() == [inside.get((shard, r), -1) for r in every.tolist()]
    assert scope.positions_of(0, np.array([-1])).tolist() == [-1]


def test_no_classes(database):
    scope = Scope.of(database.snapshot, ())
    assert len(scope) == 0
    assert scope.positions_of(0, np.arange(3)).tolist() == [-1, -1, -1]
    assert scope.vectors_at(np.zeros(0, np.int64)).shape == (0, 8)

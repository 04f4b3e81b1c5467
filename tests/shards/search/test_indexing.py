"""What building indexes tells."""

import numpy as np

from retclip.shards.search import Indexed, indexing, write_indexes


def test_recall_is_told_for_asked_and_for_other_classes(indexed):
    inside, outside = write_indexes(indexed, "centre").recall
    assert 0.98 < inside <= 1
    assert 0.98 < outside <= 1


def test_one_class_has_no_others(make, tmp_path):
    segments, vectors = make.rows(30, classes=1)
    database = make.build(tmp_path / "one.retdb", segments, vectors)
    assert write_indexes(database, "none") == Indexed(1, (1.0, None), kept=True)


def test_an_empty_database_needs_no_index(make, tmp_path):
    database = make.build(tmp_path / "none.retdb", [], np.zeros((0, 8), np.float32))
    assert write_indexes(database, "none") == Indexed(0, (1.0, None), kept=True)


def test_an_index_that_finds_too_little_is_removed(indexed, monkeypatch):
    monkeypatch.setattr(indexing, "_recall", lambda database, transform: (1.0, 0.97))
    done = write_indexes(indexed, "centre")
    assert (done.recall, done.kept) == ((1.0, 0.97), False)
    for shard in indexed.snapshot.shards:
        assert not list(shard.reader.folder.glob("index.*"))


def test_keys_without_numbers_need_no_index(make, tmp_path):
    """Of rows that are all equal, whitening leaves no direction."""
    segments, _ = make.rows(60)
    database = make.build(tmp_path / "equal.retdb", segments, np.ones((60, 8), np.float32))
    assert write_indexes(database, "whiten").shards == 0

"""An indexed database."""

import numpy as np
import pytest

from retclip.shards.search import write_indexes


@pytest.fixture
def indexed(make, tmp_path):
    """Two shards of 2,000 rows in four classes, some dead, with an index for `centre`."""
    segments, _ = make.rows(4_000, classes=4)
    vectors = np.random.default_rng(2).normal(size=(4_000, 16)).astype(np.float32) + 0.5
    database = make.build(tmp_path / "indexed.retdb", segments, vectors, shard_rows=2_000)
    with database.write("delete", "tests") as transaction:
        transaction.delete(segment_ids={s.segment_id for s in segments[::5]})
        database = transaction.commit()
    assert write_indexes(database, "centre").shards == len(database.snapshot.shards) == 2
    assert write_indexes(database, "centre").shards == 0
    return database


def same_bits(first, second):
    for name in ("distance", "class_id", "shard", "row", "segment_id"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name


@pytest.fixture(scope="session", name="same_bits")
def same_bits_fixture():
    """Compares two `Neighbors`."""
    return same_bits

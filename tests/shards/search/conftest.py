"""An indexed database."""

import shutil

import numpy as np
import pytest

from retclip.shards import Database
from retclip.shards.search import write_indexes


@pytest.fixture(scope="session")
def indexed_once(make, tmp_path_factory):
    """Path of two shards of 2,000 rows in four classes, some dead, with an index for `centre`."""
    segments, _ = make.rows(4_000, classes=4)
    vectors = np.random.default_rng(2).normal(size=(4_000, 16)).astype(np.float32) + 0.5
    path = tmp_path_factory.mktemp("indexed") / "indexed.retdb"
    with make.build(path, segments, vectors, shard_rows=2_000).write("delete", "tests") as transaction:
        transaction.delete(segment_ids={s.segment_id for s in segments[::5]})
        database = transaction.commit()
    assert write_indexes(database, "centre").shards == len(database.snapshot.shards) == 2
    assert write_indexes(database, "centre").shards == 0
    return path


@pytest.fixture
def indexed(indexed_once, tmp_path):
    """A copy of it, for whatever a test does to it."""
    return Database.open(shutil.copytree(indexed_once, tmp_path / indexed_once.name))


def same_bits(first, second):
    for name in ("distance", "class_id", "shard", "row", "segment_id"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name


@pytest.fixture(scope="session", name="same_bits")
def same_bits_fixture():
    """Compares two `Neighbors`."""
    return same_bits

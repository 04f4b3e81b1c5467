"""A database as a Parquet file and back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retclip.core.errors import DatabaseError
from retclip.shards import Database, verify
from retclip.shards.parquet_exchange import export_parquet, import_parquet


@pytest.fixture
def worn(database: Database) -> Database:
    """A database with deleted rows and a deleted, a renamed, a merged and an aliased class."""
    first = next(segment.segment_id for _, _, segment in database.iter_segments() if segment.label == "class 3")
    with database.write("edit", "tests") as transaction:
        transaction.delete(labels=["class 0"], segment_ids=[first])
        transaction.relabel("class 1", "kayak")
        transaction.relabel("class 2", "kayak")
        transaction.declare("class 4", ["four", "Vier"])
        transaction.set_transform("centre")
        transaction.record_models([{"role": "encoder", "name": "e", "license": "MIT", "sha256": "0" * 64}])
        return transaction.commit()


def test_what_comes_back_is_the_same(worn, tmp_path):
    assert export_parquet(worn, tmp_path / "worn.parquet") == len(worn)
    back, same = import_parquet(tmp_path / "worn.parquet", tmp_path / "back.retdb", "tests")
    assert same
    assert back.content_hash() == worn.content_hash()
    assert (back.space, back.preset, back.transform, back.models) == (
        worn.space, worn.preset, worn.transform, worn.models,
    )  # fmt: skip
    assert {(c.name, c.aliases, c.is_thing, c.count) for c in back.classes} == {
        (c.name, c.aliases, c.is_thing, c.count) for c in worn.classes
    }
    one, two = ({s.segment_id: s for _, _, s in database.iter_segments()} for database in (worn, back))
    assert one == two
    queries = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    np.testing.assert_array_equal(worn.search(queries, 9).segment_id, back.search(queries, 9).segment_id)
    assert verify(back.path, deep=True).ok


def test_any_reader_finds_columns_by_name(worn, tmp_path):
    export_parquet(worn, tmp_path / "worn.parquet")
    table = pq.read_table(tmp_path / "worn.parquet")
    assert set(table["label"].to_pylist()) == {"kayak", "class 3", "class 4"}
    assert table.schema.field("vector").type == pa.list_(pa.float16(), 8)
    stored = np.stack(table["vector"].to_pylist()).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-3)


def test_rows_may_be_taken_out_in_between(worn, tmp_path):
    export_parquet(worn, tmp_path / "worn.parquet")
    table = pq.read_table(tmp_path / "worn.parquet")
    kept = table.filter(pa.compute.equal(table["label"], "kayak"))
    pq.write_table(kept, tmp_path / "kayaks.parquet")
    back, same = import_parquet(tmp_path / "kayaks.parquet", tmp_path / "back.retdb", "tests")
    assert not same
    assert [(c.name, c.count) for c in back.classes] == [("kayak", kept.num_rows)]


def test_names_follow_a_class_that_is_spelled_in_another_way(worn, tmp_path):
    export_parquet(worn, tmp_path / "worn.parquet")
    table = pq.read_table(tmp_path / "worn.parquet")
    labels = pa.compute.replace_substring(table["label"], "class 4", "Class_4")
    pq.write_table(
        table.set_column(table.schema.get_field_index("label"), "label", labels), tmp_path / "edited.parquet"
    )
    back, same = import_parquet(tmp_path / "edited.parquet", tmp_path / "back.retdb", "tests")
    assert same  # names are compared without case and underscores
    assert {c.name: c.aliases for c in back.classes}["Class_4"] == ("four", "Vier")


def broken(kind, source, target):
    table = pq.read_table(source)
    if kind == "no facts":
        table = table.replace_schema_metadata({})
    elif kind == "other facts":
        table = table.replace_schema_metadata({b"retclip": b'{"format": 2}'})
    elif kind == "no vectors":
        table = table.drop_columns(["vector"])
    elif kind == "no length":
        zeros = pa.array([[0.0] * 8] * table.num_rows, pa.list_(pa.float16(), 8))
        table = table.set_column(table.schema.get_field_index("vector"), "vector", zeros)
    elif kind == "no label":
        blank = pa.array([" "] * table.num_rows)
        table = table.set_column(table.schema.get_field_index("label"), "label", blank)
    elif kind == "a segment in two classes":
        other = pa.array(["class 3"])  # a class without any other row
        rest = table.filter(pa.compute.not_equal(table["label"], "class 3"))
        twin = rest.slice(0, 1).set_column(table.schema.get_field_index("label"), table.schema.field("label"), other)
        table = pa.concat_tables([rest, twin])
    pq.write_table(table, target)
    data = target.read_bytes()
    if kind == "cut":
        target.write_bytes(data[: len(data) // 2])
    elif kind == "no parquet":
        target.write_bytes(b"hello")
    elif kind == "absent":
        target.unlink()


@pytest.mark.parametrize(
    "kind",
    [
        *("no facts", "other facts", "no vectors", "no length", "no label"),
        *("a segment in two classes", "cut", "no parquet", "absent"),
    ],
)
def test_other_files_are_refused_and_leave_nothing(worn, tmp_path, kind):
    export_parquet(worn, tmp_path / "worn.parquet")
    broken(kind, tmp_path / "worn.parquet", tmp_path / "broken.parquet")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DatabaseError, match="E334"):
        import_parquet(tmp_path / "broken.parquet", tmp_path / "back.retdb", "tests")
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_replaced(worn, tmp_path):
    export_parquet(worn, tmp_path / "worn.parquet")
    with pytest.raises(DatabaseError, match="E307"):
        export_parquet(worn, tmp_path / "worn.parquet")
    with pytest.raises(DatabaseError, match="E307"):
        import_parquet(tmp_path / "worn.parquet", worn.path, "tests")
    assert not list(tmp_path.glob(".staging-*"))


def test_an_empty_version_travels_too(make, tmp_path):
    empty = Database.create(tmp_path / "empty.retdb", make.space(), {})
    assert export_parquet(empty, tmp_path / "empty.parquet") == 0
    back, same = import_parquet(tmp_path / "empty.parquet", tmp_path / "back.retdb", "tests")
    assert same
    assert len(back) == 0

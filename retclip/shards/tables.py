"""Segments as columns: the only module that knows Arrow and Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retclip.core.segments import StoredSegment

ROW_GROUP_ROWS = 16_384
_BOX = ("x0", "y0", "x1", "y1")
_TYPES = {
    "int": pa.int64(),
    "str": pa.string(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "bytes": pa.large_binary(),
    "tuple[float, float, float, float]": pa.struct([(name, pa.float64()) for name in _BOX]),
}
SEGMENT_SCHEMA = pa.schema(
    [
        pa.field(f.name, pa.uint64() if f.name == "segment_id" else _TYPES[str(f.type)], nullable=False)
        for f in fields(StoredSegment)
    ]
)
_FIELDS = attrgetter(*SEGMENT_SCHEMA.names)
META_SCHEMA = pa.schema(
    [pa.field("class_id", pa.int32(), nullable=False), *(f for f in SEGMENT_SCHEMA if f.name != "mask_counts")]
)
BLOB_SCHEMA = pa.schema([("counts", pa.large_binary()), ("height", pa.int32()), ("width", pa.int32())])


def from_segments(segments: Sequence[StoredSegment]) -> pa.Table:
    """Table with one column per field of `StoredSegment`."""
    if not segments:
        return SEGMENT_SCHEMA.empty_table()
    values = zip(*map(_FIELDS, segments), strict=True)
    columns = [
        _box_array(column) if field.name == "box" else pa.array(column, field.type)
        for field, column in zip(SEGMENT_SCHEMA, values, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=SEGMENT_SCHEMA)


def _box_array(boxes: Sequence[tuple[float, float, float, float]]) -> pa.StructArray:
    sides = [pa.array(side, pa.float64()) for side in zip(*boxes, strict=True)]
    return pa.StructArray.from_arrays(sides, list(_BOX))


def to_segments(table: pa.Table, labels: Sequence[str]) -> list[StoredSegment]:
    """Inverse of `from_segments`, with the label of each row given."""
    names = [field.name for field in SEGMENT_SCHEMA]
    columns = [table[name].to_pylist() for name in names]
    columns[names.index("label")] = list(labels)
    columns[names.index("box")] = [tuple(box[name] for name in _BOX) for box in columns[names.index("box")]]
    return [StoredSegment(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def segment_columns(table: pa.Table) -> pa.Table:
    """The columns of `from_segments` from rows that were read, with the label as written."""
    return table.select(SEGMENT_SCHEMA.names).cast(SEGMENT_SCHEMA)


def relabelled(table: pa.Table, label: str) -> pa.Table:
    """The columns of `from_segments` from rows that were read, all with another label."""
    place = SEGMENT_SCHEMA.get_field_index("label")
    return segment_columns(table).set_column(place, SEGMENT_SCHEMA[place], pa.array([label] * table.num_rows))


def storage_order(table: pa.Table, class_ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Row order of a shard: class, image, segment (docs/database-format.md, "Shards")."""
    keys = pa.table({"c": class_ids, "i": pc.cast(table["image_id"], pa.binary()), "s": table["segment_id"]})
    order: npt.NDArray[np.int64] = pc.sort_indices(keys, [("c", "ascending"), ("i", "ascending"), ("s", "ascending")])
    return np.asarray(order, np.int64)


def numbers(table: pa.Table, name: str) -> npt.NDArray[Any]:
    """One column of numbers or booleans as an array."""
    array: npt.NDArray[Any] = table[name].combine_chunks().to_numpy(zero_copy_only=False)
    return array


def boxes(table: pa.Table) -> npt.NDArray[np.float64]:
    """Column `box` as (n, 4) x0, y0, x1, y1."""
    box = table["box"].combine_chunks()
    return np.column_stack([pc.struct_field(box, name).to_numpy(zero_copy_only=False) for name in _BOX])


def value_counts(table: pa.Table, name: str) -> dict[str, int]:
    """How often each value of a text column occurs, sorted by value."""
    counts = pc.value_counts(table[name].combine_chunks()).to_pylist()
    return dict(sorted((item["values"], item["counts"]) for item in counts))


def meta_bytes(table: pa.Table, class_ids: npt.NDArray[np.int32]) -> memoryview:
    """meta.parquet of sorted rows; equal rows give equal bytes."""
    columns = [
        pa.array(class_ids, pa.int32()),
        *(table[f.name].combine_chunks() for f in META_SCHEMA if f.name != "class_id"),
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(columns, schema=META_SCHEMA),
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        write_page_index=True,
        sorting_columns=[pq.SortingColumn(0)],
    )
    return memoryview(sink.getvalue())


def blob_bytes(table: pa.Table) -> memoryview:
    """blobs.arrow of sorted rows."""
    height, width = (pc.cast(table[name], pa.int32()).combine_chunks() for name in ("image_height", "image_width"))
    return _ipc_file(pa.record_batch([table["mask_counts"].combine_chunks(), height, width], schema=BLOB_SCHEMA))


def class_bytes(columns: dict[str, npt.NDArray[Any]], digests: Sequence[bytes]) -> memoryview:
    """classes.arrow from arrays class_id, begin, count, things (C,), mean (C, D) and 32-byte digests."""
    mean = columns["mean"]
    arrays = {
        "class_id": pa.array(columns["class_id"], pa.int32()),
        **{name: pa.array(columns[name], pa.int64()) for name in ("begin", "count", "things")},
        "mean": pa.FixedSizeListArray.from_arrays(pa.array(mean.reshape(-1), pa.float32()), mean.shape[1]),
        "digest": pa.array(list(digests), pa.binary(32)),
    }
    return _ipc_file(pa.record_batch(arrays))


def read_classes(path: Path) -> tuple[dict[str, npt.NDArray[Any]], list[bytes]]:
    """Inverse of `class_bytes`."""
    batch = _map_batch(path)
    # `to_numpy` would import pandas where that is installed: half a second before the first answer.
    columns = {name: np.from_dlpack(batch.column(name)) for name in ("class_id", "begin", "count", "things")}
    columns["mean"] = np.from_dlpack(batch.column("mean").flatten()).reshape(batch.num_rows, -1)
    return columns, batch.column("digest").to_pylist()


class RowTables:
    """Reads rows of meta.parquet and blobs.arrow, touching only the row groups that are asked."""

    def __init__(self, meta: Path, blobs: Path) -> None:
        self._file, self._blobs = pa.OSFile(str(meta)), _map_batch(blobs)
        self._metadata = pq.ParquetFile(self._file).metadata

    def _meta(self) -> pq.ParquetFile:
        """A reader for one call: threads may share the file, whose reads say where, but not a reader of Parquet."""
        return pq.ParquetFile(self._file, metadata=self._metadata)

    def columns(self, *names: str) -> pa.Table:
        """Whole columns of meta.parquet as a table."""
        return self._meta().read(columns=list(names))

    def rows(self, rows: npt.NDArray[np.int64]) -> pa.Table:
        """The asked rows, in the asked order: the columns of meta.parquet and `mask_counts`."""
        groups, inverse = np.unique(rows // ROW_GROUP_ROWS, return_inverse=True)
        table = self._meta().read_row_groups(groups.tolist())
        table = table.take(pa.array(inverse * ROW_GROUP_ROWS + rows % ROW_GROUP_ROWS))
        return table.append_column("mask_counts", self.mask_counts(rows))

    def mask_counts(self, rows: npt.NDArray[np.int64]) -> pa.Array:
        """Run-length counts of the asked rows as an Arrow array."""
        return self._blobs.column("counts").take(pa.array(rows))


def stream_bytes(table: pa.Table) -> memoryview:
    """Arrow IPC stream of a table."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def read_stream(data: memoryview) -> pa.Table:
    """Inverse of `stream_bytes`, for tables of `SEGMENT_SCHEMA`."""
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        table = reader.read_all()
    table.validate(full=True)
    return table.cast(SEGMENT_SCHEMA)


def concatenate(tables: Sequence[pa.Table]) -> pa.Table:
    """One table from several of the same columns."""
    return pa.concat_tables(tables)


def _ipc_file(batch: pa.RecordBatch) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return memoryview(sink.getvalue())


def _map_batch(path: Path) -> pa.RecordBatch:
    """The one record batch of an Arrow file, mapped and with its offsets checked."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    batch = reader.get_batch(0)
    batch.validate(full=True)
    return batch

"""Writes one shard: sorts the rows and lays out its files (docs/database-format.md, "Shards")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from retclip.core.errors import require
from retclip.core.identity import FeatureSpace
from retclip.shards import durable
from retclip.shards.manifest import FORMAT, SHARD_FILE, ShardEntry, canonical_json
from retclip.shards.moments import Moments

# Rounding a unit vector to binary16 changes its length by at most 2^-11 (and a little more below 2^-14).
UNIT_TOLERANCE = 2.0**-10


@dataclass(frozen=True)
class RowBatch:
    """Rows on their way into a shard.

    Attributes:
        table: Arrow table of `tables.SEGMENT_SCHEMA`.
        class_ids: (n,) int32 class of each row.
        vectors: (n, D) float16, unit length.
    """

    table: Any
    class_ids: npt.NDArray[np.int32]
    vectors: npt.NDArray[np.float16]

    def part(self, begin: int, end: int | None) -> RowBatch:
        """The rows begin .. end."""
        part = slice(begin, end)
        return RowBatch(self.table[part], self.class_ids[part], self.vectors[part])

    @classmethod
    def join(cls, parts: Sequence[RowBatch]) -> Self:
        """All rows of several batches."""
        from retclip.shards import tables  # Arrow takes 0.3 s to load; `db info` does without

        return cls(
            tables.concatenate([part.table for part in parts]),
            np.concatenate([part.class_ids for part in parts]),
            np.concatenate([part.vectors for part in parts]),
        )


def unit_rows(vectors: npt.NDArray[np.floating], rows: int, dim: int) -> npt.NDArray[np.float16]:
    """(N, D) vectors as stored. A row that is binary16 and unit length already keeps its bits when added again."""
    require(vectors.shape == (rows, dim), "vectors", f"({rows}, {dim})", vectors.shape)
    values = vectors.astype(np.float64)
    norms = np.sqrt(np.add.reduce(values * values, axis=1))
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    require(not len(bad), "vectors", "finite numbers and lengths > 0", f"length {norms[bad[:1]]} in row {bad[:1]}")
    stored: npt.NDArray[np.float16] = (values / norms[:, None]).astype(np.float16)
    near = np.flatnonzero(np.abs(norms - 1.0) <= UNIT_TOLERANCE)
    half = values[near].astype(np.float16)
    ready = (half == values[near]).all(axis=1)
    stored[near[ready]] = half[ready]
    return stored


def class_columns(
    class_ids: npt.NDArray[np.int32], is_thing: npt.NDArray[np.bool_], vectors: npt.NDArray[np.float16]
) -> dict[str, npt.NDArray[Any]]:
    """Columns class_id, begin, count, things and mean of classes.arrow, from rows in storage order."""
    ids, begin, count = np.unique(class_ids, return_index=True, return_counts=True)
    mean = np.stack([vectors[b : b + n].sum(axis=0, dtype=np.float64) / n for b, n in zip(begin, count, strict=True)])
    return {
        "class_id": ids,
        "begin": begin,
        "count": count,
        "things": np.add.reduceat(is_thing.astype(np.int64), begin),
        "mean": mean.astype(np.float32),
    }


def id_bytes(segment_ids: npt.NDArray[np.uint64]) -> bytes:
    """ids.u64: the ids ascending, then the row of each."""
    order = np.argsort(segment_ids, kind="stable")
    return segment_ids[order].astype("<u8").tobytes() + order.astype("<u4").tobytes()


def shard_files(batch: RowBatch) -> dict[str, bytes | memoryview]:
    """Content of all files of a shard but shard.json, from rows in any order."""
    from retclip.shards import digests, tables  # Arrow takes 0.3 s to load; `db info` does without

    order = tables.storage_order(batch.table, batch.class_ids)
    table, class_ids, vectors = batch.table.take(order), batch.class_ids[order], batch.vectors[order]
    columns = class_columns(class_ids, tables.numbers(table, "is_thing"), vectors)
    rows = digests.row_digests(table, vectors)
    sums = [
        (sum(rows[b : b + n]) % digests.MODULUS).to_bytes(32, "little")
        for b, n in zip(columns["begin"].tolist(), columns["count"].tolist(), strict=True)
    ]
    files: dict[str, bytes | memoryview] = {
        "vectors.f16": vectors.astype("<f2", copy=False).view(np.uint8).reshape(-1).data,
        "meta.parquet": tables.meta_bytes(table, class_ids),
        "blobs.arrow": tables.blob_bytes(table),
        "classes.arrow": tables.class_bytes(columns, sums),
        "ids.u64": id_bytes(tables.numbers(table, "segment_id")),
    }
    if len(vectors) >= vectors.shape[1]:
        files["moments.i64"] = Moments.of(vectors).to_bytes()
    return files


def write_shard(shards: Path, batch: RowBatch, space: FeatureSpace) -> ShardEntry:
    """Write a shard, flushed, under its staging name; a commit gives it its own."""
    shard_id = durable.new_id()
    folder = staged_folder(shards, shard_id)
    durable.make_folder(folder)
    try:
        return _fill(folder, shard_id, batch, space)
    except BaseException:
        durable.remove(folder)
        raise


def _fill(folder: Path, shard_id: str, batch: RowBatch, space: FeatureSpace) -> ShardEntry:
    from retclip.shards import tables

    files = {name: durable.write_file(folder / name, [data]) for name, data in shard_files(batch).items()}
    sources, licenses = (tables.value_counts(batch.table, name) for name in ("source", "license"))
    rows, dim = batch.vectors.shape
    description: Mapping[str, Any] = {
        "format": FORMAT,
        "rows": rows,
        "dim": dim,
        "dtype": "<f2",
        "space": space.fingerprint,
        "files": {name: asdict(entry) for name, entry in files.items()},
        "sources": sources,
        "licenses": licenses,
    }
    files[SHARD_FILE] = durable.write_file(folder / SHARD_FILE, [canonical_json(description) + b"\n"])
    durable.sync_folder(folder)
    return ShardEntry(shard_id, rows, files, sources, licenses)


def staged_folder(shards: Path, shard_id: str) -> Path:
    """Where a shard stands until the transaction commits."""
    return shards / (durable.STAGING_PREFIX + shard_id)

"""Writes one shard: sorts the rows and lays out its files (docs/database-format.md, "Shards")."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from retclip.core.errors import require
from retclip.core.identity import FeatureSpace
from retclip.core.threads import Threads
from retclip.shards import durable
from retclip.shards.manifest import FORMAT, SHARD_FILE, ShardEntry, canonical_json
from retclip.shards.moments import Moments

# Rounding a unit vector to binary16 changes its length by at most 2^-11 (and a little more below 2^-14).
UNIT_TOLERANCE = 2.0**-10
_BLOCK_ROWS = 1 << 8  # float64 copies of so many rows stay in the processor's cache
_PIECE_ROWS = 1 << 12  # rows of a shard that are held in storage order at a time


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
    def join(cls, parts: list[RowBatch]) -> Self:
        """All rows of several batches; the list is emptied on the way, so that no row is held twice."""
        from retclip.shards import tables  # Arrow takes 0.3 s to load; `db info` does without

        table = tables.concatenate([part.table for part in parts])
        class_ids = np.concatenate([part.class_ids for part in parts])
        vectors = np.empty((len(class_ids), parts[0].vectors.shape[1]), np.float16)
        end = len(vectors)
        while parts:
            part = parts.pop().vectors
            vectors[end - len(part) : end] = part
            end -= len(part)
        return cls(table, class_ids, vectors)


def unit_rows(vectors: npt.NDArray[np.floating], rows: int, dim: int) -> npt.NDArray[np.float16]:
    """(N, D) vectors as stored. A row that is binary16 and unit length already keeps its bits when added again."""
    require(vectors.shape == (rows, dim), "vectors", f"({rows}, {dim})", vectors.shape)
    stored = np.empty((rows, dim), np.float16)
    for start in range(0, rows, _BLOCK_ROWS):
        values = vectors[start : start + _BLOCK_ROWS].astype(np.float64)
        norms = np.sqrt(np.add.reduce(values * values, axis=1))
        bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))[:1]
        require(not len(bad), "vectors", "finite numbers and lengths > 0", f"length {norms[bad]} in row {start + bad}")
        block = stored[start : start + _BLOCK_ROWS]
        block[:] = values / norms[:, None]
        _keep_stored_rows(block, values, norms)
    return stored


def _keep_stored_rows(
    block: npt.NDArray[np.float16], values: npt.NDArray[np.float64], norms: npt.NDArray[np.float64]
) -> None:
    """Undo the scaling of rows that are binary16 and unit length already; all (n, D) or (n,)."""
    rows = np.flatnonzero(np.abs(norms - 1.0) <= UNIT_TOLERANCE)
    half = block[:0]
    for width in (8, None):  # a few components tell almost every other row, without rounding all of it
        half = values[rows, :width].astype(np.float16)
        same = (half == values[rows, :width]).all(axis=1)
        rows, half = rows[same], half[same]
    block[rows] = half


def row_blocks(
    vectors: npt.NDArray[np.float16], order: npt.NDArray[np.int64] | None = None
) -> Iterator[npt.NDArray[np.float16]]:
    """The rows of an (N, D) matrix, in another order if one is given, in (n, D) pieces of bounded size."""
    for start in range(0, len(vectors), _PIECE_ROWS):
        part = slice(start, start + _PIECE_ROWS)
        yield vectors[part] if order is None else vectors[order[part]]


def class_columns(
    class_ids: npt.NDArray[np.int32],
    is_thing: npt.NDArray[np.bool_],
    dim: int,
    blocks: Iterable[npt.NDArray[np.float16]],
) -> dict[str, npt.NDArray[Any]]:
    """Columns class_id, begin, count, things and mean of classes.arrow, from rows in storage order.

    Components are whole multiples of 2^-24, so float64 adds them without rounding and any cut into blocks gives the
    same means.
    """
    ids, begin, count = np.unique(class_ids, return_index=True, return_counts=True)
    sums, start = np.zeros((len(ids), dim)), 0
    for block in blocks:
        inside, first = np.unique(class_ids[start : start + len(block)], return_index=True)
        sums[np.searchsorted(ids, inside)] += np.add.reduceat(block.astype(np.float64), first)
        start += len(block)
    return {
        "class_id": ids,
        "begin": begin,
        "count": count,
        "things": np.add.reduceat(is_thing.astype(np.int64), begin),
        "mean": (sums / count[:, None]).astype(np.float32),
    }


def id_bytes(segment_ids: npt.NDArray[np.uint64]) -> bytes:
    """ids.u64: the ids ascending, then the row of each."""
    order = np.argsort(segment_ids, kind="stable")
    return segment_ids[order].astype("<u8").tobytes() + order.astype("<u4").tobytes()


def shard_files(batch: RowBatch) -> Iterator[tuple[str, Iterable[bytes | memoryview]]]:
    """(name, content in parts) of the files that hold rows in order, or say where they are, from rows in any order."""
    from retclip.shards import digests, tables  # Arrow takes 0.3 s to load; `db info` does without

    order, vectors = tables.storage_order(batch.table, batch.class_ids), batch.vectors
    table, class_ids = batch.table.take(order), batch.class_ids[order]
    columns = class_columns(class_ids, tables.numbers(table, "is_thing"), vectors.shape[1], row_blocks(vectors, order))
    rows: list[int] = []
    for block in row_blocks(vectors, order):
        rows += digests.row_digests(table.slice(len(rows), len(block)), block)
    sums = [
        (sum(rows[b : b + n]) % digests.MODULUS).to_bytes(32, "little")
        for b, n in zip(columns["begin"].tolist(), columns["count"].tolist(), strict=True)
    ]
    little = (block.astype("<f2", copy=False) for block in row_blocks(vectors, order))
    yield "vectors.f16", (block.view(np.uint8).reshape(-1).data for block in little)
    yield "meta.parquet", [tables.meta_bytes(table, class_ids)]
    yield "blobs.arrow", [tables.blob_bytes(table)]
    yield "classes.arrow", [tables.class_bytes(columns, sums)]
    yield "ids.u64", [id_bytes(tables.numbers(table, "segment_id"))]


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

    rows, dim = batch.vectors.shape
    # The product of the moments takes as long as all else together, which keeps one core busy at most.
    with Threads(1) as pool:
        moments = pool.submit(Moments.of, batch.vectors) if rows >= dim else None
        files = {name: durable.write_file(folder / name, parts) for name, parts in shard_files(batch)}
        if moments is not None:
            files["moments.i64"] = durable.write_file(folder / "moments.i64", [moments.result().to_bytes()])
    sources, licenses = (tables.value_counts(batch.table, name) for name in ("source", "license"))
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

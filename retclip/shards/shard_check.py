"""Looks for contradictions inside one shard whose files have the right digests."""

from __future__ import annotations

import json

import numpy as np

from retclip.shards import digests, tables
from retclip.shards.manifest import SHARD_FILE, Manifest
from retclip.shards.moments import Moments
from retclip.shards.shard_reader import ShardReader
from retclip.shards.shard_writer import UNIT_TOLERANCE, class_columns, id_bytes, row_blocks

_BLOCK_ROWS = 1 << 14


def shard_problems(reader: ShardReader, manifest: Manifest) -> list[tuple[str, str]]:
    """(file, message) for everything in a shard that contradicts another file, the manifest or the format page."""
    problems = _vectors(reader)
    if problems:
        return problems
    problems += _description(reader, manifest) + _classes(reader, manifest)
    return problems + _order_and_ids(reader) + _sums(reader) + _moments(reader)


def _description(reader: ShardReader, manifest: Manifest) -> list[tuple[str, str]]:
    described = json.loads((reader.folder / SHARD_FILE).read_bytes())
    entry = reader.entry.to_json()
    entry["files"].pop(SHARD_FILE)
    expected = {name: entry[name] for name in ("rows", "files", "sources", "licenses")}
    expected |= {"format": 1, "dim": reader.dim, "dtype": "<f2", "space": manifest.space.fingerprint}
    return [(SHARD_FILE, f"{name} is not the manifest's") for name in expected if described.get(name) != expected[name]]


def _vectors(reader: ShardReader) -> list[tuple[str, str]]:
    for start in range(0, reader.rows, _BLOCK_ROWS):
        block = reader.vectors[start : start + _BLOCK_ROWS].astype(np.float64)
        norms = np.sqrt(np.add.reduce(block * block, axis=1))
        if not bool((np.abs(norms - 1.0) <= UNIT_TOLERANCE).all()):
            return [("vectors.f16", f"a row between {start} and {start + len(block)} is not finite and of unit length")]
    return []


def _classes(reader: ShardReader, manifest: Manifest) -> list[tuple[str, str]]:
    class_ids = tables.numbers(reader.tables.columns("class_id"), "class_id")
    is_thing = tables.numbers(reader.tables.columns("is_thing"), "is_thing")
    if bool((np.diff(class_ids) < 0).any()):
        return [("meta.parquet", "rows are not sorted by class")]
    known = {entry.id for entry in manifest.classes}
    if not set(class_ids.tolist()) <= known:
        return [("meta.parquet", "a class id is not in the manifest")]
    expected = class_columns(class_ids, is_thing, reader.dim, row_blocks(reader.vectors))
    names = [name for name in expected if not np.array_equal(expected[name], reader.classes[name])]
    return [("classes.arrow", f"column {name} is not that of the rows") for name in names]


def _order_and_ids(reader: ShardReader) -> list[tuple[str, str]]:
    problems = []
    rows = reader.tables.columns("image_id", "segment_id")
    order = tables.storage_order(rows, reader.row_classes())
    if not np.array_equal(order, np.arange(reader.rows)):
        problems.append(("meta.parquet", "rows are not sorted by class, image and segment"))
    ids = tables.numbers(rows, "segment_id")
    if id_bytes(ids) != (reader.folder / "ids.u64").read_bytes() or len(np.unique(ids)) != len(ids):
        problems.append(("ids.u64", "it is not the sorted unique segment ids"))
    return problems


def _sums(reader: ShardReader) -> list[tuple[str, str]]:
    sums = dict.fromkeys(reader.ranges, 0)
    classes = reader.row_classes()
    for start in range(0, reader.rows, _BLOCK_ROWS):
        rows = np.arange(start, min(start + _BLOCK_ROWS, reader.rows))
        values = digests.row_digests(reader.tables.rows(rows), reader.vectors[rows])
        for class_id, value in zip(classes[rows].tolist(), values, strict=True):
            sums[class_id] = (sums[class_id] + value) % digests.MODULUS
    return [] if sums == reader.digests() else [("classes.arrow", "digests are not those of the rows")]


def _moments(reader: ShardReader) -> list[tuple[str, str]]:
    if "moments.i64" not in reader.entry.files:
        return []
    kept, computed = reader.moments(), Moments.of(reader.vectors)
    same = np.array_equal(kept.first, computed.first) and np.array_equal(kept.second, computed.second)
    return [] if same else [("moments.i64", "moments are not those of the rows")]

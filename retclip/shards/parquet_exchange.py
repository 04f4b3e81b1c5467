"""A database version as one Parquet file, and back: the same content, without history and thumbnails."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retclip.core.errors import DatabaseError
from retclip.shards import durable, portable, tables
from retclip.shards.copying import new_database
from retclip.shards.creation import refuse_existing
from retclip.shards.database import Database
from retclip.shards.portable import Facts
from retclip.shards.sweep import remove_abandoned
from retclip.shards.transaction import Transaction

_BATCH_ROWS = 4096
_VECTOR = "vector"


def export_parquet(database: Database, target: Path) -> int:
    """Write all live segments: the columns of `StoredSegment` and `vector`, (D,) binary16 as stored.

    Returns:
        How many segments there are.

    Raises:
        DatabaseError: E307 when `target` exists, E310 when it or its folder cannot be made.
        ResourceError: E401 when there is no room.
    """
    refuse_existing(target, "file", "remove it")
    facts = portable.facts_of(database)
    remove_abandoned(target.parent)
    staged = target.with_name(durable.STAGING_PREFIX + durable.new_id())
    try:
        with durable.explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(database, facts, staged)
            with staged.open("rb") as stream:
                os.fsync(stream.fileno())
            staged.rename(target)
    finally:
        durable.discard(staged)
    durable.sync_folder(target.absolute().parent)
    return len(facts)


def _write(database: Database, facts: Facts, path: Path) -> None:
    schema = portable.marked(_schema(facts.space.dim), facts)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in portable.row_batches(database):
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(batch.vectors.reshape(-1)), facts.space.dim)
            columns = [*(batch.table[name].combine_chunks() for name in tables.SEGMENT_SCHEMA.names), vectors]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _schema(dim: int) -> pa.Schema:
    return pa.schema([*tables.SEGMENT_SCHEMA, pa.field(_VECTOR, pa.list_(pa.float16(), dim), nullable=False)])


def import_parquet(source: Path, target: Path, program: str) -> tuple[Database, bool]:
    """Make a database from a file of `export_parquet`.

    Rows may have been taken out or changed in between, as long as columns and metadata are still there and no segment
    is there twice. A class whose rows are all gone is not made.

    Returns:
        The new database, and whether its content is that of the exported version.

    Raises:
        DatabaseError: E307 when `target` exists, E334 when `source` is no such file or is damaged.
    """
    refuse_existing(target)
    try:
        with pq.ParquetFile(source) as file:
            facts = portable.facts_in(file.schema_arrow)
            missing = set(_schema(facts.space.dim).names) - set(file.schema_arrow.names)
            if missing:
                raise ValueError(f"columns {', '.join(sorted(missing))} are missing")
            with new_database(target, facts) as staged, staged.write("import", program) as transaction:
                transaction.record_models(facts.models)
                _add_all(transaction, file, facts)
                transaction.commit(f"import of {facts.name}@{facts.version}")
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise DatabaseError(
            "E334",
            f"{source} cannot be imported.",
            why=f"{type(error).__name__}: {error}".splitlines()[0],
            fix="Give a file that `retclip db export NAME FILE --to parquet` wrote.",
        ) from error
    database = Database.open(target)
    return database, database.content_hash() == facts.content_hash


def _add_all(transaction: Transaction, file: pq.ParquetFile, facts: Facts) -> None:
    schema = _schema(facts.space.dim)
    for batch in file.iter_batches(_BATCH_ROWS, columns=schema.names):
        table = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
        table.validate(full=True)
        segments = tables.to_segments(table, table["label"].to_pylist())
        if transaction.add(segments, portable.vectors_in(table[_VECTOR]).astype(np.float32)) < len(segments):
            raise ValueError("a segment_id is there twice, so which label and vector it has is not known")
    for item in facts.classes:
        transaction.declare(item.name, item.aliases)

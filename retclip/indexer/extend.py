"""Teaching a database from another database: segments travel with their vectors, no network runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from retclip import __version__
from retclip.core.errors import DatabaseError, FeatureSpaceMismatch
from retclip.core.segments import StoredSegment
from retclip.core.vocabulary import Vocabulary, normalise_name
from retclip.indexer.report import RunReport
from retclip.shards import Database, StoredClass

_BATCH = 1024


def copyable(database: Database, other: Database, vocabulary: Vocabulary) -> list[StoredClass]:
    """Classes of `other` that share a name with an asked category.

    Raises:
        FeatureSpaceMismatch: the two databases hold vectors of different encoders.
        DatabaseError: E309 when `other` has none of the classes.
    """
    if database.space != other.space:
        raise FeatureSpaceMismatch(
            other.name, other.space.encoder, database.space.encoder, other.space.differences(database.space)
        )
    asked = {normalise_name(name) for category in vocabulary for name in category.names}
    found = [item for item in other.classes if asked & {normalise_name(name) for name in (item.name, *item.aliases)}]
    if not found:
        raise DatabaseError(
            "E309",
            f"Database '{other.name}' has none of the asked classes.",
            why="Asked: " + ", ".join(vocabulary.names[:8]) + ".",
            fix=f"retclip db classes {other.name}",
        )
    return found


def copy_classes(database: Database, other: Database, vocabulary: Vocabulary, shots: int | None) -> RunReport:
    """Add the asked classes of `other` to `database` as one version, at most `shots` segments of each."""
    start = time.perf_counter()
    classes = copyable(database, other, vocabulary)
    added = total = 0
    with database.write("add-classes", f"retclip {__version__}") as transaction:
        for item in classes:
            for batch in _batches(other, item, shots):
                vectors = other.vectors([(shard, row) for shard, row, _ in batch])
                added += transaction.add([segment for _, _, segment in batch], vectors)
                total += len(batch)
                _copy_thumbnails(database, other, [segment.segment_id for _, _, segment in batch])
            if item.aliases:
                transaction.declare(item.name, item.aliases)
        result = transaction.commit(f"{added} segments from {other.name}@{other.version}")
    names = {item.name for item in classes}
    return RunReport(
        database=result.name,
        version=result.version,
        images=0,
        added=added,
        known=total - added,
        capped=sum(item.count for item in classes) - total,
        classes={c.name: c.count for c in result.classes if c.name in names},
        resumed_units=0,
        content_hash=result.content_hash(),
        seconds=time.perf_counter() - start,
        failures=(),
        warnings=(),
    )


def _copy_thumbnails(database: Database, other: Database, segment_ids: list[int]) -> None:
    pictures = {segment_id: other.thumbnail(segment_id) for segment_id in segment_ids}
    database.store_thumbnails({segment_id: data for segment_id, data in pictures.items() if data is not None})


def _batches(other: Database, item: StoredClass, shots: int | None) -> Iterator[list[tuple[int, int, StoredSegment]]]:
    batch: list[tuple[int, int, StoredSegment]] = []
    for count, entry in enumerate(other.iter_segments([item.id])):
        if shots is not None and count >= shots:
            break
        batch.append(entry)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch

"""Segments that travel between databases of one feature space, with their vectors and thumbnails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from retclip.core.errors import FeatureSpaceMismatch
from retclip.shards import durable
from retclip.shards.class_union import ClassUnion
from retclip.shards.classes import StoredClass
from retclip.shards.creation import refuse_existing
from retclip.shards.database import Database
from retclip.shards.media import write_thumbnails
from retclip.shards.sweep import remove_abandoned
from retclip.shards.transaction import Transaction

if TYPE_CHECKING:  # needs Arrow
    from retclip.shards.portable import Facts

_BATCH = 1024


@dataclass(frozen=True)
class Merged:
    """What a merge made.

    Attributes:
        database: the new database.
        known: segments of the second database that the first has too; those of the first were taken.
        conflicts: what the two say differently, one sentence each.
    """

    database: Database
    known: int
    conflicts: tuple[str, ...]


def copy_segments(
    transaction: Transaction, target: Path, other: Database, labels: Mapping[str, str], shots: int | None = None
) -> tuple[int, int]:
    """Add classes of another database of the same feature space, with their names and thumbnails.

    A segment that has a thumbnail keeps it.

    Args:
        transaction: what writes.
        target: folder of the database that it writes.
        other: where the segments are.
        labels: for the name of each class of it that is copied, the class that takes the segments.
        shots: at most so many segments, None for all.

    Returns:
        How many segments were offered, and how many of them were new.
    """
    offered = added = 0
    items = [item for item in other.classes if item.name in labels]
    # All classes in one walk: a read of the rows of a single class reads those of its neighbours too.
    rows = islice(other.iter_segments([item.id for item in items]), shots)
    while batch := list(islice(rows, _BATCH)):
        offered += len(batch)
        vectors = other.vectors([(shard, row) for shard, row, _ in batch])
        added += transaction.add([replace(segment, label=labels[segment.label]) for _, _, segment in batch], vectors)
        pictures = ((segment.segment_id, other.thumbnail(segment.segment_id)) for _, _, segment in batch)
        if kept := {segment_id: data for segment_id, data in pictures if data is not None}:
            write_thumbnails(target, kept, overwrite=False)
    for item in items:
        transaction.declare(labels[item.name], (item.name, *item.aliases))
    return offered, added


def copy_database(source: Database, target: Path, labels: Sequence[str], program: str) -> Database:
    """Make a new database with the live segments of a version, or of some of its classes; it has no history.

    Raises:
        DatabaseError: E307 when `target` exists, E309 for a class that the source lacks.
    """
    found = {source.manifest.classes.find(label) for label in labels}
    with new_database(target, source) as staged, staged.write("copy", program) as transaction:
        transaction.record_models(source.models)
        names = (item.name for item in source.classes if not labels or item.id in found)
        copy_segments(transaction, staged.path, source, {name: name for name in names})
        transaction.commit(f"copy of {source.name}@{source.version}")
    return Database.open(target)


def merge_databases(first: Database, second: Database, target: Path, program: str) -> Merged:
    """Make a new database with the segments of two; classes that share a name become one.

    Where they contradict each other the first one is followed, and the contradiction is told.

    Raises:
        FeatureSpaceMismatch: E301, the vectors of the two are not comparable.
        DatabaseError: E307 when `target` exists.
    """
    refuse_other_space(second, first)
    conflicts = []
    if first.transform != second.transform:
        conflicts.append(f"key transform: '{first.transform}' is taken, {second.name} has '{second.transform}'")
    differing: Counter[tuple[str, str]] = Counter()
    labels = {}
    with new_database(target, first) as staged, staged.write("merge", program) as transaction:
        transaction.record_models([*first.models, *second.models])
        copy_segments(transaction, staged.path, first, {item.name: item.name for item in first.classes})
        union = ClassUnion(first.classes)
        for item in second.classes:
            homes = union.homes(item)
            conflicts += _doubts(item, homes)
            labels[item.name] = label = homes[0].name if homes else item.name
            differing.update((kept, label) for kept in _labels_in(first, second, item) if kept != label)
        offered, added = copy_segments(transaction, staged.path, second, labels)
        transaction.commit(f"{first.name}@{first.version} and {second.name}@{second.version}")
    conflicts += [f"{n} segments are '{a}' in {first.name}, '{b}' in {second.name}" for (a, b), n in differing.items()]
    return Merged(Database.open(target), offered - added, tuple(conflicts))


def _labels_in(first: Database, second: Database, item: StoredClass) -> Iterator[str]:
    """Label in `first` of every segment that it shares with a class of `second`."""
    for shard, rows in second.snapshot.class_rows(item.id):
        yield from first.live_labels(second.snapshot.shards[shard].reader.row_ids[rows].tolist()).values()


def refuse_other_space(other: Database, database: Database) -> None:
    """Raise FeatureSpaceMismatch when two databases hold vectors of different encoders."""
    if other.space != database.space:
        raise FeatureSpaceMismatch(
            other.name, other.space.encoder, database.space.encoder, other.space.differences(database.space)
        )


def _doubts(item: StoredClass, homes: Sequence[StoredClass]) -> Iterator[str]:
    """What is doubtful about the class that takes `item`, which is the first of `homes`."""
    if len(homes) > 1:
        yield f"'{item.name}' fits {len(homes)} classes by its names; '{homes[0].name}' takes it"
    if homes and homes[0].is_thing != item.is_thing:
        kind, other = ("thing", "stuff") if homes[0].is_thing else ("stuff", "thing")
        yield f"'{homes[0].name}' is {kind} in the first, {other} in the second; the larger number decides"


@contextmanager
def new_database(target: Path, like: Database | Facts) -> Iterator[Database]:
    """A database beside `target` with the settings of another one; it takes the name when the block ends well."""
    target = target.absolute()
    refuse_existing(target)
    remove_abandoned(target.parent)
    staged = target.with_name(durable.STAGING_PREFIX + durable.new_id())
    try:
        yield Database.create(staged, like.space, like.preset, like.transform)
        durable.publish_folder(staged, target)
    except BaseException:
        if staged.exists():
            durable.remove(staged)
        raise

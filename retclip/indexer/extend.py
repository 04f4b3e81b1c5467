"""Teaching a database from another database: segments travel with their vectors, no network runs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from retclip import __version__
from retclip.core.errors import DatabaseError
from retclip.core.vocabulary import Vocabulary, normalise_name
from retclip.indexer.report import RunReport
from retclip.shards import Database, StoredClass
from retclip.shards.compaction import told
from retclip.shards.copying import copy_segments, refuse_other_space


def copyable(database: Database, other: Database, vocabulary: Vocabulary) -> list[StoredClass]:
    """Classes of `other` that share a name with an asked category.

    Raises:
        FeatureSpaceMismatch: the two databases hold vectors of different encoders.
        DatabaseError: E309 when `other` has none of the classes.
    """
    refuse_other_space(other, database)
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
            offered, fresh = copy_segments(transaction, database.path, other, {item.name: item.name}, shots)
            total, added = total + offered, added + fresh
            transaction.declare(item.name, _asked_names(item, vocabulary, (database, other)))
        note = f"{added} segments from {other.name}@{other.version}"
        result = transaction.commit(note + told(transaction.compact()) if added else note)
    taken = {item.name for item in classes}
    return RunReport(
        database=result.name,
        version=result.version,
        images=0,
        added=added,
        known=total - added,
        capped=sum(item.count for item in classes) - total,
        classes={c.name: c.count for c in result.classes if c.name in taken},
        resumed_units=0,
        content_hash=result.content_hash(),
        seconds=time.perf_counter() - start,
        failures=(),
        warnings=(),
    )


def _asked_names(item: StoredClass, vocabulary: Vocabulary, databases: Sequence[Database]) -> list[str]:
    """Names under which a copied class was asked for, so that the next question finds it; never another class's own."""
    own = {normalise_name(name) for name in (item.name, *item.aliases)}
    taken = {
        normalise_name(name)
        for database in databases
        for known in database.classes
        for name in (known.name, *known.aliases)
    }
    return [
        name
        for category in vocabulary
        if own & {normalise_name(name) for name in category.names}
        for name in category.names
        if normalise_name(name) not in taken
    ]

"""LanceDB: one table per exported version, in a folder or an object store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lancedb
import numpy as np
import numpy.typing as npt
from lancedb.index import Bitmap, BTree

from retclip.adapters.vector_engines.hits import Hits
from retclip.adapters.vector_engines.places import Place, check_folder, explained, not_exported, one_of, taken
from retclip.core.segments import StoredSegment
from retclip.shards import Database
from retclip.shards.portable import KEY, Facts, facts_in, facts_of, key_reader, vectors_in
from retclip.shards.tables import to_segments

_ROWS_AT_ONCE = 1000


class LanceEngine:
    """See `VectorEngine`.

    Args:
        place: a folder or the address of an object store, and which table of it.
        exact: scan all asked rows, also where the table was given a vector index.

    Raises:
        DatabaseError: E332 when there is no such table, or several and none was named; E334 when it is no export.
    """

    def __init__(self, place: Place, exact: bool = True) -> None:
        check_folder(place)
        self.place, self._exact = place, exact
        with explained(place):
            connection = lancedb.connect(place.where)
            self._table = connection.open_table(one_of(_tables(connection), place))
        try:
            self.facts: Facts = facts_in(self._table.schema)
        except (KeyError, TypeError, ValueError) as error:
            raise not_exported(place, error) from error

    def nearest(self, asked: npt.NDArray[np.float32], count: int, classes: Sequence[int] | None) -> list[Hits]:
        """See `VectorEngine`."""
        query = self._table.search(asked, vector_column_name=KEY).distance_type("dot").limit(count)
        query = query.select(["row", "class_id", "segment_id", KEY, "_distance"])
        if classes is not None:
            query = query.where(f"class_id IN ({', '.join(map(str, classes))})", prefilter=True)
        if self._exact:
            query = query.bypass_vector_index()
        with explained(self.place):
            found = query.to_arrow()
        # One query alone comes back without its number.
        number = found["query_index"].to_numpy() if "query_index" in found.column_names else np.zeros(len(found), int)
        rows, classes_found, ids = (found[name].to_numpy() for name in ("row", "class_id", "segment_id"))
        keys = vectors_in(found[KEY])
        groups = (np.flatnonzero(number == index) for index in range(len(asked)))
        return [Hits(rows[mine], classes_found[mine], ids[mine], keys[mine]) for mine in groups]

    def segments(self, rows: Sequence[int]) -> list[StoredSegment]:
        """See `VectorEngine`."""
        found: dict[int, StoredSegment] = {}
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = sorted({int(row) for row in rows[start : start + _ROWS_AT_ONCE]})
            query = self._table.search().where(f"row IN ({', '.join(map(str, part))})").limit(len(part))
            with explained(self.place):
                table = query.to_arrow()
            stored = to_segments(table, table["label"].to_pylist())
            found.update(zip(table["row"].to_pylist(), stored, strict=True))
        return [found[int(row)] for row in rows]

    def close(self) -> None:
        """Nothing is held open between calls."""


def export_to_lance(database: Database, place: Place, transform: str) -> int:
    """Write a version into a new table, which appears when all rows are in it; returns the number of rows.

    Raises:
        DatabaseError: E307 when the table exists, E332 when the place cannot be written.
    """
    facts = facts_of(database, transform)
    name = place.name or database.name
    with explained(place):
        connection = lancedb.connect(place.where)
        if name in _tables(connection):
            raise taken(place, name)
        table: Any = connection.create_table(name, key_reader(database, facts), mode="create")
        table.create_index("class_id", config=Bitmap())
        table.create_index("row", config=BTree())
    return len(facts)


def _tables(connection: Any) -> list[str]:
    """Names of all tables, page by page."""
    names: list[str] = []
    page = connection.list_tables()
    names.extend(page.tables)
    while page.page_token:
        page = connection.list_tables(page_token=page.page_token)
        names.extend(page.tables)
    return names

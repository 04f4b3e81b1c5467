"""Qdrant: one collection per exported version, on a server or in a folder of its local mode."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import QdrantClient, models

from retclip.adapters.vector_engines.hits import Hits
from retclip.adapters.vector_engines.places import Place, check_folder, explained, not_exported, one_of, taken
from retclip.core.segments import StoredSegment
from retclip.shards import Database
from retclip.shards.portable import KEY, Facts, facts_of, key_reader, vectors_in
from retclip.shards.tables import to_segments

_FACTS = "retclip"  # in the metadata of the collection
_UPLOAD_ROWS = 256


class QdrantEngine:
    """See `VectorEngine`. The local mode scans all points in Python and locks its folder: for small data.

    Args:
        place: a folder or the address of a server, and which collection of it; $QDRANT_API_KEY goes to servers.
        exact: let a server scan all asked points instead of walking its graph.

    Raises:
        DatabaseError: E332 when there is no such collection, several and none was named, or no way to it; E334 when
            it is no export.
    """

    def __init__(self, place: Place, exact: bool = True) -> None:
        check_folder(place)
        self.place = place
        self._client = _connect(place)
        # The local mode always scans, and warns of a parameter that says so.
        self._search = models.SearchParams(exact=True) if exact and place.is_remote else None
        try:
            with explained(place):
                self._name = one_of([item.name for item in self._client.get_collections().collections], place)
                metadata = self._client.get_collection(self._name).config.metadata or {}
            self.facts = Facts.from_text(metadata[_FACTS])
        except (KeyError, TypeError, ValueError) as error:
            self._client.close()
            raise not_exported(place, error) from error
        except BaseException:
            self._client.close()
            raise

    def nearest(self, asked: npt.NDArray[np.float32], count: int, classes: Sequence[int] | None) -> list[Hits]:
        """See `VectorEngine`."""
        among = None
        if classes is not None:
            match = models.MatchAny(any=list(classes))
            among = models.Filter(must=[models.FieldCondition(key="class_id", match=match)])
        requests = [
            models.QueryRequest(
                query=key.tolist(),
                filter=among,
                limit=count,
                params=self._search,
                with_payload=["class_id", "segment_id"],
                with_vector=True,
            )
            for key in asked
        ]
        with explained(self.place):
            answers = self._client.query_batch_points(self._name, requests)
        return [_hits(answer.points, asked.shape[1]) for answer in answers]

    def segments(self, rows: Sequence[int]) -> list[StoredSegment]:
        """See `VectorEngine`."""
        with explained(self.place):
            points = self._client.retrieve(self._name, sorted({int(row) for row in rows}), with_payload=True)
        found = {point.id: _segment(point.payload or {}) for point in points}
        return [found[int(row)] for row in rows]

    def close(self) -> None:
        """Let go of the connection, or of the lock on the folder."""
        self._client.close()


def export_to_qdrant(database: Database, place: Place, transform: str) -> int:
    """Write a version into a new collection; the facts come last, so half an export is never opened.

    Returns:
        How many points were written.

    Raises:
        DatabaseError: E307 when the collection exists, E332 when the place cannot be written.
    """
    facts = facts_of(database, transform)
    name = place.name or database.name
    client = _connect(place)
    try:
        with explained(place):
            if client.collection_exists(name):
                raise taken(place, name)
            batches = key_reader(database, facts)
            width = batches.schema.field(KEY).type.list_size
            # Keys have unit length: their dot product is the cosine, and Qdrant stores them as they are.
            client.create_collection(name, vectors_config=models.VectorParams(size=width, distance=models.Distance.DOT))
            if place.is_remote:
                client.create_payload_index(name, "class_id", models.PayloadSchemaType.INTEGER, wait=True)
            client.upload_points(name, _points(batches), batch_size=_UPLOAD_ROWS, wait=True)
            client.update_collection(name, metadata={_FACTS: facts.to_text()})
    finally:
        client.close()
    return len(facts)


def _connect(place: Place) -> QdrantClient:
    with explained(place):
        if place.is_remote:
            return QdrantClient(url=place.where, api_key=os.environ.get("QDRANT_API_KEY"))
        return QdrantClient(path=place.where)


def _points(batches: Any) -> Iterator[models.PointStruct]:
    for batch in batches:
        segments = to_segments(batch, batch["label"].to_pylist())
        keys = vectors_in(batch[KEY]).tolist()
        numbers = (batch[name].to_pylist() for name in ("row", "class_id"))
        for row, class_id, key, segment in zip(*numbers, keys, segments, strict=True):
            yield models.PointStruct(id=row, vector=key, payload={"class_id": class_id, **_payload(segment)})


def _payload(segment: StoredSegment) -> dict[str, Any]:
    """A segment as JSON: ids beyond 2^63 as hexadecimal text, bytes as base64, NaN as null."""
    values = {field.name: getattr(segment, field.name) for field in fields(segment)}
    plain = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
    counts = base64.b64encode(segment.mask_counts).decode()
    return {**plain, "segment_id": f"{segment.segment_id:016x}", "mask_counts": counts, "box": list(segment.box)}


def _segment(payload: dict[str, Any]) -> StoredSegment:
    values = {field.name: payload[field.name] for field in fields(StoredSegment)}
    for name in ("detector_score", "mask_iou"):
        values[name] = math.nan if values[name] is None else values[name]
    values["segment_id"] = int(values["segment_id"], 16)
    values["mask_counts"] = base64.b64decode(values["mask_counts"])
    values["box"] = tuple(values["box"])
    return StoredSegment(**values)


def _hits(points: Sequence[Any], width: int) -> Hits:
    return Hits(
        np.array([point.id for point in points], np.int64),
        np.array([point.payload["class_id"] for point in points], np.int32),
        np.array([int(point.payload["segment_id"], 16) for point in points], np.uint64),
        np.array([point.vector for point in points], np.float32).reshape(-1, width),
    )

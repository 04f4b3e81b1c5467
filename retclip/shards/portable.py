"""A database version as other programs can hold it: its rows as columns, and its facts as one JSON text.

Facts stand in the metadata of the table that carries the rows, so a copy explains itself without the database.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retclip.core.errors import require
from retclip.core.identity import FeatureSpace
from retclip.shards import tables
from retclip.shards.classes import StoredClass
from retclip.shards.compaction import live_batches
from retclip.shards.database import Database
from retclip.shards.moments import Moments
from retclip.shards.shard_writer import RowBatch
from retclip.shards.transforms import KeyTransform, fit

FORMAT = 1
KEY = "key"
_MARK = b"retclip"  # of the schema metadata
_ARRAYS = ("offset", "scale", "matrix", "unit")


@dataclass(frozen=True)
class Facts:
    """What a copy says about the version that it was made from.

    Attributes:
        name, version, space, preset, models, classes, content_hash: see `Database`.
        transform: key transform of searches that do not name one.
        keys: the transform that was applied to the stored vectors, None where they are as in the database.
    """

    name: str
    version: int
    space: FeatureSpace
    preset: Mapping[str, Any]
    transform: str
    models: tuple[Mapping[str, str], ...]
    classes: tuple[StoredClass, ...]
    content_hash: str
    keys: KeyTransform | None = None

    def __len__(self) -> int:
        return sum(item.count for item in self.classes)

    def to_text(self) -> str:
        """As JSON."""
        plain = {name: getattr(self, name) for name in ("name", "version", "transform", "content_hash")}
        return json.dumps(
            {
                **plain,
                "format": FORMAT,
                "space": self.space.to_json(),
                "preset": dict(self.preset),
                "models": [dict(model) for model in self.models],
                "classes": [asdict(item) for item in self.classes],
                "keys": None if self.keys is None else _transform_json(self.keys),
            }
        )

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Inverse of `to_text`. Raises ValueError, KeyError or TypeError for anything else."""
        fields = json.loads(text)
        require(fields["format"] == FORMAT, "format of the copy", str(FORMAT), fields["format"])
        return cls(
            name=str(fields["name"]),
            version=int(fields["version"]),
            space=FeatureSpace.from_json(fields["space"]),
            preset=dict(fields["preset"]),
            transform=str(fields["transform"]),
            models=tuple({str(k): str(v) for k, v in model.items()} for model in fields["models"]),
            classes=tuple(StoredClass(**{**item, "aliases": tuple(item["aliases"])}) for item in fields["classes"]),
            content_hash=str(fields["content_hash"]),
            keys=None if fields["keys"] is None else _transform_of(fields["keys"]),
        )


def facts_of(database: Database, kind: str | None = None) -> Facts:
    """Facts of a copy whose vectors went through a key transform, None = as they are.

    Raises:
        ValueError: for an unknown transform.
        DatabaseError: E302 for too few rows to fit one.
    """
    keys = None
    if kind is not None:
        keys = fit(kind, Moments.zero(database.space.dim) if kind == "none" else database.snapshot.moments())
    return Facts(
        name=database.name,
        version=database.version,
        space=database.space,
        preset=database.preset,
        transform=kind or database.transform,
        models=tuple(database.models),
        classes=database.classes,
        content_hash=database.content_hash(),
        keys=keys,
    )


def row_batches(database: Database) -> Iterator[RowBatch]:
    """Live rows in bounded pieces, each with the label and the class that it has in this version."""
    names = {item.id: item.name for item in database.classes}
    place = tables.SEGMENT_SCHEMA.get_field_index("label")
    for shard in range(len(database.snapshot.shards)):
        for batch in live_batches(database.snapshot, shard):
            labels = pa.array([names[class_id] for class_id in batch.class_ids.tolist()], pa.string())
            table = batch.table.set_column(place, tables.SEGMENT_SCHEMA[place], labels)
            yield RowBatch(table, batch.class_ids, batch.vectors)


def key_reader(database: Database, facts: Facts) -> Any:
    """Arrow record batches of all live rows for a vector engine, with the facts in the metadata of their schema.

    Columns are those of `StoredSegment`, `class_id` int32, `row` int64 counted from 0, and `key`: the (r,) float32 unit
    vector that `facts.keys` makes.
    """
    transform = facts.keys
    assert transform is not None
    width = transform.width(database.space.dim)
    numbers = [pa.field("class_id", pa.int32()), pa.field("row", pa.int64())]
    key = pa.field(KEY, pa.list_(pa.float32(), width))
    schema = pa.schema([*tables.SEGMENT_SCHEMA, *numbers, key], {_MARK: facts.to_text().encode()})

    def batches() -> Iterator[Any]:
        first = 0
        for batch in row_batches(database):
            count = len(batch.class_ids)
            keys = transform.keys(batch.vectors).astype(np.float32)
            columns = [
                *(batch.table[name].combine_chunks() for name in tables.SEGMENT_SCHEMA.names),
                pa.array(batch.class_ids, pa.int32()),
                pa.array(np.arange(first, first + count), pa.int64()),
                pa.FixedSizeListArray.from_arrays(pa.array(keys.reshape(-1)), width),
            ]
            first += count
            yield pa.record_batch(columns, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def facts_in(schema: Any) -> Facts:
    """Facts in the metadata of an Arrow schema. Raises ValueError, KeyError or TypeError where there are none."""
    return Facts.from_text((schema.metadata or {})[_MARK].decode())


def marked(schema: Any, facts: Facts) -> Any:
    """An Arrow schema with facts in its metadata."""
    return schema.with_metadata({_MARK: facts.to_text().encode()})


def vectors_in(column: Any) -> npt.NDArray[Any]:
    """(n, D) array of an Arrow array or column of fixed-size lists."""
    values: npt.NDArray[Any] = pc.list_flatten(column).to_numpy()
    return values.reshape(len(column), column.type.list_size)


def _transform_json(transform: KeyTransform) -> dict[str, Any]:
    arrays = {name: getattr(transform, name) for name in _ARRAYS}
    return {"kind": transform.kind} | {
        name: None if array is None else {"shape": array.shape, "data": base64.b64encode(array.tobytes()).decode()}
        for name, array in arrays.items()
    }


def _transform_of(fields: Mapping[str, Any]) -> KeyTransform:
    arrays: dict[str, Any] = {
        name: None
        if fields[name] is None
        else np.frombuffer(base64.b64decode(fields[name]["data"]), "<f8").reshape(fields[name]["shape"])
        for name in _ARRAYS
    }
    return KeyTransform(str(fields["kind"]), **arrays)

"""Several databases asked as one: a user's own classes over a large common database.

The shards of all layers stand in one snapshot under one class table, so distances, key transforms, ties and limits per
class are those of a single database that holds the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from retclip.core.errors import DatabaseError, require
from retclip.core.identity import FeatureSpace
from retclip.core.segments import Neighbors, StoredSegment
from retclip.core.threads import cached_property
from retclip.shards.catalog import is_engine, open_database
from retclip.shards.class_union import ClassUnion
from retclip.shards.classes import ClassEntry, ClassTable, StoredClass
from retclip.shards.copying import refuse_other_space
from retclip.shards.database import Database
from retclip.shards.records import Records
from retclip.shards.search import Request, Searcher
from retclip.shards.shard_reader import ShardReader
from retclip.shards.snapshot import LiveShard, Snapshot, stored_classes

Layering = Literal["first", "merged"]


class LayeredIndex:
    """Databases of one feature space as a `NeighborIndex`. A segment that several hold counts once, in the first.

    Args:
        layers: databases, the most important first.
        layering: what happens to a class that several layers know: `first` asks only the first of them, `merged` all.

    Raises:
        FeatureSpaceMismatch: E301, vectors of two layers are not comparable.
        ValueError: for no layers or another layering.
    """

    def __init__(self, layers: Sequence[Database], layering: Layering = "first") -> None:
        require(bool(layers), "layers", "at least one database", 0)
        require(layering in get_args(Layering), "layering", "first or merged", repr(layering))
        for layer in layers[1:]:
            refuse_other_space(layer, layers[0])
        self.layers = tuple(layers)
        self.layering = layering
        offsets = np.cumsum([0, *(layer.manifest.classes.next_id for layer in layers)]).tolist()
        table = ClassTable(_joint_entries(layers, offsets, layering), offsets[-1])
        self.snapshot = Snapshot(_joint_shards(layers, offsets, table), table, layers[0].space.dim)
        self._first_shards = np.cumsum([0, *(len(layer.snapshot.shards) for layer in layers)])
        self._searcher = Searcher(self.snapshot)
        self._records = Records(self.snapshot)

    @property
    def name(self) -> str:
        """Names of all layers, separated by commas."""
        return ",".join(layer.name for layer in self.layers)

    @property
    def version(self) -> int:
        """Version of the first layer; `databases` has all."""
        return self.layers[0].version

    @property
    def space(self) -> FeatureSpace:
        """What made the vectors."""
        return self.layers[0].space

    @property
    def preset(self) -> Mapping[str, Any]:
        """Settings of the first layer's build."""
        return self.layers[0].preset

    @property
    def transform(self) -> str:
        """Key transform of the first layer, fitted to the rows of all."""
        return self.layers[0].transform

    @cached_property
    def databases(self) -> Sequence[Mapping[str, Any]]:
        """Name, version and feature space of every layer, the layering, and the classes that each layer answers for."""
        owners = [0] * len(self.layers)
        for item in self.classes:
            for layer in {self._layer(shard) for shard, _ in self.snapshot.class_rows(item.id)}:
                owners[layer] += 1
        return [
            {**layer.databases[0], "layering": self.layering, "classes": count}
            for layer, count in zip(self.layers, owners, strict=True)
        ]

    def __len__(self) -> int:
        return self.snapshot.live_rows()

    @cached_property
    def classes(self) -> tuple[StoredClass, ...]:
        """Classes with live segments; their ids are those of this object."""
        return stored_classes(self.snapshot.classes, self.snapshot.counts())

    def search(
        self,
        queries: npt.NDArray[np.floating],
        k: int,
        classes: Sequence[int] | None = None,
        per_class_k: int | None = None,
        transform: str | None = None,
    ) -> Neighbors:
        """Nearest segments of all layers; see `Database.search`."""
        known = [item.id for item in self.classes]
        asked = known if classes is None else sorted(set(classes))
        if unknown := sorted(set(asked) - set(known)):
            raise DatabaseError(
                "E309",
                f"The layers {self.name} have no class with id {unknown[0]}.",
                why="Ids come from `classes` of the same object, which numbers the classes of all layers anew.",
            )
        return self._searcher.search(queries, Request(k, tuple(asked), per_class_k, transform or self.transform))

    def segments(self, positions: Sequence[tuple[int, int]]) -> list[StoredSegment]:
        """Records at (shard, row) positions of search results."""
        return self._records.segments(positions)

    def origin(self, shard: int) -> str:
        """`name@version` of the layer that holds a shard of search results."""
        return self.layers[self._layer(shard)].origin(shard)

    def thumbnail(self, segment_id: int) -> bytes | None:
        """JPEG bytes of a thumbnail from the first layer that has one."""
        return next((data for layer in self.layers if (data := layer.thumbnail(segment_id)) is not None), None)

    def _layer(self, shard: int) -> int:
        return int(np.searchsorted(self._first_shards, shard, side="right")) - 1


def open_layers(reference: str, layering: Layering = "first") -> Database | LayeredIndex:
    """The index that `--db` means: one database by name or path, or several separated by commas.

    Raises:
        DatabaseError: those of `open_database`; E306 for a vector engine among several.
        FeatureSpaceMismatch: E301, vectors of two layers are not comparable.
    """
    parts = [part.strip() for part in reference.split(",")]
    if len(parts) > 1 and any(map(is_engine, parts)):
        raise DatabaseError(
            "E306",
            "Vector engines cannot be layered with others.",
            why=f"'{reference}' names several databases, and one of them is in an engine.",
            fix="Ask the engine alone, or layer databases of retclip's own.",
        )
    layers = [open_database(part) for part in parts]
    return layers[0] if len(layers) == 1 else LayeredIndex(layers, layering)


def layers_of(index: Database | LayeredIndex) -> tuple[Database, ...]:
    """The databases behind an index, the most important first."""
    return index.layers if isinstance(index, LayeredIndex) else (index,)


def reopen(places: Sequence[tuple[Path, int | None]], layering: Layering) -> Database | LayeredIndex:
    """The index over databases by (path, version; None = the newest), as another process opens it."""
    layers = [Database.open(path, version) for path, version in places]
    return layers[0] if len(layers) == 1 else LayeredIndex(layers, layering)


class _ShiftedReader(ShardReader):
    """A shard whose class ids are moved by a number, so that the ids of two databases cannot meet."""

    def __init__(self, reader: ShardReader, offset: int) -> None:
        super().__init__(reader.folder, reader.entry, reader.dim)
        self._offset = offset

    @cached_property
    def classes(self) -> dict[str, npt.NDArray[Any]]:
        """Columns of classes.arrow with moved ids."""
        columns = super().classes
        return {**columns, "class_id": columns["class_id"] + np.int32(self._offset)}


def _joint_entries(layers: Sequence[Database], offsets: Sequence[int], layering: Layering) -> Iterable[ClassEntry]:
    """Classes of all layers; one that an earlier layer knows goes into the earlier class, or is not asked.

    Either way those of its names that are free lead to the earlier class.
    """
    union = ClassUnion()
    entries: dict[int, ClassEntry] = {}
    for layer, offset in zip(layers, offsets, strict=False):
        own = [replace(item, id=item.id + offset) for item in layer.classes]
        homes = {item.id: found[0] for item in own if (found := union.homes(item))}
        for entry in layer.manifest.classes:
            into = entry.into + offset if entry.into >= 0 else -1
            entries[entry.id + offset] = replace(entry, id=entry.id + offset, into=into)
        for item in own:
            home = homes.get(item.id, item)
            gained = union.join(item, home)
            if home is not item:
                kept, moved = entries[home.id], entries[item.id]
                entries[home.id] = replace(kept, aliases=(*kept.aliases, *gained))
                dead = replace(moved, state="deleted")
                entries[item.id] = dead if layering == "first" else replace(moved, state="merged", into=home.id)
    return entries.values()


def _joint_shards(layers: Sequence[Database], offsets: Sequence[int], table: ClassTable) -> Iterator[LiveShard]:
    """Shards of all layers; rows whose segment an earlier layer answers with are dead."""
    earlier = np.zeros(0, np.uint64)
    for layer, offset in zip(layers, offsets, strict=False):
        mine = []
        for part in layer.snapshot.shards:
            ids = part.reader.row_ids
            doubled = np.flatnonzero(np.isin(ids, earlier))
            joint = LiveShard(_ShiftedReader(part.reader, offset), part.dead | BitMap(doubled.tolist()))
            # A class that is not asked here takes no segment from the layers after it.
            mine.append(ids[Snapshot([joint], table, layer.space.dim).live_mask(0)])
            yield joint
        earlier = np.concatenate([earlier, *mine])

"""The database as the query side sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retclip.core.identity import FeatureSpace
from retclip.core.segments import Neighbors, StoredSegment


class StoredClass(Protocol):
    """A class of a database version."""

    @property
    def id(self) -> int:
        """Stable inside a database."""
        ...

    @property
    def name(self) -> str:
        """The name shown to people."""
        ...

    @property
    def aliases(self) -> tuple[str, ...]:
        """Further names of the same class."""
        ...

    @property
    def is_thing(self) -> bool:
        """Countable object (True) or stuff."""
        ...


class NeighborIndex(Protocol):
    """One version of a segment database."""

    @property
    def name(self) -> str:
        """Name of the database."""
        ...

    @property
    def version(self) -> int:
        """Version that answers."""
        ...

    @property
    def space(self) -> FeatureSpace:
        """What its vectors are."""
        ...

    @property
    def classes(self) -> Sequence[StoredClass]:
        """Classes with live segments."""
        ...

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        classes: Sequence[int] | None = None,
        per_class_k: int | None = None,
        transform: str | None = None,
    ) -> Neighbors:
        """Nearest live segments of queries (M, D) in the given classes, at most k each, at most per_class_k of one."""
        ...

    @property
    def databases(self) -> Sequence[Mapping[str, Any]]:
        """Name, version and feature space of every database that answers, for the record of a run."""
        ...

    def origin(self, shard: int) -> str:
        """`name@version` of the database that holds a shard of search results."""
        ...

    def segments(self, positions: Sequence[tuple[int, int]]) -> list[StoredSegment]:
        """Records at (shard, row) positions."""
        ...

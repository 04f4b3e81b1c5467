"""Evaluation pictures that the database has already seen: equal bytes, or features too close for chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from retclip.core.errors import InputError
from retclip.shards import Database

# What is near depends on the encoder: nearer than all but this share of stored segments are to other pictures.
NEAR_QUANTILE = 0.05
# One segment may look like another by chance (two skies); half of a picture's segments and more than one do not.
NEAR_SHARE = 0.5
_SAMPLE = 500
_NEIGHBORS = 8  # a stored segment whose nearest 8 lie in its own picture says nothing of other pictures
_SEED = 0
_SHOWN = 3


@dataclass(frozen=True)
class Leak:
    """One evaluation picture that the database knows.

    Attributes:
        image: its path or id; stored: id of the picture in the database.
        reason: `same bytes` or `near-duplicate features`.
        share: part of its segments whose nearest stored segment belongs to that one picture and is nearly equal.
    """

    image: str
    stored: str
    reason: str
    share: float


class LeakGuard:
    """Knows the pictures of one database version, and how near segments of different pictures come in it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._digests = database.snapshot.distinct("image_sha256")

    @cached_property
    def limits(self) -> tuple[float, float]:
        """Distances of a near segment: where a picture has several, and where it has only one (the least ever met)."""
        live = [
            np.flatnonzero(self._database.snapshot.live_mask(n)) for n in range(len(self._database.snapshot.shards))
        ]
        places = [(shard, row) for shard, rows in enumerate(live) for row in rows.tolist()]
        chosen = np.random.default_rng(_SEED).permutation(len(places))[:_SAMPLE]
        sample = [places[number] for number in chosen.tolist()]
        found = self._database.search(self._database.vectors(sample), _NEIGHBORS, transform="none")
        own = [segment.image_sha256 for segment in self._database.segments(sample)]
        nearest = []
        for row, digest in enumerate(own):
            hits = [
                (int(found.shard[row, k]), int(found.row[row, k])) for k in np.flatnonzero(found.class_id[row] >= 0)
            ]
            other = [segment.image_sha256 != digest for segment in self._database.segments(hits)]
            if any(other):
                nearest.append(float(found.distance[row, other.index(True)]))
        return (float(np.quantile(nearest, NEAR_QUANTILE)), min(nearest)) if nearest else (0.0, 0.0)

    def check(self, name: str, sha256: str, keys: npt.NDArray[np.float32]) -> Leak | None:
        """Whether one evaluation picture is in the database.

        Args:
            name: of the picture, for the message.
            sha256: of its file.
            keys: (N, D) unit vectors of its segments; zeros where a proposal showed no cell of the feature map.

        Raw vectors are compared: a key transform stretches small differences. Proposals should follow the rule of the
        stored segments (annotated masks against annotated masks); others can miss a leak, not invent one.
        """
        if sha256 in self._digests:
            return Leak(name, sha256[:12], "same bytes", 1.0)
        keys = keys[keys.any(axis=1)]
        if not len(keys):
            return None
        found = self._database.search(keys, 1, transform="none")
        limit = self.limits[0] if len(keys) > 1 else self.limits[1]
        near = np.flatnonzero(found.distance[:, 0] < limit)
        least = max(min(2, len(keys)), NEAR_SHARE * len(keys))
        if len(near) < least:
            return None
        stored = self._database.segments([(int(found.shard[row, 0]), int(found.row[row, 0])) for row in near])
        images, counts = np.unique([segment.image_id for segment in stored], return_counts=True)
        share = float(counts.max() / len(keys))
        return (
            Leak(name, str(images[counts.argmax()]), "near-duplicate features", share) if share >= NEAR_SHARE else None
        )


def refuse(leaks: Sequence[Leak], database: str) -> None:
    """Raise InputError E166 when there are leaks."""
    if leaks:
        shown = "; ".join(f"{leak.image} = {leak.stored} ({leak.reason})" for leak in leaks[:_SHOWN])
        more = f"; and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
        raise InputError(
            "E166",
            f"{len(leaks)} evaluation pictures are in database '{database}'.",
            why=f"Figures would measure memory: {shown}{more}.",
            fix="Evaluate on pictures the database was not built from, or pass --allow-leak to get a report marked so.",
        )

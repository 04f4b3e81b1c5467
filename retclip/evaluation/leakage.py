"""Evaluation pictures that the database has already seen: equal bytes, or features too close for chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retclip.core.errors import InputError
from retclip.shards import Database

# Re-encoded and rescaled copies of a photo stay above it, different photos of one scene below (see docs/evaluation.md).
NEAR_COSINE = 0.97
# One segment may look like another by chance (two skies); half of a picture's segments do not.
NEAR_SHARE = 0.5
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
    """Knows the pictures of one database version."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._digests = database.snapshot.distinct("image_sha256")

    def check(self, name: str, sha256: str, keys: npt.NDArray[np.float32]) -> Leak | None:
        """Whether one evaluation picture is in the database.

        Args:
            name: of the picture, for the message.
            sha256: of its file.
            keys: (N, D) unit vectors of its segments.

        Raw vectors are compared: a key transform stretches small differences. Proposals should follow the rule of the
        stored segments (annotated masks against annotated masks); others can miss a leak, not invent one.
        """
        if sha256 in self._digests:
            return Leak(name, sha256[:12], "same bytes", 1.0)
        if not len(keys):
            return None
        found = self._database.search(keys, 1, transform="none")
        near = np.flatnonzero((found.distance[:, 0] <= 1 - NEAR_COSINE) & (found.class_id[:, 0] >= 0))
        if not len(near) or len(near) < NEAR_SHARE * len(keys):
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

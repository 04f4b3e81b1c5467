"""Whether queries still look like what a database was built from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retclip.core.errors import require

FAR_PERCENTILE = 95


@dataclass(frozen=True)
class Drift:
    """Distances of queries to their nearest stored segment, against those between stored segments.

    Attributes:
        queries: how many.
        median, own_median: of the queries, and of stored segments to the nearest in another picture.
        far: share of the queries that are farther than `FAR_PERCENTILE` percent of the stored segments are; without
            drift it is 1 - FAR_PERCENTILE / 100.
    """

    queries: int
    median: float
    own_median: float
    far: float


def measure_drift(queries: npt.NDArray[np.floating], own: npt.NDArray[np.floating]) -> Drift:
    """Compare (M,) nearest distances of queries with the (N,) of `Health.nearest`. Raises ValueError for none."""
    require(len(queries) > 0 and len(own) > 0, "distances", "at least one of each", (len(queries), len(own)))
    limit = np.percentile(own, FAR_PERCENTILE)
    return Drift(len(queries), float(np.median(queries)), float(np.median(own)), float(np.mean(queries > limit)))

"""Figures of classes that training has seen and of those it has not, and their harmonic mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class SeenUnseen:
    """One figure over seen classes, over unseen ones, and the harmonic mean of both; NaN where a group is empty."""

    seen: float
    unseen: float
    harmonic: float


def harmonic_mean(first: float, second: float) -> float:
    """2ab / (a + b) of two fractions; 0 when both are 0, NaN when one is."""
    if math.isnan(first) or math.isnan(second):
        return math.nan
    return 2 * first * second / (first + second) if first + second > 0 else 0.0


def split_means(
    values: npt.NDArray[np.float64], counted: npt.NDArray[np.bool_], seen: npt.NDArray[np.bool_]
) -> SeenUnseen:
    """Means over seen and unseen classes.

    Args:
        values: (C,) one figure per class.
        counted: (C,) classes that the metric counts at all.
        seen: (C,) classes of the training set.
    """
    groups = [values[counted & chosen] for chosen in (seen, ~seen)]
    first, second = (float(group.mean()) if len(group) else math.nan for group in groups)
    return SeenUnseen(first, second, harmonic_mean(first, second))

"""Do scores mean what they say? Expected calibration error over equal bins (Guo et al. 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retclip.core.errors import require

BINS = 15


@dataclass(frozen=True)
class CalibrationBin:
    """One bin of scores: how many fell into it, their mean score and the share of right answers."""

    count: int
    score: float
    accuracy: float


class Calibration:
    """Collects (score, right or wrong) pairs in bins; memory does not grow."""

    def __init__(self) -> None:
        self._count = np.zeros(BINS, np.int64)
        self._score = np.zeros(BINS)
        self._right = np.zeros(BINS, np.int64)

    def add(self, score: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]) -> None:
        """Score (n,) in [0, 1], right (n,) bool. Bins are half-open, the last one holds 1."""
        require(score.shape == right.shape, "right", str(score.shape), right.shape)
        values = score.astype(np.float64)
        in_range = bool(((values >= 0) & (values <= 1)).all())
        require(in_range, "score", "numbers in [0, 1]", "something outside")
        index = np.minimum((values * BINS).astype(np.int64), BINS - 1)
        self._count += np.bincount(index, minlength=BINS)
        self._score += np.bincount(index, weights=values, minlength=BINS)
        self._right += np.bincount(index[right], minlength=BINS)

    def bins(self) -> tuple[CalibrationBin, ...]:
        """Bins that hold something, low scores first."""
        return tuple(
            CalibrationBin(int(count), float(score / count), float(right / count))
            for count, score, right in zip(self._count, self._score, self._right, strict=True)
            if count
        )

    def error(self) -> float:
        """Mean |score - accuracy| over bins, weighted by their counts; NaN without any pair."""
        total = int(self._count.sum())
        if total == 0:
            return math.nan
        return float(np.abs(self._score - self._right).sum() / total)

    def merge(self, other: Calibration) -> None:
        """Take over the pairs of another collection."""
        self._count += other._count
        self._score += other._score
        self._right += other._right

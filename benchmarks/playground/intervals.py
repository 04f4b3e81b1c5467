"""How sure the figures are: over seeds for a figure, over pictures for the difference of two trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from benchmarks.playground.measure import Counts
from benchmarks.playground.world import Chosen

RESAMPLES = 2000
_RANDOM_SEED = 0


@dataclass(frozen=True)
class Figure:
    """A figure in percent.

    Attributes:
        mean: over seeds.
        low, high: bounds of its 95 % interval; NaN for one seed.
        seeds: the figure of every seed.
    """

    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]


def over_seeds(values: Sequence[float]) -> Figure:
    """Mean with Student's interval: seeds differ in pictures and in databases, and both count."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Figure(mean, math.nan, math.nan, tuple(values))
    half = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return Figure(mean, mean - half, mean + half, tuple(values))


def paired_difference(better: Sequence[Counts], worse: Sequence[Counts], chosen: Chosen) -> Figure:
    """Difference of panoptic quality between two trials on the same pictures and, where both ask one, database.

    The interval is a bootstrap over pictures, drawn within each seed and the same for both trials; the databases stay
    as they are.

    Args:
        better, worse: per seed (I, 4, C), see `Outcome.counts`.
        chosen: (C,) classes over which quality is averaged.
    """
    random = np.random.default_rng(_RANDOM_SEED)
    differences = []
    for first, second in zip(better, worse, strict=True):
        draws = random.multinomial(len(first), np.full(len(first), 1 / len(first)), RESAMPLES)
        weights = np.concatenate([np.ones((1, len(first)), draws.dtype), draws])
        differences.append(panoptic_quality(weights, first, chosen) - panoptic_quality(weights, second, chosen))
    mean = np.mean(differences, axis=0)
    low, high = np.percentile(mean[1:], (2.5, 97.5))
    return Figure(float(mean[0]), float(low), float(high), tuple(float(values[0]) for values in differences))


def panoptic_quality(weights: npt.NDArray[np.integer], counts: Counts, chosen: Chosen) -> npt.NDArray[np.float64]:
    """(R,) percent for weightings (R, I) of pictures: mean over chosen classes that occur in truth or prediction."""
    total = np.tensordot(weights.astype(np.float64), counts[:, :, chosen], axes=1)
    size = total[:, 1] + 0.5 * (total[:, 2] + total[:, 3])
    quality = np.divide(total[:, 0], size, out=np.zeros_like(size), where=size > 0)
    return np.asarray(100 * quality.sum(axis=1) / np.maximum((size > 0).sum(axis=1), 1))


def quality_of(counts: Counts, chosen: Chosen) -> float:
    """Panoptic quality of the pictures of one seed, percent."""
    return float(panoptic_quality(np.ones((1, len(counts)), np.int64), counts, chosen)[0])

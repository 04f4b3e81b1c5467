"""How sure is a figure? Percentile intervals over resampled pictures (Efron 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retclip.core.errors import require
from retclip.evaluation.panoptic_quality import MatchCounts, summarise
from retclip.evaluation.semantic import SemanticConfusion
from retclip.evaluation.tally import ImageRow

RESAMPLES = 1000
_SEED = 0


@dataclass(frozen=True)
class Interval:
    """A figure with the bounds between which 95 % of resampled figures lie; fractions in [0, 1]."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figures:
    """The resampled figures of a run. label: share of segments found in their place that carry the right class."""

    pq: Interval
    miou: Interval
    label: Interval


def bootstrap(rows: Sequence[ImageRow], is_thing: npt.NDArray[np.bool_], resamples: int = RESAMPLES) -> Figures:
    """95 % intervals of PQ, mean IoU and label accuracy over pictures drawn with replacement.

    Args:
        rows: one per picture, at least one.
        is_thing: (C,) bool.
    """
    require(len(rows) > 0, "rows", "at least one picture", 0)
    draws = np.random.default_rng(_SEED).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), resamples)
    every = np.ones((1, len(rows)), draws.dtype)
    values = np.array([_figures(rows, weights, is_thing) for weights in np.concatenate([every, draws])])
    low, high = np.nanpercentile(values[1:], (2.5, 97.5), axis=0)
    return Figures(*(Interval(*map(float, bounds)) for bounds in zip(values[0], low, high, strict=True)))


def paired_difference(
    first: Sequence[ImageRow], second: Sequence[ImageRow], is_thing: npt.NDArray[np.bool_], resamples: int = RESAMPLES
) -> Figures:
    """Second run minus first, on the same pictures in the same order, with intervals of the difference."""
    require([r.image_id for r in first] == [r.image_id for r in second], "rows", "the same pictures in order", "others")
    draws = np.random.default_rng(_SEED).multinomial(len(first), np.full(len(first), 1 / len(first)), resamples)
    weights = np.concatenate([np.ones((1, len(first)), draws.dtype), draws])
    values = np.array([_figures(second, w, is_thing) - _figures(first, w, is_thing) for w in weights])
    low, high = np.nanpercentile(values[1:], (2.5, 97.5), axis=0)
    return Figures(*(Interval(*map(float, bounds)) for bounds in zip(values[0], low, high, strict=True)))


def _figures(
    rows: Sequence[ImageRow], weights: npt.NDArray[np.integer], is_thing: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """(3,) PQ, mean IoU and label accuracy of pictures counted `weights` times."""
    table = np.zeros((4, len(is_thing)))
    confusion = SemanticConfusion(len(is_thing))
    named = placed = 0
    for row, weight in zip(rows, weights.tolist(), strict=True):
        if weight:
            table[:, row.columns] += weight * row.counts
            np.add.at(confusion.matrix, (row.pixels[0], row.pixels[1]), weight * row.pixels[2])
            named, placed = named + weight * row.named, placed + weight * row.placed
    counts = MatchCounts(table[0], *(table[place].astype(np.int64) for place in (1, 2, 3)))
    label = named / placed if placed else float("nan")
    return np.array([summarise(counts, is_thing).all.pq, confusion.result().miou, label])

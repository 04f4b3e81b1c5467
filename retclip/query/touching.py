"""Joining parts: for proposers that know no objects, touching regions of one thing class are one object."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Integers = npt.NDArray[np.integer]


def borders(values: Integers) -> tuple[Integers, Integers]:
    """Values on both sides of every pair of neighbouring pixels of a (H, W) map that differ; 4-neighbourhood."""
    pairs = [(values[:, :-1], values[:, 1:]), (values[:-1], values[1:])]
    first = np.concatenate([a.ravel() for a, _ in pairs])
    second = np.concatenate([b.ravel() for _, b in pairs])
    different = first != second
    return first[different], second[different]


def join_touching(
    touching: tuple[Integers, Integers],
    areas: npt.NDArray[np.int64],
    column: npt.NDArray[np.int64],
    joins: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int32]:
    """New id of every segment: touching segments of one joining class get the id of their largest member.

    Args:
        touching: ids on both sides of every border, 0 = nothing.
        areas: (S + 1,) pixels of every id.
        column: (S + 1,) class of every id; entry 0 is not used.
        joins: (S + 1,) True for ids whose class joins.

    Returns:
        (S + 1,) id to use instead of each id; ids that join with none keep theirs.
    """
    count = len(column)
    first, second = touching
    alike = joins[first] & joins[second] & (column[first] == column[second])
    graph = coo_array((np.ones(int(alike.sum()), np.int8), (first[alike], second[alike])), (count, count))
    group: npt.NDArray[np.int32] = connected_components(graph, directed=False)[1]
    # Stable order by area: the last write per group is its largest member, ties go to the lower id.
    order = np.lexsort((-np.arange(count), areas))
    largest = np.zeros(count, dtype=np.int32)
    largest[group[order]] = order
    target: npt.NDArray[np.int32] = largest[group]
    return target

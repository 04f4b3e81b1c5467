"""Finds in a matrix of scores the few that can matter, without sorting it.

The best score of every small group of columns is a score of a real row, so the k-th best of these peaks is no higher
than the k-th best of all: a floor that costs one pass. Only groups that reach it are looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from retclip.shards.search.kernels import PAD
from retclip.shards.search.pairs import kth_best, rank_in_run

_PEAKS_PER_HIT = 4  # with so many groups for each hit the floor is close to the k-th best score
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Entries = tuple[Rows, Rows, Scores]


@dataclass(frozen=True)
class Wanted:
    """How many hits: `k`, at most `cap` of a class (None = no limit). `window`: twice the largest error of a score."""

    k: int
    cap: int | None
    window: float


def select(scores: torch.Tensor, ordinal: Rows, floor: Scores, wanted: Wanted) -> Entries:
    """Entries that can be among the best of their query.

    Args:
        scores: (n', M) float32 as `Kernel.scores` makes them; rows from n on are -inf.
        ordinal: (n,) int64 class of each row, not descending; n > 0.
        floor: (M,) k-th best score known before, -inf where unknown.
        wanted: what is asked.

    Returns:
        query, row (int64) and score (float32) of each entry within the window of what is known to be there.
    """
    size = _group_size(len(scores), wanted.k)
    grouped = scores.view(len(scores) // size, size, scores.shape[1])
    peaks = _peaks(grouped)
    if wanted.cap is None:
        reach = _lowered(np.maximum(kth_largest(peaks, wanted.k), floor), wanted.window)
        query, group = np.nonzero(peaks >= reach[:, None])
        reach = reach[query]
    else:
        ordinal = np.pad(ordinal, (0, len(scores) - len(ordinal)), mode="edge")
        query, group, reach = _capped_groups(grouped, peaks, ordinal.reshape(-1, size), floor, wanted)
    near = _members(grouped, group, query)
    entry, offset = np.nonzero(near >= reach[:, None])
    return query[entry], group[entry] * size + offset, near[entry, offset]


def _group_size(rows: int, k: int) -> int:
    size = 1
    while size < PAD and rows >= 2 * size * _PEAKS_PER_HIT * k:
        size *= 2
    return size


def _peaks(grouped: torch.Tensor) -> Scores:
    """(M, G) best score of each query in each group of (G, size, M) scores."""
    if grouped.device.type == "cpu":
        # torch would share this among threads, which a BLAS whose own threads still spin after the product holds up.
        return np.ascontiguousarray(np.maximum.reduce(grouped.numpy(), axis=1).T)
    peaks: Scores = grouped.amax(dim=1).T.contiguous().cpu().numpy()
    return peaks


def _members(grouped: torch.Tensor, group: Rows, query: Rows) -> Scores:
    """(g, size) scores of some queries in some groups."""
    if grouped.device.type == "cpu":
        members: Scores = grouped.numpy()[group, :, query]
        return members
    index = (torch.from_numpy(part).to(grouped.device) for part in (group, query))
    members = grouped.transpose(1, 2)[tuple(index)].cpu().numpy()
    return members


def kth_largest(values: Scores, k: int) -> Scores:
    """(M,) k-th largest of each row, -inf where rows are shorter."""
    if values.shape[1] < k:
        return np.full(len(values), -np.inf, np.float32)
    kth: Scores = np.partition(values, -k, axis=1)[:, -k]
    return kth


def _lowered(floor: Scores, window: float) -> Scores:
    """What a score must reach; never -inf, which would let spare rows in."""
    lowered: Scores = np.maximum(floor - np.float32(window), np.finfo(np.float32).min)
    return lowered


def _capped_groups(
    grouped: torch.Tensor, peaks: Scores, ordinal: Rows, known: Scores, wanted: Wanted
) -> tuple[Rows, Rows, Scores]:
    """Groups to look into, (g,) query and group, and (g,) float32 what their entries must reach.

    That is the higher of two floors: k hits, at most `cap` of a class; and `cap` hits of the group's own class. Both
    are taken from peaks above what is known without sorting: few, but for the first tile of a search.
    """
    classes, mixed = ordinal[:, 0], ordinal[:, 0] != ordinal[:, -1]
    starts = np.flatnonzero(np.diff(classes, prepend=-1))
    best_of_class = np.maximum.reduceat(np.where(mixed, np.float32(-np.inf), peaks), starts, axis=1)
    least = _lowered(np.maximum(kth_largest(best_of_class, wanted.k), known), wanted.window)
    query, group = np.nonzero(peaks >= least[:, None])
    peak, torn, own_class = peaks[query, group], mixed[group], classes[group]
    inside = np.flatnonzero(torn)
    best = _members(grouped, group[inside], query[inside]).argmax(axis=1)
    own_class[inside] = ordinal[group[inside], best]
    counted, own = _floors(query, own_class, peak, len(peaks), wanted)
    reach = np.maximum(counted, known)[query]
    # The peak of a mixed group is of one class; nothing is known of its other entries.
    reach = _lowered(np.where(torn, reach, np.maximum(own, reach)), wanted.window)
    reach = np.maximum(reach, least[query])
    stays = peak >= reach
    return query[stays], group[stays], reach[stays]


def _floors(query: Rows, classes: Rows, peak: Scores, queries: int, wanted: Wanted) -> tuple[Scores, Scores]:
    """(queries,) k-th best of peaks, at most `cap` of a class, and for each peak the `cap`-th best of its class.

    -inf where there are fewer. Peaks come in order of (query, class).
    """
    assert wanted.cap is not None
    run = np.cumsum(rank_in_run(query, classes) == 0)
    order = np.argsort(run * 4.0 - peak)  # scores lie within 2 of one another, and float64 tells them apart
    rank = rank_in_run(run)  # runs keep their places
    falling, counts, last = peak[order], rank < wanted.cap, rank == wanted.cap - 1
    counted = kth_best(query[counts], falling[counts], queries, wanted.k)
    of_run = np.full(len(run) + 1, -np.inf, np.float32)
    of_run[run[last]] = falling[last]
    return counted, of_run[run]

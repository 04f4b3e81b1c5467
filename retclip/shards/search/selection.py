"""Finds in a matrix of scores the few that can matter, without sorting it.

The best score of every small group of columns is a score of a real row, so the k-th best of these peaks is no higher
than the k-th best of all: a floor that costs one pass. Only groups that reach it are looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from retclip.shards.search.kernels import PAD

_PEAKS_PER_HIT = 4  # with so many groups for each hit the floor is close to the k-th best score


@dataclass(frozen=True)
class Wanted:
    """How many hits: `k`, at most `cap` of a class (None = no limit). `window`: twice the largest error of a score."""

    k: int
    cap: int | None
    window: float


def select(
    scores: torch.Tensor, ordinal: torch.Tensor, floor: torch.Tensor, wanted: Wanted
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Entries that can be among the best of their query.

    Args:
        scores: (M, n') float32 as `Kernel.scores` makes them; columns from n on are -inf.
        ordinal: (n,) int64 class of each column, not descending; n > 0.
        floor: (M,) float32 k-th best score known before, -inf where unknown.
        wanted: what is asked.

    Returns:
        query, column (int64) and score (float32) of each entry within the window of what is known to be there.
    """
    size = _group_size(scores.shape[1], wanted.k)
    grouped = scores.view(len(scores), scores.shape[1] // size, size)
    peaks = grouped.amax(dim=2)
    if wanted.cap is None:
        floors = torch.maximum(_kth(peaks, wanted.k), floor)[:, None].expand_as(peaks)
    else:
        ordinal = torch.nn.functional.pad(ordinal, (0, scores.shape[1] - len(ordinal)), value=int(ordinal[-1]))
        floors = _capped_floors(grouped, peaks, ordinal.view(-1, size), floor, wanted)
    floors = (floors - wanted.window).clamp(min=torch.finfo(torch.float32).min)  # -inf would let spare columns in
    query, group = torch.nonzero(peaks >= floors, as_tuple=True)
    near, reach = grouped[query, group], floors[query, group]
    entry, offset = torch.nonzero(near >= reach[:, None], as_tuple=True)
    return query[entry], group[entry] * size + offset, near[entry, offset]


def _group_size(columns: int, k: int) -> int:
    size = 1
    while size < PAD and columns >= 2 * size * _PEAKS_PER_HIT * k:
        size *= 2
    return size


def _kth(values: torch.Tensor, k: int) -> torch.Tensor:
    """(M,) k-th largest of each row, -inf where rows are shorter."""
    if values.shape[1] < k:
        return torch.full_like(values[:, 0], -torch.inf)
    return values.topk(k, dim=1).values[:, -1]


def _capped_floors(
    grouped: torch.Tensor, peaks: torch.Tensor, ordinal: torch.Tensor, floor: torch.Tensor, wanted: Wanted
) -> torch.Tensor:
    """(M, G) the higher of two floors: k hits, at most `cap` of a class; and `cap` hits of the group's own class."""
    assert wanted.cap is not None
    mixed = torch.nonzero(ordinal[:, 0] != ordinal[:, -1])[:, 0]
    classes = ordinal[:, 0].expand_as(peaks).clone()
    classes[:, mixed] = ordinal[mixed].gather(1, grouped[:, mixed].argmax(dim=2).T).T
    # Scores lie within 2 of one another: one sort orders by class, then by falling score.
    order = (classes * 4.0 - peaks.double()).argsort(dim=1)
    classes, values = classes.gather(1, order), peaks.gather(1, order)
    rank = _rank_in_rows(classes)
    counted = _kth(values.masked_fill(rank >= wanted.cap, -torch.inf), wanted.k)
    by_class = torch.full((len(peaks), int(ordinal[-1, -1]) + 1), -torch.inf, device=peaks.device)
    query, place = torch.nonzero(rank == wanted.cap - 1, as_tuple=True)
    by_class[query, classes[query, place]] = values[query, place]
    own = by_class[:, ordinal[:, 0]]
    own[:, mixed] = -torch.inf
    return torch.maximum(own, torch.maximum(counted, floor)[:, None])


def _rank_in_rows(classes: torch.Tensor) -> torch.Tensor:
    """(M, G) place of each entry inside its run of equal values of a row."""
    place = torch.arange(classes.shape[1], device=classes.device).expand_as(classes)
    starts = torch.ones_like(classes, dtype=torch.bool)
    starts[:, 1:] = classes[:, 1:] != classes[:, :-1]
    return place - place.masked_fill(~starts, 0).cummax(dim=1).values

"""Neighbours -> one score per asked class: the paper's min-max rule, and similarity-weighted voting."""

from __future__ import annotations

import torch
from torch import Tensor

from retclip.core.errors import require
from retclip.presets import RetrievalSettings

# Hits whose distances agree to this much carry no order; all of them then score 1 (spec: degenerate spread).
_SPREAD_EPSILON = 1e-6


def retrieval_scores(distance: Tensor, column: Tensor, classes: int, settings: RetrievalSettings) -> Tensor:
    """Scores of the retrieved neighbours of one image's segments (RetCLIP, section 3.2).

    Args:
        distance: (N, K) cosine distances, ascending; inf where fewer than K were found.
        column: (N, K) int64 vocabulary column of every hit, -1 where missing.
        classes: number of asked classes C.

    Returns:
        (N, C) float32 in [0, 1] (`sum` may exceed 1); 0 for a class that is not among the hits.
    """
    require(distance.shape == column.shape, "column", str(tuple(distance.shape)), tuple(column.shape))
    if len(distance) == 0:
        return distance.new_zeros((0, classes), dtype=torch.float32)
    present = column >= 0
    if settings.rule == "voting":
        return _vote(distance, column, present, classes, settings.temperature)
    closeness = _closeness(distance, column, present, classes, settings.minmax)
    return _gather_by_class(closeness, column, present, classes, settings.aggregate)


def _vote(distance: Tensor, column: Tensor, present: Tensor, classes: int, temperature: float) -> Tensor:
    # softmax over the hits of a query: the nearest is subtracted inside, so no exponent overflows.
    logits = (-distance.float() / temperature).masked_fill(~present, -torch.inf)
    weights = torch.where(present.any(dim=1, keepdim=True), logits, 0.0).softmax(dim=1) * present
    return _zeros(weights, classes).scatter_add_(1, column.clamp_min(0), weights)


def _closeness(distance: Tensor, column: Tensor, present: Tensor, classes: int, over: str) -> Tensor:
    """1 - min-max normalised distance of every hit, (N, K); 0 at missing places."""
    values = distance.float()
    if over == "image":
        low = values.masked_fill(~present, torch.inf).amin().expand(len(values), 1)
        high = values.masked_fill(~present, -torch.inf).amax().expand(len(values), 1)
    elif over == "classes":
        nearest = values.new_full((len(values), classes), torch.inf)
        nearest.scatter_reduce_(1, column.clamp_min(0), values.masked_fill(~present, torch.inf), "amin")
        low = nearest.amin(dim=1, keepdim=True)
        high = nearest.masked_fill(nearest.isinf(), -torch.inf).amax(dim=1, keepdim=True)
    else:
        low = values.masked_fill(~present, torch.inf).amin(dim=1, keepdim=True)
        high = values.masked_fill(~present, -torch.inf).amax(dim=1, keepdim=True)
    spread = high - low
    flat = ~(spread > _SPREAD_EPSILON)
    scaled = 1 - (values - low) / torch.where(flat, 1.0, spread)
    # A hit farther than the best of the worst class (`classes`) would fall below 0.
    return torch.where(flat, 1.0, scaled.clamp(0, 1)).masked_fill(~present, 0.0)


def _gather_by_class(closeness: Tensor, column: Tensor, present: Tensor, classes: int, aggregate: str) -> Tensor:
    index = column.clamp_min(0)
    scores = _zeros(closeness, classes)
    if aggregate == "max":
        return scores.scatter_reduce_(1, index, closeness, "amax")
    scores.scatter_add_(1, index, closeness)
    if aggregate == "sum":
        return scores
    counts = _zeros(closeness, classes).scatter_add_(1, index, present.float())
    return scores / counts.clamp_min(1)


def _zeros(like: Tensor, classes: int) -> Tensor:
    return like.new_zeros((len(like), classes))

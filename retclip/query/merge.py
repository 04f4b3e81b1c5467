"""Labelled masks -> one panoptic map, one semantic map and a list of instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retclip.core.masks import MaskSet
from retclip.core.panoptic import PanopticMap, Segment
from retclip.core.results import Instances
from retclip.core.vocabulary import Vocabulary
from retclip.presets import MergeSettings
from retclip.query.surfaces import Ownership, PixelSurface, Surface
from retclip.query.touching import join_touching


@dataclass(frozen=True)
class Merged:
    """A panoptic map and, per segment, the row of the proposal that made it (the first, for merged stuff)."""

    panoptic: PanopticMap
    proposals: tuple[int, ...]


@dataclass(frozen=True)
class Verdict:
    """The proposals that are something, in their order: row (K,), best class column (K,) and its score best (K,)."""

    row: Tensor
    column: Tensor
    best: Tensor


@dataclass(frozen=True)
class Decision:
    """A panoptic map in terms of a surface.

    Attributes:
        ids: int32 segment of every cell, 0 = unlabelled.
        segments: exactly those that occur.
        proposals: per segment, the row of the proposal that made it.
        labels: column of every proposal that holds cells, by row; several may share a segment.
    """

    ids: npt.NDArray[np.int32]
    segments: tuple[Segment, ...]
    proposals: tuple[int, ...]
    labels: Mapping[int, int]


def merge_panoptic(
    masks: MaskSet, scores: Tensor, void: Tensor | None, vocabulary: Vocabulary, settings: MergeSettings
) -> Merged:
    """Give every pixel to the best proposal that covers it; see `verdict_of` and `decide`."""
    decision = decide(PixelSurface(masks), verdict_of(scores, void, settings), vocabulary, settings)
    return Merged(PanopticMap(decision.ids, decision.segments), decision.proposals)


def verdict_of(scores: Tensor, void: Tensor | None, settings: MergeSettings) -> Verdict:
    """All that a map depends on beside the masks.

    Args:
        scores: (N, C) fused scores, in column order of the vocabulary.
        void: (N,) probability of being nothing; a proposal whose best class is below it is dropped.
    """
    best, column = scores.max(dim=1) if len(scores) else (scores.new_zeros(0), scores.new_zeros(0, dtype=torch.long))
    keep = best > settings.score_threshold
    if void is not None:
        keep &= best > void
    row = keep.nonzero()[:, 0]
    return Verdict(row, column[row], best[row])


def decide(surface: Surface, verdict: Verdict, vocabulary: Vocabulary, settings: MergeSettings) -> Decision:
    """Give every cell to the best proposal that covers it.

    `argmax` is FC-CLIP's rule: pixels go to the highest score x mask probability, and a proposal that wins less than
    `overlap_threshold` of its own pixels is skipped, its pixels stay unlabelled. `greedy` (panoptic FPN, Kirillov et
    al. 2019): proposals come by score, each takes what is still free, and one that finds less than the threshold free
    is skipped and leaves it to the next; made for proposals that overlap by design, such as a hierarchy.
    Regions of one stuff class share a segment; things get one each, or with `join_things` one per group of touching
    regions. Ids count from 1 in the order of the proposals.
    """
    if len(verdict.row) == 0:
        return Decision(np.zeros(surface.shape, np.int32), (), (), {})
    chosen, column = surface.select(verdict.row), verdict.column.tolist()
    if settings.rule == "argmax":
        ownership = chosen.strongest(verdict.best)
    else:
        ownership = _assign_greedily(chosen, verdict.best.cpu(), settings.overlap_threshold)
    value, founders = _number_segments(chosen, ownership, column, vocabulary, settings.overlap_threshold)
    # Owner -1 reads the last entry: nothing.
    ids = np.append(value, np.int32(0))[ownership.owner]
    if settings.join_things:
        ids, founders = _join_things(chosen, ids, founders, column, vocabulary)
    row, best = verdict.row.tolist(), verdict.best.tolist()
    return Decision(
        ids,
        _describe(chosen, ids, {number: (column[k], best[k]) for number, k in founders.items()}, vocabulary),
        tuple(row[k] for k in founders.values()),
        {row[k]: column[k] for k in np.flatnonzero(value).tolist()},
    )


def _assign_greedily(surface: Surface, best: Tensor, overlap_threshold: float) -> Ownership:
    # One small step per proposal, each waiting for the one before: on the host this costs microseconds, as device
    # kernels or thread-pool jobs mostly their launch.
    owner = np.full(surface.shape, -1, dtype=np.int32)
    free = np.ones(surface.shape, dtype=bool)
    owned, full = np.zeros(len(best), dtype=np.int64), np.zeros(len(best), dtype=np.int64)
    for row in best.argsort(descending=True, stable=True).tolist():
        region = surface.region(row)
        gain = region & free
        full[row], claim = surface.count(region), surface.count(gain)
        if claim > 0 and claim >= overlap_threshold * full[row]:
            owner[gain] = row
            free &= ~gain
            owned[row] = claim
    return Ownership(owner, owned, full)


def _number_segments(
    surface: Surface, ownership: Ownership, column: list[int], vocabulary: Vocabulary, overlap_threshold: float
) -> tuple[npt.NDArray[np.int32], dict[int, int]]:
    """Segment id of every kept proposal (0 = skipped), and which kept proposal founded each id."""
    # Nobody's cells are counted in place 0 and left out.
    final = surface.areas(ownership.owner + 1, len(column) + 1)[1:].tolist()
    owned, full = ownership.owned.tolist(), ownership.full.tolist()
    value = np.zeros(len(column), np.int32)
    founders: dict[int, int] = {}
    stuff: dict[int, int] = {}
    for row, category in enumerate(column):
        if not (owned[row] and full[row] and final[row]) or owned[row] / full[row] < overlap_threshold:
            continue
        if not vocabulary[category].is_thing and category in stuff:
            value[row] = stuff[category]
            continue
        number = len(founders) + 1
        value[row], founders[number] = number, row
        if not vocabulary[category].is_thing:
            stuff[category] = number
    return value, founders


def _join_things(
    surface: Surface,
    ids: npt.NDArray[np.int32],
    founders: dict[int, int],
    column: list[int],
    vocabulary: Vocabulary,
) -> tuple[npt.NDArray[np.int32], dict[int, int]]:
    """Touching things of one class become one segment; ids are numbered anew, the largest part stands for the whole."""
    columns = np.array([-1, *(column[row] for row in founders.values())])
    joins = np.array([False, *(vocabulary[column[row]].is_thing for row in founders.values())])
    target = join_touching(surface.borders(ids), surface.areas(ids, len(columns)), columns, joins)
    kept = sorted(set(target[1:].tolist()))
    number = np.zeros(len(columns), dtype=np.int32)
    number[kept] = np.arange(1, len(kept) + 1)
    return number[target][ids], {int(number[value]): founders[value] for value in kept}


def _describe(
    surface: Surface, ids: npt.NDArray[np.int32], labels: Mapping[int, tuple[int, float]], vocabulary: Vocabulary
) -> tuple[Segment, ...]:
    """The segments of `labels`: id -> (column, score)."""
    areas, boxes = surface.areas(ids, len(labels) + 1).tolist(), surface.boxes(ids, len(labels) + 1).tolist()
    segments = []
    for number, (column, score) in labels.items():
        category, (x0, y0, x1, y1) = vocabulary[column], boxes[number]
        box = (x0, y0, x1 - x0, y1 - y0)
        segments.append(Segment(number, category.id, category.is_thing, score, areas[number], box))
    return tuple(segments)


def semantic_map(masks: MaskSet, scores: Tensor) -> npt.NDArray[np.int32]:
    """(H, W) int32: column with the largest sum over proposals of score x mask probability, -1 where no mask lies."""
    if len(masks) == 0:
        return np.full(masks.image_size, -1, dtype=np.int32)
    rows = []
    for top, bottom in masks.bands(planes=len(masks) + scores.shape[1]):
        totals = torch.einsum("nc,nhw->chw", scores.float(), masks.band(top, bottom).to(scores.device))
        best, column = totals.max(dim=0)
        rows.append(torch.where(best > 0, column, -1))
    return torch.cat(rows).to(torch.int32).cpu().numpy()


def thing_instances(masks: MaskSet, scores: Tensor, vocabulary: Vocabulary, most: int) -> Instances:
    """The `most` best (proposal, class) pairs that are things; score = class score x mean probability inside the mask.

    Stuff pairs use up places before they are dropped, as in FC-CLIP.
    """
    count, classes = scores.shape
    score, flat = scores.flatten().sort(descending=True, stable=True)
    score, flat = score[:most], flat[:most]
    things = torch.tensor([category.is_thing for category in vocabulary], device=scores.device)
    chosen = (things[flat % classes] & (score > 0)).nonzero()[:, 0] if count else flat
    score, proposal, column = score[chosen], flat[chosen] // classes, flat[chosen] % classes
    regions = masks.select(proposal)
    inside, total = [], torch.zeros(len(proposal), dtype=torch.float64, device=scores.device)
    for top, bottom in regions.bands():
        probability = regions.band(top, bottom).to(scores.device)
        inside.append((probability > 0.5).cpu())
        total += (probability * (probability > 0.5)).sum(dim=(1, 2), dtype=torch.float64)
    binary = torch.cat(inside, dim=1).numpy() if inside else np.zeros((0, *masks.image_size), dtype=bool)
    pixels = torch.from_numpy(binary.sum(axis=(1, 2))).to(total)
    final = (score.double() * total / (pixels + 1e-6)).float().cpu().numpy()
    ids = np.array([vocabulary[int(c)].id for c in column], dtype=np.int64)
    order = np.argsort(-final, kind="stable")
    return Instances(binary[order], ids[order], final[order])

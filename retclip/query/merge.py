"""Labelled masks -> one panoptic map, one semantic map and a list of instances."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retclip.core.masks import MaskSet
from retclip.core.panoptic import PanopticMap, Segment
from retclip.core.results import Instances
from retclip.core.vocabulary import Vocabulary
from retclip.presets import MergeSettings
from retclip.query.touching import join_touching


@dataclass(frozen=True)
class Merged:
    """A panoptic map and, per segment, the row of the proposal that made it (the first, for merged stuff)."""

    panoptic: PanopticMap
    proposals: tuple[int, ...]


@dataclass(frozen=True)
class _Ownership:
    """Who owns which pixel.

    Attributes:
        owner: (H, W) kept proposal that won the pixel.
        inside: (H, W) bool, the owner's mask probability is at least one half there.
        owned, full: (K,) pixels won, and pixels of the whole mask, per kept proposal.
    """

    owner: Tensor
    inside: Tensor
    owned: Tensor
    full: Tensor


def merge_panoptic(
    masks: MaskSet, scores: Tensor, void: Tensor | None, vocabulary: Vocabulary, settings: MergeSettings
) -> Merged:
    """Give every pixel to the best proposal that covers it.

    Args:
        scores: (N, C) fused scores, in column order of the vocabulary.
        void: (N,) probability of being nothing; a proposal whose best class is below it is dropped.

    `argmax` is FC-CLIP's rule: pixels go to the highest score x mask probability, and a proposal that wins less than
    `overlap_threshold` of its own pixels is skipped, its pixels stay unlabelled. `greedy` (panoptic FPN, Kirillov et
    al. 2019): proposals come by score, each takes what is still free, and one that finds less than the threshold free
    is skipped and leaves it to the next; made for proposals that overlap by design, such as a hierarchy.
    Regions of one stuff class share a segment; things get one each, or with `join_things` one per group of touching
    regions. Ids count from 1 in the order of the proposals.
    """
    best, column = scores.max(dim=1) if len(scores) else (scores.new_zeros(0), scores.new_zeros(0, dtype=torch.long))
    keep = best > settings.score_threshold
    if void is not None:
        keep &= best > void
    rows = keep.nonzero()[:, 0]
    if len(rows) == 0:
        return Merged(PanopticMap(np.zeros(masks.image_size, dtype=np.int32), ()), ())
    assign = (
        _assign
        if settings.rule == "argmax"
        else partial(_assign_greedily, overlap_threshold=settings.overlap_threshold)
    )
    ownership = assign(masks.select(rows), best[rows])
    value, chosen = _number_segments(ownership, column[rows], vocabulary, settings.overlap_threshold)
    ids = torch.where(ownership.inside, value[ownership.owner], 0).to(torch.int32).cpu().numpy()
    if settings.join_things:
        ids, chosen = _join_things(ids, chosen, column[rows].tolist(), vocabulary)
    return _describe(ids, chosen, rows.tolist(), column[rows].tolist(), best[rows].tolist(), vocabulary)


def _assign(masks: MaskSet, best: Tensor) -> _Ownership:
    owners, insides = [], []
    full = torch.zeros(len(masks), dtype=torch.long, device=best.device)
    for top, bottom in masks.bands():
        probability = masks.band(top, bottom).to(best.device)
        owner = (best[:, None, None] * probability).argmax(dim=0)
        owners.append(owner)
        insides.append(probability.gather(0, owner[None])[0] >= 0.5)
        full += (probability >= 0.5).sum(dim=(1, 2))
    owner = torch.cat(owners)
    # A pixel that no mask touches has argmax 0 by accident; FC-CLIP counts it as owned all the same, and so do we.
    owned = torch.bincount(owner.flatten(), minlength=len(masks))
    return _Ownership(owner, torch.cat(insides), owned, full)


def _assign_greedily(masks: MaskSet, best: Tensor, overlap_threshold: float) -> _Ownership:
    # One small step per proposal, each waiting for the one before: on the host this costs microseconds, as device
    # kernels or thread-pool jobs mostly their launch.
    owner = np.zeros(masks.image_size, dtype=np.int64)
    free = np.ones(masks.image_size, dtype=bool)
    owned, full = np.zeros(len(masks), dtype=np.int64), np.zeros(len(masks), dtype=np.int64)
    for row in best.argsort(descending=True, stable=True).tolist():
        region = masks.region(row).cpu().numpy()
        gain = region & free
        full[row], claim = np.count_nonzero(region), np.count_nonzero(gain)
        if claim > 0 and claim >= overlap_threshold * full[row]:
            owner[gain] = row
            free &= ~gain
            owned[row] = claim
    device = best.device
    arrays = (torch.from_numpy(values).to(device) for values in (owner, ~free, owned, full))
    return _Ownership(*arrays)


def _number_segments(
    ownership: _Ownership, column: Tensor, vocabulary: Vocabulary, overlap_threshold: float
) -> tuple[Tensor, dict[int, int]]:
    """Segment id of every kept proposal (0 = skipped), and which kept proposal founded each id."""
    final = torch.bincount(ownership.owner[ownership.inside], minlength=len(column)).tolist()
    owned, full = ownership.owned.tolist(), ownership.full.tolist()
    value = [0] * len(column)
    founders: dict[int, int] = {}
    stuff: dict[int, int] = {}
    for row, category in enumerate(column.tolist()):
        if not (owned[row] and full[row] and final[row]) or owned[row] / full[row] < overlap_threshold:
            continue
        if not vocabulary[category].is_thing and category in stuff:
            value[row] = stuff[category]
            continue
        value[row] = len(founders) + 1
        founders[value[row]] = row
        if not vocabulary[category].is_thing:
            stuff[category] = value[row]
    return torch.tensor(value, device=column.device), founders


def _join_things(
    ids: npt.NDArray[np.int32], founders: dict[int, int], column: list[int], vocabulary: Vocabulary
) -> tuple[npt.NDArray[np.int32], dict[int, int]]:
    """Touching things of one class become one segment; ids are numbered anew, the largest part stands for the whole."""
    columns = np.array([-1, *(column[row] for row in founders.values())])
    joins = np.array([False, *(vocabulary[column[row]].is_thing for row in founders.values())])
    target = join_touching(ids, columns, joins)
    kept = sorted(set(target[1:].tolist()))
    number = np.zeros(len(columns), dtype=np.int32)
    number[kept] = np.arange(1, len(kept) + 1)
    return number[target][ids], {int(number[value]): founders[value] for value in kept}


def _describe(
    ids: npt.NDArray[np.int32],
    founders: dict[int, int],
    rows: list[int],
    column: list[int],
    best: list[float],
    vocabulary: Vocabulary,
) -> Merged:
    segments = []
    areas = np.bincount(ids.ravel(), minlength=len(founders) + 1)
    for value, row in founders.items():
        category = vocabulary[column[row]]
        mask = ids == value
        y, x = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (int(x[0]), int(y[0]), int(x[-1] - x[0] + 1), int(y[-1] - y[0] + 1))
        segments.append(Segment(value, category.id, category.is_thing, float(best[row]), int(areas[value]), box))
    return Merged(PanopticMap(ids, tuple(segments)), tuple(rows[row] for row in founders.values()))


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

"""Final inference: semantic scores, panoptic map and instances from mask logits and class probabilities.

Masks are brought to full resolution a few queries at a time, and only the queries a result needs: no array of
(queries, H, W) floats ever exists. Rules as in Mask2Former and FC-CLIP (its section 4, inference).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import find_objects
from torch import Tensor

from retclip.core.masks import Frame
from retclip.core.panoptic import PanopticMap, Segment
from retclip.core.vocabulary import Vocabulary
from retclip.segmenters.fcclip.preprocessing import full_size

CHUNK_ELEMENTS = 1 << 24  # 64 MiB of float32 upsampled at once
# Each chunk reads and writes the (C, H, W) sums once: fewer chunks were measured twice as fast.
SEMANTIC_CHUNK_ELEMENTS = 1 << 26


@dataclass(frozen=True)
class PanopticThresholds:
    """object_mask: a segment's score must exceed it; overlap: least share of a mask its segment must keep."""

    object_mask: float = 0.0
    overlap: float = 0.8


@dataclass(frozen=True)
class Instances:
    """Scored masks of things: scores (n,) in [0, 1]; columns (n,) of the vocabulary; masks (n, H, W) bool."""

    scores: Tensor
    columns: Tensor
    masks: Tensor


def upsampled(mask_logits: Tensor, frame: Frame, queries: Tensor, elements: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Chunks of (query numbers (n,), their logits (n, H, W) at output resolution), in the given order."""
    if len(queries) == 0:
        return
    largest = max(size[0] * size[1] for size in (frame.padded, frame.output))
    for chunk in torch.split(queries, max(1, elements // largest)):
        yield chunk, full_size(mask_logits[chunk], frame)


def semantic_scores(mask_logits: Tensor, probabilities: Tensor, frame: Frame) -> Tensor:
    """Per-pixel class scores, not normalised; their argmax is the semantic map.

    Args:
        mask_logits: (Q, h, w) at a quarter of the padded size.
        probabilities: (Q, C + 1), void last; void does not count.
        frame: sizes.

    Returns:
        (C, H, W) float32.
    """
    queries = torch.arange(len(mask_logits), device=mask_logits.device)
    total = probabilities.new_zeros(probabilities.shape[1] - 1, frame.output[0] * frame.output[1])
    for chunk, logits in upsampled(mask_logits, frame, queries, SEMANTIC_CHUNK_ELEMENTS):
        total.addmm_(probabilities[chunk, :-1].T, logits.sigmoid_().flatten(1))
    return total.view(-1, *frame.output)


@dataclass(frozen=True)
class _Ownership:
    """Who owns each pixel: owner (H, W) number among the kept queries; inside (H, W) owner's mask >= 0.5 there.

    `extent` (K,) counts the pixels of each kept query's own mask >= 0.5.
    """

    owner: Tensor
    inside: Tensor
    extent: Tensor


def panoptic_map(
    mask_logits: Tensor, probabilities: Tensor, frame: Frame, vocabulary: Vocabulary, thresholds: PanopticThresholds
) -> PanopticMap:
    """Merge the queries into one map.

    Each query takes its best class; a query survives if that is not void and scores above the threshold. A pixel
    belongs to the query with the largest score * mask probability. A segment is dropped when what it owns is less than
    `overlap` of its mask; what it shows is owned AND inside its own mask. Regions of one stuff class are one segment.

    Args:
        mask_logits: (Q, h, w) at a quarter of the padded size.
        probabilities: (Q, C + 1), void last.
        frame: sizes.
        vocabulary: C classes in column order.
        thresholds: see `PanopticThresholds`.
    """
    score, column = probabilities.max(-1)
    kept = torch.nonzero((column < len(vocabulary)) & (score > thresholds.object_mask)).flatten()
    if len(kept) == 0:
        return PanopticMap(np.zeros(frame.output, np.int32), ())
    ownership = _assign_pixels(mask_logits, score, frame, kept)
    columns, scores = column[kept].tolist(), score[kept].tolist()
    numbers, segments = _number_segments(ownership, columns, scores, vocabulary, thresholds)
    number_of = torch.tensor(numbers, dtype=torch.int32, device=kept.device)
    ids = torch.where(ownership.inside, number_of[ownership.owner], 0).cpu().numpy()
    return PanopticMap(ids, _measured(ids, segments, vocabulary))


def _assign_pixels(mask_logits: Tensor, score: Tensor, frame: Frame, kept: Tensor) -> _Ownership:
    best = mask_logits.new_full(frame.output, -1.0)
    owner = torch.zeros(frame.output, dtype=torch.long, device=kept.device)
    inside = torch.zeros(frame.output, dtype=torch.bool, device=kept.device)
    extents, first = [], 0
    for chunk, logits in upsampled(mask_logits, frame, kept, CHUNK_ELEMENTS):
        masks = logits.sigmoid_()
        within = masks >= 0.5
        extents.append(within.flatten(1).sum(1))
        value, index = masks.mul_(score[chunk, None, None]).max(0)
        # Strictly better only: among equals the earlier query owns the pixel.
        better = value > best
        best = torch.where(better, value, best)
        owner = torch.where(better, index + first, owner)
        inside = torch.where(better, within.gather(0, index[None])[0], inside)
        first += len(chunk)
    return _Ownership(owner, inside, torch.cat(extents))


def _number_segments(
    ownership: _Ownership,
    columns: Sequence[int],
    scores: Sequence[float],
    vocabulary: Vocabulary,
    thresholds: PanopticThresholds,
) -> tuple[list[int], list[tuple[int, float]]]:
    """Segment id per kept query (0 = dropped), and (column, score) of the segments 1, 2, ..."""
    count = len(columns)
    owned = torch.bincount(ownership.owner.flatten(), minlength=count).tolist()
    shown = torch.bincount(ownership.owner[ownership.inside], minlength=count).tolist()
    numbers: list[int] = []
    segments: list[tuple[int, float]] = []
    stuff: dict[int, int] = {}
    for column, score, own, show, extent in zip(columns, scores, owned, shown, ownership.extent.tolist(), strict=True):
        # `own` counts before the cut at 0.5, as the released thresholds were chosen with.
        if min(own, show, extent) == 0 or own / extent < thresholds.overlap:
            numbers.append(0)
        elif column in stuff:
            numbers.append(stuff[column])
        else:
            segments.append((column, score))
            numbers.append(len(segments))
            if not vocabulary[column].is_thing:
                stuff[column] = len(segments)
    return numbers, segments


def _measured(
    ids: npt.NDArray[np.int32], segments: Sequence[tuple[int, float]], vocabulary: Vocabulary
) -> tuple[Segment, ...]:
    """Segments with their areas and boxes; ids count from 1 without gaps."""
    areas = np.bincount(ids.ravel(), minlength=len(segments) + 1)
    return tuple(
        Segment(
            id=number,
            category_id=vocabulary[column].id,
            is_thing=vocabulary[column].is_thing,
            score=score,
            area=int(areas[number]),
            box=(x.start, y.start, x.stop - x.start, y.stop - y.start),
        )
        for number, ((column, score), (y, x)) in enumerate(zip(segments, find_objects(ids), strict=True), start=1)
    )


def instances(
    mask_logits: Tensor, probabilities: Tensor, frame: Frame, vocabulary: Vocabulary, limit: int = 100
) -> Instances:
    """The `limit` best (query, class) pairs, of which those with a thing class are kept.

    A stuff class can use up places, as in the official evaluation. A score is the class probability times the mean mask
    probability inside the mask; order among equal scores is unspecified.

    Args:
        mask_logits: (Q, h, w) at a quarter of the padded size.
        probabilities: (Q, C + 1), void last.
        frame: sizes.
        vocabulary: C classes in column order.
        limit: pairs per image.
    """
    classes = len(vocabulary)
    chosen, flat = probabilities[:, :-1].flatten().topk(min(limit, len(mask_logits) * classes), sorted=False)
    things = torch.tensor([category.is_thing for category in vocabulary], device=flat.device)[flat % classes]
    chosen, flat = chosen[things], flat[things]
    queries, which = torch.unique(flat // classes, return_inverse=True)
    masks = torch.zeros(len(queries), *frame.output, dtype=torch.bool, device=flat.device)
    quality, first = mask_logits.new_zeros(len(queries)), 0
    for chunk, logits in upsampled(mask_logits, frame, queries, CHUNK_ELEMENTS):
        rows = slice(first, first + len(chunk))
        masks[rows] = logits > 0
        inside = masks[rows].flatten(1)
        quality[rows] = (logits.sigmoid_().flatten(1) * inside).sum(1) / (inside.sum(1) + 1e-6)
        first += len(chunk)
    return Instances(chosen * quality[which], flat % classes, masks[which])

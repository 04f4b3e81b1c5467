"""Straightforward versions of the steps that retclip computes differently; the yardstick of the benchmark.

They follow the papers' formulas on whole arrays: every query at full resolution, every sample in one tensor.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from retclip.core.masks import Frame, Size
from retclip.core.vocabulary import Vocabulary
from retclip.segmenters.fcclip.inference import PanopticThresholds
from retclip.segmenters.fcclip.preprocessing import full_size


def sample_values(value: Tensor, sizes: list[Size], locations: Tensor, weights: Tensor) -> Tensor:
    """Deformable sampling: sample every level with `grid_sample`, stack all samples, weigh, sum."""
    batch, _, heads, dim = value.shape
    length, points = locations.shape[1], locations.shape[4]
    sampled = []
    for level, part in enumerate(torch.split(value, [h * w for h, w in sizes], 1)):
        plane = part.flatten(2).transpose(1, 2).reshape(batch * heads, dim, *sizes[level])
        grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        sampled.append(F.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, length, len(sizes) * points)
    out = (torch.stack(sampled, -2).flatten(-2) * weights).sum(-1)
    return out.view(batch, heads * dim, length).transpose(1, 2)


def semantic_scores(mask_logits: Tensor, probabilities: Tensor, frame: Frame) -> Tensor:
    """All masks at full resolution at once, then one product."""
    return torch.einsum("qc,qhw->chw", probabilities[:, :-1], full_size(mask_logits, frame).sigmoid())


def panoptic_ids(
    mask_logits: Tensor, probabilities: Tensor, frame: Frame, vocabulary: Vocabulary, thresholds: PanopticThresholds
) -> Tensor:
    """All masks at full resolution at once, then one comparison of whole maps per query."""
    masks = full_size(mask_logits, frame).sigmoid()
    score, column = probabilities.max(-1)
    kept = (column < len(vocabulary)) & (score > thresholds.object_mask)
    masks, score, column = masks[kept], score[kept], column[kept]
    ids = torch.zeros(frame.output, dtype=torch.int32, device=masks.device)
    if not len(score):
        return ids
    owner = (score[:, None, None] * masks).argmax(0)
    number = 0
    stuff: dict[int, int] = {}
    for place in range(len(score)):
        category = vocabulary[int(column[place])]
        own, mask = owner == place, masks[place] >= 0.5
        shown = own & mask
        areas = [region.sum().item() for region in (own, mask, shown)]
        if min(areas) == 0 or areas[0] / areas[1] < thresholds.overlap:
            continue
        if category.id in stuff:
            ids[shown] = stuff[category.id]
            continue
        number += 1
        ids[shown] = number
        if not category.is_thing:
            stuff[category.id] = number
    return ids


def instances(
    mask_logits: Tensor, probabilities: Tensor, frame: Frame, vocabulary: Vocabulary, limit: int = 100
) -> tuple[Tensor, Tensor, Tensor]:
    """All masks at full resolution at once, then one copy of a mask per instance."""
    masks = full_size(mask_logits, frame)
    classes = len(vocabulary)
    scores, flat = probabilities[:, :-1].flatten().topk(limit, sorted=False)
    things = torch.tensor([category.is_thing for category in vocabulary], device=flat.device)[flat % classes]
    scores, flat = scores[things], flat[things]
    masks = masks[flat // classes]
    inside = (masks > 0).float()
    quality = (masks.sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
    return scores * quality, flat % classes, inside.bool()

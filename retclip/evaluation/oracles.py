"""Oracles: one part of the truth is given away, so that the loss of every other part shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retclip.core.errors import InputError
from retclip.core.images import Picture
from retclip.core.masks import MaskSet
from retclip.core.vocabulary import Vocabulary
from retclip.evaluation.truth import UNLABELLED, EvaluationSet, TruthMap
from retclip.ports.proposals import Proposals
from retclip.query.matching import LabelMap
from retclip.query.scoring import Observation


class TrueMasks:
    """A proposer that knows the annotated masks (oracle `masks`); crowds are no proposals."""

    def __init__(self, dataset: EvaluationSet) -> None:
        self._dataset = dataset
        self._images = {str(image.path): image for image in dataset.images}

    def propose(self, pictures: Sequence[Picture], vocabulary: Vocabulary) -> list[Proposals]:
        """Masks per picture, in the order the annotation lists its segments."""
        return [Proposals(self._masks(picture)) for picture in pictures]

    def _masks(self, picture: Picture) -> MaskSet:
        truth = self._dataset.truth(self._images[picture.name])
        if truth.ids.shape != picture.size:
            why = f"The annotation has {truth.ids.shape} pixels (height, width), the upright photo {picture.size}."
            raise InputError("E161", f"The truth of {picture.name} does not fit it.", why=why, fix="Check both files.")
        wanted = [segment.id for segment in truth.segments if not segment.is_crowd]
        masks = [torch.from_numpy(truth.ids == number) for number in wanted]
        stacked = torch.stack(masks) if masks else torch.zeros((0, *picture.size), dtype=torch.bool)
        return MaskSet(stacked, picture.size, "given")


def only_present(labels: LabelMap, truth: TruthMap) -> LabelMap:
    """The label map of a picture whose class list is known: stored classes of absent columns are not asked."""
    present = present_columns(truth)
    return replace(labels, column={key: column for key, column in labels.column.items() if column in present})


def present_columns(truth: TruthMap) -> frozenset[int]:
    """Columns of the classes that the truth of a picture holds."""
    return frozenset(np.unique(truth.semantic).tolist()) - {UNLABELLED}


def restrict(observation: Observation, columns: frozenset[int]) -> Observation:
    """Probabilities over some columns only, rows sum to 1 again."""
    clip, in_vocab = (_restricted(table, columns) for table in (observation.clip, observation.in_vocab))
    return replace(observation, clip=clip, in_vocab=in_vocab)


def _restricted(table: Tensor | None, columns: frozenset[int]) -> Tensor | None:
    if table is None:
        return None
    kept = torch.zeros(table.shape[1], dtype=torch.bool).index_fill(
        0, torch.tensor(sorted(columns), dtype=torch.long), True
    )
    left = table * kept
    return left / left.sum(dim=1, keepdim=True).clamp_min(torch.finfo(left.dtype).tiny)


def true_labels(masks: MaskSet, scores: Tensor, truth: TruthMap) -> Tensor:
    """Scores with every proposal's best value moved to the class most of its annotated pixels have.

    Ranks stay ours: what this oracle removes is wrong names, not wrong confidence. A proposal over unannotated pixels
    alone keeps its scores.
    """
    counts = overlaps(masks, truth.semantic + 1, scores.shape[1] + 1)[:, 1:]
    moved = torch.zeros_like(scores)
    best = scores.amax(dim=1).clamp_min(torch.finfo(scores.dtype).tiny)
    moved[torch.arange(len(scores)), torch.from_numpy(counts.argmax(axis=1))] = best
    return torch.where(torch.from_numpy(counts.sum(axis=1) > 0)[:, None], moved, scores)


def best_proposals(masks: MaskSet, truth: TruthMap) -> Tensor:
    """Rows (n,) of the proposals with the highest IoU for some annotated segment, ascending."""
    wanted = [segment.id for segment in truth.segments if not segment.is_crowd]
    if not wanted or not len(masks):
        return torch.zeros(0, dtype=torch.long)
    places = np.zeros_like(truth.ids)
    for number, value in enumerate(wanted, start=1):
        places[truth.ids == value] = number
    shared = overlaps(masks, places, len(wanted) + 1)
    area = shared.sum(axis=1, keepdims=True)
    union = area + np.bincount(places.ravel(), minlength=len(wanted) + 1) - shared
    iou = (shared / np.maximum(union, 1))[:, 1:]
    rows = {int(row) for row, value in zip(iou.argmax(axis=0), iou.max(axis=0), strict=True) if value > 0}
    return torch.tensor(sorted(rows), dtype=torch.long)


def overlaps(masks: MaskSet, values: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int64]:
    """(N, count) pixels of each value of (H, W) `values` inside each proposal (probability above one half)."""
    table = np.zeros((len(masks), count), np.int64)
    for row in range(len(masks)):
        table[row] = np.bincount(values[masks.region(row).cpu().numpy()], minlength=count)
    return table

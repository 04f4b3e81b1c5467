"""Panoptic quality, counted as panopticapi counts it (Kirillov et al. 2019; spec: crowd, void, matching)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from retclip.core.errors import InputError, require
from retclip.core.vocabulary import Vocabulary

MAX_IDS = 1 << 24  # ids are coded in three bytes of a colour
_MATCH = 0.5


@dataclass(frozen=True)
class MapSegment:
    """One entry of a segment list: the value of its pixels, its category, and whether it stands for a crowd."""

    id: int
    category_id: int
    is_crowd: bool = False


@dataclass(frozen=True)
class MatchCounts:
    """Per class: iou (C,) float64 sum over matched pairs; tp, fp, fn (C,) int64. Adding two adds their images."""

    iou: npt.NDArray[np.float64]
    tp: npt.NDArray[np.int64]
    fp: npt.NDArray[np.int64]
    fn: npt.NDArray[np.int64]

    @classmethod
    def zero(cls, classes: int) -> Self:
        """Counts of no image."""
        return cls(np.zeros(classes), *(np.zeros(classes, np.int64) for _ in range(3)))

    def __add__(self, other: MatchCounts) -> MatchCounts:
        return MatchCounts(self.iou + other.iou, self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)


@dataclass(frozen=True)
class SegmentPair:
    """An annotated and a predicted segment that match by place (IoU > 0.5) whatever their classes, as columns."""

    true_column: int
    predicted_column: int
    predicted_id: int


@dataclass(frozen=True)
class ImageMatches:
    """One image: its counts, and its pairs that match by place."""

    counts: MatchCounts
    pairs: tuple[SegmentPair, ...]


@dataclass(frozen=True)
class Quality:
    """Means over the `n` classes that occur in truth or prediction, as fractions in [0, 1]; NaN when n is 0."""

    pq: float
    sq: float
    rq: float
    n: int


@dataclass(frozen=True)
class PanopticResult:
    """pq, sq, rq (C,) float64 per class, 0 where nothing occurs (`occurs` False); means over all, things and stuff."""

    pq: npt.NDArray[np.float64]
    sq: npt.NDArray[np.float64]
    rq: npt.NDArray[np.float64]
    occurs: npt.NDArray[np.bool_]
    all: Quality
    things: Quality
    stuff: Quality

    def mean(self, chosen: npt.NDArray[np.bool_]) -> Quality:
        """Mean over a subset of classes, (C,) bool; classes that never occur do not count."""
        rows = np.flatnonzero(chosen & self.occurs)
        return Quality(_mean(self.pq[rows]), _mean(self.sq[rows]), _mean(self.rq[rows]), len(rows))


def _mean(values: npt.NDArray[np.float64]) -> float:
    # panopticapi adds from left to right; np.mean adds in pairs and differs in the last bits.
    return float(np.cumsum(values)[-1] / len(values)) if len(values) else float("nan")


def summarise(counts: MatchCounts, is_thing: npt.NDArray[np.bool_]) -> PanopticResult:
    """Qualities of counted images; is_thing (C,) bool."""
    weight = counts.tp + 0.5 * counts.fp + 0.5 * counts.fn
    occurs = counts.tp + counts.fp + counts.fn > 0
    pq = np.divide(counts.iou, weight, out=np.zeros_like(weight), where=occurs)
    sq = np.divide(counts.iou, counts.tp, out=np.zeros_like(weight), where=counts.tp > 0)
    rq = np.divide(counts.tp, weight, out=np.zeros_like(weight), where=occurs)
    nothing = Quality(0.0, 0.0, 0.0, 0)
    result = PanopticResult(pq, sq, rq, occurs, nothing, nothing, nothing)
    groups = (result.mean(group) for group in (np.ones_like(is_thing), is_thing, ~is_thing))
    return PanopticResult(pq, sq, rq, occurs, *groups)


class PanopticQuality:
    """Counts matches image by image; memory does not grow with their number.

    Two counters of disjoint images are joined with `merge`, so images can be counted in parallel.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._column = {category.id: column for column, category in enumerate(vocabulary)}
        self._is_thing = np.array([category.is_thing for category in vocabulary])
        self.counts = MatchCounts.zero(len(vocabulary))
        # Reserved, not touched: a lookup by id costs a tenth of sorting the pixels, and pages are used where ids lie.
        self._table = np.zeros(MAX_IDS, np.int32)

    def add(
        self,
        truth_ids: npt.NDArray[np.integer],
        truth_segments: Sequence[MapSegment],
        predicted_ids: npt.NDArray[np.integer],
        predicted_segments: Sequence[MapSegment],
        image: str,
    ) -> ImageMatches:
        """Count one image.

        Args:
            truth_ids: (H, W) segment ids in [0, 2**24), 0 = void.
            truth_segments: exactly the ids of that map; areas are counted from it.
            predicted_ids: (H, W), the same for the prediction.
            predicted_segments: exactly the ids of the predicted map.
            image: its name, for errors.

        Returns:
            The counts of this image alone, and which segments lie in the same place.

        Raises:
            InputError: E161 when a map and its list disagree, a category is unknown, or the sizes differ.
        """
        if truth_ids.shape != predicted_ids.shape:
            raise _unusable(image, "prediction", f"It has {_size(predicted_ids)}, the truth {_size(truth_ids)}.")
        truth = _Side(truth_segments, self._column, image, "truth")
        predicted = _Side(predicted_segments, self._column, image, "prediction")
        rows = self._places(truth_ids, truth, image).astype(np.int64)
        columns = self._places(predicted_ids, predicted, image)
        shape = (len(truth.ids) + 1, len(predicted.ids) + 1)
        joint = np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape)
        truth.check_present(joint.sum(axis=1))
        predicted.check_present(joint.sum(axis=0))
        return self._count(truth, predicted, joint)

    def __getstate__(self) -> dict[str, Any]:
        # The lookup table would travel between processes as 64 MB of zeros.
        return {name: value for name, value in vars(self).items() if name != "_table"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._table = np.zeros(MAX_IDS, np.int32)

    def merge(self, other: PanopticQuality) -> None:
        """Take over the counts of other images."""
        self.counts = self.counts + other.counts

    def result(self) -> PanopticResult:
        """Qualities of all images so far."""
        return summarise(self.counts, self._is_thing)

    def _places(self, ids: npt.NDArray[np.integer], side: _Side, image: str) -> npt.NDArray[np.int32]:
        """(H*W,) place of every pixel's segment in `side.ids`, counted from 1; 0 = void."""
        flat = ids.ravel()
        fits = bool(flat.size) and int(flat.min()) >= 0 and int(flat.max()) < MAX_IDS
        require(fits, f"{side.role} ids of {image}", "at least one pixel, ids in [0, 2**24)", _size(ids))
        self._table[0] = 1
        self._table[side.ids] = np.arange(2, len(side.ids) + 2)
        places = np.take(self._table, flat)
        self._table[side.ids] = 0
        if not places.all():
            strays = np.unique(flat[places == 0])[:5].tolist()
            raise _unusable(image, side.role, f"Segment ids {strays} are in the map but not in the list.")
        return places - np.int32(1)

    def _count(self, truth: _Side, predicted: _Side, joint: npt.NDArray[np.int64]) -> ImageMatches:
        inside = joint[1:, 1:]
        on_void = joint[0, 1:]
        union = joint.sum(axis=1)[1:, None] + joint.sum(axis=0)[None, 1:] - inside - on_void
        by_place = np.where(truth.is_crowd[:, None], 0.0, inside / np.maximum(union, 1))
        iou = np.where(truth.column[:, None] == predicted.column, by_place, 0.0)
        # np.nonzero walks by truth id, then by predicted id: panopticapi's order, so sums agree to the last bit.
        pairs = np.nonzero(iou > _MATCH)
        missed = ~truth.is_crowd
        missed[pairs[0]] = False
        extra = on_void + truth.crowd_overlap(inside, predicted.column) <= _MATCH * joint.sum(axis=0)[1:]
        extra[pairs[1]] = False
        found = truth.column[pairs[0]]
        own = MatchCounts.zero(len(self._is_thing))
        for counts in (self.counts, own):
            np.add.at(counts.iou, found, iou[pairs])
            np.add.at(counts.tp, found, 1)
            np.add.at(counts.fp, predicted.column[extra], 1)
            np.add.at(counts.fn, truth.column[missed], 1)
        placed = zip(*(rows.tolist() for rows in np.nonzero(by_place > _MATCH)), strict=True)
        here = (SegmentPair(int(truth.column[g]), int(predicted.column[p]), int(predicted.ids[p])) for g, p in placed)
        return ImageMatches(own, tuple(here))


class _Side:
    """One list of segments, checked and sorted by id."""

    def __init__(self, segments: Sequence[MapSegment], columns: dict[int, int], image: str, role: str) -> None:
        self.image, self.role = image, role
        ordered = sorted(segments, key=lambda segment: segment.id)
        self.ids = np.array([segment.id for segment in ordered], np.int64)
        bad = [segment.id for segment in ordered if not 0 < segment.id < MAX_IDS]
        if bad:
            raise _unusable(image, role, f"Segment ids {bad[:5]} are not in 1 .. 2**24 - 1.")
        doubled = self.ids[1:][self.ids[1:] == self.ids[:-1]]
        if len(doubled):
            raise _unusable(image, role, f"Segment ids {doubled[:5].tolist()} are listed twice.")
        unknown = sorted({segment.category_id for segment in ordered} - columns.keys())
        if unknown:
            raise _unusable(image, role, f"Categories {unknown[:5]} are not in the class list.")
        self.column = np.array([columns[segment.category_id] for segment in ordered], np.int64)
        self.is_crowd = np.array([segment.is_crowd for segment in ordered], np.bool_)
        # Of several crowds of a category panopticapi keeps the one that is listed last.
        self._crowds = {columns[segment.category_id]: segment.id for segment in segments if segment.is_crowd}

    def check_present(self, areas: npt.NDArray[np.int64]) -> None:
        """Refuse segments without pixels; areas (n + 1,), void first."""
        absent = self.ids[areas[1:] == 0]
        if len(absent):
            raise _unusable(self.image, self.role, f"Segment ids {absent[:5].tolist()} are listed but not in the map.")

    def crowd_overlap(self, inside: npt.NDArray[np.int64], column: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(P,) pixels that each predicted segment shares with the crowd of its own class; inside (G, P)."""
        overlap = np.zeros(inside.shape[1], np.int64)
        for crowd_column, segment_id in self._crowds.items():
            row = int(np.searchsorted(self.ids, segment_id))
            overlap += np.where(column == crowd_column, inside[row], 0)
        return overlap


def _size(ids: npt.NDArray[np.integer]) -> str:
    return " x ".join(str(length) for length in ids.shape) + " pixels (height x width)"


def _unusable(image: str, role: str, why: str) -> InputError:
    return InputError("E161", f"The {role} of {image} cannot be scored.", why=why, fix="Correct its map or its list.")

"""COCO mask AP through pycocotools, fed image by image so that masks need not stay in memory."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from retclip.core.errors import InputError, require
from retclip.core.results import Instances

MAX_DETECTIONS = 100


@dataclass(frozen=True)
class TrueInstances:
    """Annotated objects of one image: masks (n, H, W) bool, category_id (n,) int, is_crowd (n,) bool."""

    masks: npt.NDArray[np.bool_]
    category_id: npt.NDArray[np.int64]
    is_crowd: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        require(self.masks.ndim == 3, "TrueInstances.masks", "(n, H, W)", self.masks.shape)
        lengths = (len(self.masks), len(self.category_id), len(self.is_crowd))
        require(len(set(lengths)) == 1, "TrueInstances", "equal lengths", lengths)


@dataclass(frozen=True)
class InstanceResult:
    """Fractions in [0, 1], -1 where COCO finds nothing to average.

    Attributes:
        stats: the twelve figures that COCO prints, in its order (AP, AP50, AP75, APs, APm, APl, AR1, AR10, ...).
        ap: (K,) AP of every category, in the order given; -1 without an annotated object.
    """

    stats: tuple[float, ...]
    ap: npt.NDArray[np.float64]

    @property
    def mean(self) -> float:
        """AP over all categories and thresholds."""
        return self.stats[0]


class MaskAveragePrecision:
    """COCO's segmentation AP (IoU 0.50:0.95, 100 detections an image).

    Matches are made when an image comes by; what stays is a few hundred bytes per object, never a mask.
    """

    def __init__(self, category_ids: Sequence[int]) -> None:
        require(len(category_ids) > 0, "category_ids", "at least one", 0)
        self._categories = list(category_ids)
        self._matches: list[dict[tuple[int, int], dict[str, Any]]] = []

    def add(self, truth: TrueInstances, found: Instances, image: str) -> None:
        """Match one image. Categories outside the list do not count. Raises InputError E161 for different sizes."""
        if truth.masks.shape[1:] != found.masks.shape[1:]:
            why = f"Masks have {found.masks.shape[1:]} pixels (height, width), the truth {truth.masks.shape[1:]}."
            raise InputError("E161", f"The instances of {image} cannot be scored.", why=why, fix="Correct their size.")
        evaluation = _evaluation(self._categories)
        # Ids count from 1: pycocotools takes 0 for "no match".
        for number, (mask, category, crowd) in enumerate(
            zip(truth.masks, truth.category_id.tolist(), truth.is_crowd.tolist(), strict=True), start=1
        ):
            entry = _annotation(number, mask) | {"iscrowd": int(crowd), "ignore": int(crowd)}
            evaluation._gts[0, category].append(entry)
        scored = zip(found.masks, found.category_id.tolist(), found.score.tolist(), strict=True)
        for number, (mask, category, score) in enumerate(scored, start=1):
            evaluation._dts[0, category].append(_annotation(number, mask) | {"score": score})
        self._matches.append(_match(evaluation, self._categories))

    def merge(self, other: MaskAveragePrecision) -> None:
        """Take over the matches of other images."""
        self._matches.extend(other._matches)

    def result(self) -> InstanceResult:
        """Figures of all images so far."""
        evaluation = _evaluation(self._categories)
        params = evaluation.params
        params.imgIds = list(range(len(self._matches)))
        evaluation.evalImgs = [
            image.get((category, area))
            for category in self._categories
            for area in range(len(params.areaRng))
            for image in self._matches
        ]
        evaluation._paramsEval = params
        # pycocotools prints its progress and its table.
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
            evaluation.summarize()
        precision = evaluation.eval["precision"][..., 0, -1]
        per_class = [part[part > -1] for part in np.moveaxis(precision, 2, 0)]
        ap = np.array([part.mean() if part.size else -1.0 for part in per_class])
        return InstanceResult(tuple(float(value) for value in evaluation.stats), ap)


def _evaluation(categories: Sequence[int]) -> COCOeval:
    evaluation = COCOeval(iouType="segm")
    evaluation.params.catIds = list(categories)
    evaluation.params.imgIds = [0]
    return evaluation


def _annotation(number: int, mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"id": number, "segmentation": code, "area": int(mask.sum())}


def _match(evaluation: COCOeval, categories: Sequence[int]) -> dict[tuple[int, int], dict[str, Any]]:
    """(category, area range) -> what `accumulate` reads of COCO's per-image matches; empty pairs are left out."""
    kept = {}
    evaluation.ious = {(0, category): evaluation.computeIoU(0, category) for category in categories}
    for category in categories:
        for area, bounds in enumerate(evaluation.params.areaRng):
            match = evaluation.evaluateImg(0, category, bounds, MAX_DETECTIONS)
            if match is not None:
                kept[category, area] = {
                    "dtScores": match["dtScores"],
                    "dtMatches": match["dtMatches"].astype(np.bool_),
                    "dtIgnore": match["dtIgnore"].astype(np.bool_),
                    "gtIgnore": match["gtIgnore"].astype(np.bool_),
                }
    return kept

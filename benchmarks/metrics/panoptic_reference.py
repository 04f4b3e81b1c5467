"""The panopticapi algorithm written down plainly, pair by pair: slow, and the measure of the fast one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer]
Entry = dict[str, int]  # id, category_id and, for the truth, iscrowd
Entries = dict[int, Entry]


@dataclass
class ClassTally:
    """Running sums of one category."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0


@dataclass
class ReferenceQuality:
    """Counts images one by one; segments are dicts with `id`, `category_id` and, for the truth, `iscrowd`."""

    tallies: dict[int, ClassTally] = field(default_factory=dict)

    def _of(self, category: int) -> ClassTally:
        return self.tallies.setdefault(category, ClassTally())

    def add(
        self, truth_ids: Ids, truth_segments: list[Entry], predicted_ids: Ids, predicted_segments: list[Entry]
    ) -> None:
        """Count one image."""
        truth = {segment["id"]: segment for segment in truth_segments}
        predicted = {segment["id"]: segment for segment in predicted_segments}
        truth_area = {number: int((truth_ids == number).sum()) for number in truth}
        predicted_area = {number: int((predicted_ids == number).sum()) for number in predicted}
        codes, counts = np.unique(
            truth_ids.astype(np.uint64) << 24 | predicted_ids.astype(np.uint64), return_counts=True
        )
        shared = {(int(c) >> 24, int(c) & (1 << 24) - 1): int(n) for c, n in zip(codes, counts, strict=True)}
        truth_done, predicted_done = set(), set()
        for (g, p), common in shared.items():
            if g not in truth or p not in predicted or truth[g]["iscrowd"]:
                continue
            category = truth[g]["category_id"]
            if category != predicted[p]["category_id"]:
                continue
            union = predicted_area[p] + truth_area[g] - common - shared.get((0, p), 0)
            iou = common / union
            if iou > 0.5:
                self._of(category).tp += 1
                self._of(category).iou += iou
                truth_done.add(g)
                predicted_done.add(p)
        self._count_misses(truth, truth_done)
        excused = self._excused(truth, predicted, shared)
        for p in predicted.keys() - predicted_done:
            if excused[p] / predicted_area[p] <= 0.5:
                self._of(predicted[p]["category_id"]).fp += 1

    def _count_misses(self, truth: Entries, truth_done: set[int]) -> None:
        for g, segment in truth.items():
            if g not in truth_done and not segment["iscrowd"]:
                self._of(segment["category_id"]).fn += 1

    def _excused(self, truth: Entries, predicted: Entries, shared: dict[tuple[int, int], int]) -> dict[int, int]:
        """Pixels of every predicted segment that lie on void or on the crowd of its class."""
        # A dict keeps the last crowd of a category, as the original does.
        crowds = {segment["category_id"]: g for g, segment in truth.items() if segment["iscrowd"]}
        excused = {}
        for p, segment in predicted.items():
            excused[p] = shared.get((0, p), 0)
            if segment["category_id"] in crowds:
                excused[p] += shared.get((crowds[segment["category_id"]], p), 0)
        return excused

    def averages(self, categories: list[int]) -> dict[str, float]:
        """PQ, SQ and RQ over the categories that occur."""
        sums, n = [0.0, 0.0, 0.0], 0
        for category in categories:
            tally = self._of(category)
            if tally.tp + tally.fp + tally.fn == 0:
                continue
            n += 1
            weight = tally.tp + 0.5 * tally.fp + 0.5 * tally.fn
            sums[0] += tally.iou / weight
            sums[1] += tally.iou / tally.tp if tally.tp else 0.0
            sums[2] += tally.tp / weight
        return dict(zip(("pq", "sq", "rq"), (value / n for value in sums), strict=True)) | {"n": n}

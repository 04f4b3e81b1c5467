"""All metrics of a run in one pass over its pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retclip.core.vocabulary import Vocabulary
from retclip.evaluation.calibration import Calibration
from retclip.evaluation.instance_ap import MaskAveragePrecision, TrueInstances
from retclip.evaluation.panoptic_quality import MatchCounts, PanopticQuality, PanopticResult, summarise
from retclip.evaluation.prediction import Prediction
from retclip.evaluation.semantic import SemanticConfusion
from retclip.evaluation.truth import UNLABELLED, EvaluationSet, TruthImage, TruthMap


@dataclass(frozen=True)
class ImageRow:
    """One picture in a report and in the bootstrap; classes without a count are left out.

    Attributes:
        image_id: as in the truth.
        pq: panoptic quality of this picture alone, NaN for an empty one.
        columns: (m,) classes that occur; counts: (4, m) float64 iou, tp, fp, fn.
        pixels: (3, n) int64 predicted column, true column (both counted with "none" last) and pixels.
        named, placed: segments found in their place, and those of them with the right class.
    """

    image_id: str
    pq: float
    columns: npt.NDArray[np.int64]
    counts: npt.NDArray[np.float64]
    pixels: npt.NDArray[np.int64]
    named: int
    placed: int


class Tally:
    """Counts pictures one by one; a few hundred bytes a picture stay, never a map or a mask."""

    def __init__(self, dataset: EvaluationSet) -> None:
        self.vocabulary: Vocabulary = dataset.vocabulary
        self.kind = dataset.kind
        self.quality = PanopticQuality(dataset.vocabulary)
        self.confusion = SemanticConfusion(len(dataset.vocabulary))
        things = [category.id for category in dataset.vocabulary if category.is_thing]
        self.precision = MaskAveragePrecision(things) if things and dataset.kind == "panoptic" else None
        self.calibration = Calibration()
        self.mistaken: Counter[tuple[int, int]] = Counter()
        self.rows: list[ImageRow] = []

    def add(self, image: TruthImage, truth: TruthMap, prediction: Prediction) -> None:
        """Score one picture. Raises InputError E161 for a prediction that does not fit."""
        name = f"{image.path.name} ({prediction.origin})"
        matches = self.quality.add(truth.ids, truth.segments, prediction.ids, prediction.segments, name)
        before = self.confusion.matrix.copy()
        self.confusion.add(truth.semantic, prediction.semantic, name, UNLABELLED)
        if self.precision is not None:
            self.precision.add(true_instances(truth, self.vocabulary), prediction.instances, name)
        score = {segment.id: value for segment, value in zip(prediction.segments, prediction.scores, strict=True)}
        right = np.array([pair.true_column == pair.predicted_column for pair in matches.pairs], np.bool_)
        self.calibration.add(np.array([score[pair.predicted_id] for pair in matches.pairs]), right)
        self.mistaken.update(
            (pair.true_column, pair.predicted_column)
            for pair in matches.pairs
            if pair.true_column != pair.predicted_column
        )
        added = self.confusion.matrix - before
        self.rows.append(self._row(image.image_id, matches.counts, added, int(right.sum()), len(right)))

    def _row(
        self, image_id: str, counts: MatchCounts, pixels: npt.NDArray[np.int64], named: int, placed: int
    ) -> ImageRow:
        table = np.stack([counts.iou, counts.tp, counts.fp, counts.fn])
        columns = np.flatnonzero(table.any(axis=0))
        predicted, true = np.nonzero(pixels[:, :-1])
        sparse = np.stack([predicted, true, pixels[predicted, true]])
        pq = summarise(counts, self.is_thing).all.pq
        return ImageRow(image_id, pq, columns, table[:, columns], sparse, named, placed)

    @property
    def is_thing(self) -> npt.NDArray[np.bool_]:
        """(C,) bool."""
        return np.array([category.is_thing for category in self.vocabulary])

    def panoptic(self) -> PanopticResult:
        """Panoptic quality of all pictures so far."""
        return self.quality.result()

    def merge(self, other: Tally) -> None:
        """Take over the pictures of another tally, after our own."""
        self.quality.merge(other.quality)
        self.confusion.merge(other.confusion)
        if self.precision is not None and other.precision is not None:
            self.precision.merge(other.precision)
        self.calibration.merge(other.calibration)
        self.mistaken.update(other.mistaken)
        self.rows.extend(other.rows)


def true_instances(truth: TruthMap, vocabulary: Vocabulary) -> TrueInstances:
    """The annotated things of a picture, crowds marked."""
    things = {category.id for category in vocabulary if category.is_thing}
    chosen = [segment for segment in truth.segments if segment.category_id in things]
    masks = np.stack([truth.ids == s.id for s in chosen]) if chosen else np.zeros((0, *truth.ids.shape), np.bool_)
    categories = np.array([segment.category_id for segment in chosen], np.int64)
    return TrueInstances(masks, categories, np.array([segment.is_crowd for segment in chosen], np.bool_))

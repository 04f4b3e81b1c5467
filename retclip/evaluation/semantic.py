"""Mean IoU and accuracies of semantic maps, counted as detectron2's SemSegEvaluator counts them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retclip.core.errors import InputError, require

IGNORED = 255


@dataclass(frozen=True)
class SemanticResult:
    """Fractions in [0, 1].

    Attributes:
        iou, accuracy: (C,) float64, NaN for classes without a pixel in the truth.
        miou, macc: means over the classes with truth; fwiou: weighted by their pixels; pacc: pixel accuracy. NaN when
            no pixel of the truth counts.
    """

    iou: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    miou: float
    fwiou: float
    macc: float
    pacc: float

    def mean(self, chosen: npt.NDArray[np.bool_]) -> float:
        """Mean IoU over a subset of classes, (C,) bool; NaN when none of them has truth."""
        values = self.iou[chosen & ~np.isnan(self.iou)]
        return float(values.mean()) if len(values) else float("nan")


class SemanticConfusion:
    """Counts pixels by predicted and true class; memory does not grow with images.

    Attributes:
        matrix: (C + 1, C + 1) int64, row = predicted, column = true; the last column counts ignored pixels, the last
            row pixels that nobody predicted.
    """

    def __init__(self, classes: int) -> None:
        require(classes > 0, "classes", "> 0", classes)
        self.matrix = np.zeros((classes + 1, classes + 1), np.int64)

    def add(
        self, truth: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], image: str, ignored: int = IGNORED
    ) -> None:
        """Count one image.

        Args:
            truth: (H, W) class columns; pixels of value `ignored` do not count.
            predicted: (H, W) class columns, -1 where there is no prediction (a wrong answer, not an ignored one).
            image: its name, for errors.
            ignored: value of the truth that does not count.

        Raises:
            InputError: E161 for different sizes or values outside the classes.
        """
        classes = len(self.matrix) - 1
        if truth.shape != predicted.shape:
            why = f"It has {predicted.shape} pixels (height, width), the truth {truth.shape}."
            raise InputError("E161", f"The prediction of {image} cannot be scored.", why=why, fix="Correct its size.")
        columns = np.where(truth == ignored, classes, truth.astype(np.int64)).ravel()
        rows = np.where(predicted == -1, classes, predicted.astype(np.int64)).ravel()
        for role, values in (("truth", columns), ("prediction", rows)):
            if values.size and not 0 <= int(values.min()) <= int(values.max()) <= classes:
                why = f"Its values reach from {values.min()} to {values.max()}; there are {classes} classes."
                raise InputError("E161", f"The {role} of {image} cannot be scored.", why=why, fix="Correct its map.")
        counts = np.bincount(rows * (classes + 1) + columns, minlength=self.matrix.size)
        self.matrix += counts.reshape(self.matrix.shape)

    def merge(self, other: SemanticConfusion) -> None:
        """Take over the counts of other images."""
        self.matrix += other.matrix

    def result(self) -> SemanticResult:
        """Figures of all images so far."""
        counted = self.matrix[:, :-1]
        hit = counted[:-1].diagonal().astype(np.float64)
        truth = counted.sum(axis=0).astype(np.float64)
        union = truth + counted[:-1].sum(axis=1) - hit
        valid = truth > 0
        empty = np.full(len(hit), np.nan)
        iou = np.divide(hit, union, out=empty.copy(), where=valid)
        accuracy = np.divide(hit, truth, out=empty.copy(), where=valid)
        if not valid.any():
            return SemanticResult(iou, accuracy, *(float("nan"),) * 4)
        weighted = float((iou[valid] * (truth[valid] / truth.sum())).sum())
        means = float(iou[valid].mean()), weighted, float(accuracy[valid].mean()), float(hit.sum() / truth.sum())
        return SemanticResult(iou, accuracy, *means)

"""What the database knows about itself: when a neighbour can be believed, and which exemplars nobody confirms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from retclip.core.errors import require
from retclip.query.scoring import Hits

_STEPS = 50
_RIDGE = 1e-5  # keeps the slope finite where right and wrong neighbours separate cleanly


def fit_reliability(distance: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Intercept and slope of P(right | nearest distance) = sigmoid(intercept + slope * distance).

    Logistic regression by Newton's method with a small ridge.

    Args:
        distance: (N,) distance of the nearest neighbour; infinite ones are left out.
        right: (N,) bool, that neighbour has the true class.
    """
    finite = np.isfinite(distance)
    require(bool(finite.any()), "distance", "at least one finite number", "none")
    x = np.stack([np.ones(int(finite.sum())), distance[finite].astype(np.float64)], axis=1)
    y = right[finite].astype(np.float64)
    weights = np.zeros(2)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (p - y) / len(y) + _RIDGE * weights
        curvature = (x * (p * (1 - p))[:, None]).T @ x / len(y) + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return float(weights[0]), float(weights[1])


def nearest_is_right(
    hits: Hits, column: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """(N,) distance of every segment's nearest hit, and whether it has the true column (N,)."""
    return hits.distance[:, 0].numpy(), hits.column[:, 0].numpy() == column


def doubtful(hits: Hits, column: npt.NDArray[np.int64], image: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(N,) segments none of whose neighbours in other pictures has their class, though other pictures hold it.

    Args:
        hits: (N, K) neighbours with the own picture left out.
        column: (N,) class of every segment.
        image: (N,) its picture.
    """
    confirmed = (hits.column == torch.from_numpy(column)[:, None]).any(dim=1).numpy()
    pairs = np.unique(np.stack([column, image], axis=1), axis=0)
    pictures = np.bincount(pairs[:, 0], minlength=int(column.max()) + 1)
    doubted: npt.NDArray[np.bool_] = ~confirmed & (pictures[column] > 1)
    return doubted

"""The slow reference lives beside the benchmark that measures against it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The restated panopticapi algorithm."""
    spec = importlib.util.spec_from_file_location(
        "panoptic_reference", BENCHMARKS / "metrics" / "panoptic_reference.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def _random_map(rng: np.random.Generator, size: tuple[int, int], pieces: int) -> np.ndarray:
    """(H, W) Voronoi cells with ids spread over three bytes, some of them void."""
    seeds = rng.uniform(0, 1, (pieces, 2)) * size
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    nearest = np.square(grid[:, :, None] - seeds).sum(axis=-1).argmin(axis=-1)
    ids = rng.choice(1 << 24, pieces, replace=False)
    ids[rng.random(pieces) < 0.15] = 0
    return ids[nearest]


def _list_segments(rng: np.random.Generator, ids: np.ndarray, categories: list[int], crowds: bool) -> list[dict]:
    present = [int(value) for value in np.unique(ids) if value]
    rng.shuffle(present)
    return [
        {"id": value, "category_id": int(rng.choice(categories)), "iscrowd": int(crowds and rng.random() < 0.3)}
        for value in present
    ]


@pytest.fixture(scope="session")
def random_pair():
    """A truth map with crowds and void, and a prediction that agrees with it in part."""

    def make(seed: int, categories: list[int]):
        rng = np.random.default_rng(seed)
        size = (int(rng.integers(4, 40)), int(rng.integers(4, 40)))
        truth = _random_map(rng, size, int(rng.integers(1, 9)))
        predicted = np.where(rng.random() < 0.3, _random_map(rng, size, int(rng.integers(1, 9))), truth)
        stripe = int(rng.integers(0, size[0]))
        predicted[:stripe] = np.roll(predicted, int(rng.integers(0, 3)), axis=1)[:stripe]
        truth_segments = _list_segments(rng, truth, categories, crowds=True)
        labels = {segment["id"]: segment["category_id"] for segment in truth_segments}
        predicted_segments = [
            {
                "id": s["id"],
                "category_id": labels.get(s["id"], s["category_id"]) if rng.random() < 0.7 else s["category_id"],
            }
            for s in _list_segments(rng, predicted, categories, crowds=False)
        ]
        return truth, truth_segments, predicted, predicted_segments

    return make

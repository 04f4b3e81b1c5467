"""Results built by hand: regions of a map with invented scores."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from retclip.core.panoptic import PanopticMap, Segment
from retclip.core.results import Explanation, Instances, LabelMatch, Neighbor, SegmentationResult
from retclip.core.segments import StoredSegment
from retclip.core.vocabulary import Category, Vocabulary

EXPERTS = ("retrieval", "clip", "in-vocab")
RUN = {
    "retclip": "0.1.0",
    "preset": "balanced",
    "db": [{"name": "street", "version": 7, "feature_space": "9f3c" * 16}],
    "fusion": {"mode": "geometric", "alpha": 0.4, "beta": 0.7, "gamma": 0.3},
}


def make_vocabulary(names: Sequence[str], things: Mapping[str, bool] | None = None) -> Vocabulary:
    """Category ids start at 10, so that they differ from columns."""
    flags = things or {}
    return Vocabulary("sample", tuple(Category(10 + i, (n,), flags.get(n, i % 2 == 0)) for i, n in enumerate(names)))


def make_stored(segment_id: int, label: str = "pier", **changes: object) -> StoredSegment:
    values: dict[str, object] = {
        "segment_id": segment_id,
        "label": label,
        "label_raw": f"{label}, wharf",
        "label_source": "human",
        "label_confidence": 1.0,
        "source": "ade20k",
        "split": "train",
        "image_id": f"ADE_train_{segment_id % 10**8:08d}",
        "image_uri": "images/a.jpg",
        "image_sha256": "ab" * 32,
        "image_width": 640,
        "image_height": 480,
        "box": (1.0, 2.0, 30.0, 40.0),
        "area": 500,
        "mask_counts": b"",
        "box_source": "annotation",
        "mask_source": "annotation",
        "detector_score": float("nan"),
        "mask_iou": float("nan"),
        "prompt_chunk": "",
        "is_crowd": False,
        "is_thing": False,
        "license": "CC BY 2.0",
        "attribution": "A. Photographer",
    }
    return StoredSegment(**(values | changes))  # type: ignore[arg-type]


def make_segment(ids: np.ndarray, segment_id: int, category: Category, score: float) -> Segment:
    rows, columns = np.nonzero(ids == segment_id)
    x, y = int(columns.min()), int(rows.min())
    box = (x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y)
    return Segment(segment_id, category.id, category.is_thing, score, len(rows), box)


def make_explanation(
    segment: Segment, category: Category, others: Sequence[str], rng: np.random.Generator
) -> Explanation:
    known = rng.random() < 0.85
    stored = (category.name,) if known else ()
    shares = rng.dirichlet((2, 1, 1)) if known else np.array([0.0, *rng.dirichlet((1, 1))])
    scores = {
        expert: float(np.clip(segment.score + rng.normal(0, 0.15), 0, 1)) if known or expert != "retrieval" else None
        for expert in EXPERTS
    }
    neighbors = tuple(
        Neighbor(float(distance), category.name, make_stored(int(rng.integers(1, 400)), category.name))
        for distance in np.sort(rng.uniform(0.05, 0.4, 6 if known else 0))
    )
    runner_up = tuple((name, segment.score * 0.3 / (rank + 1)) for rank, name in enumerate(others[:3]))
    return Explanation(
        segment,
        category.name,
        0,
        scores,
        EXPERTS[int(shares.argmax())],
        dict(zip(EXPERTS, shares.tolist(), strict=True)),
        runner_up,
        LabelMatch(category.name, stored, "name" if known else "none", 1.0 if known else 0.0),
        neighbors,
        () if segment.score > 0.6 else ("low_margin",) if known else ("low_margin", "no_exemplars"),
    )


def make_result(
    ids: np.ndarray,
    vocabulary: Vocabulary,
    columns: Mapping[int, int] | None = None,
    image: str = "photos/street.jpg",
    seed: int = 0,
) -> SegmentationResult:
    """A result over an id map; `columns` gives the class of each id, else they take turns."""
    rng = np.random.default_rng(seed)
    present = [int(i) for i in np.unique(ids) if i]
    chosen = columns or {i: n % len(vocabulary) for n, i in enumerate(present)}
    semantic = np.full(ids.shape, -1, dtype=np.int32)
    explanations = []
    for segment_id in present:
        category = vocabulary[chosen[segment_id]]
        segment = make_segment(ids, segment_id, category, round(float(rng.beta(5, 2)), 4))
        others = [c.name for c in vocabulary if c.id != category.id]
        rng.shuffle(others)
        explanations.append(make_explanation(segment, category, others, rng))
        semantic[ids == segment_id] = chosen[segment_id]
    things = [e.segment for e in explanations if e.segment.is_thing]
    instances = Instances(
        np.array([ids == s.id for s in things], dtype=bool).reshape(-1, *ids.shape),
        np.array([s.category_id for s in things], dtype=np.int64),
        np.array([s.score for s in things], dtype=np.float32),
    )
    panoptic = PanopticMap(ids.astype(np.int32), tuple(e.segment for e in explanations))
    return SegmentationResult(
        image, "cd" * 32, panoptic, tuple(explanations), semantic, instances, vocabulary, RUN, 1.25
    )


def make_blocks(height: int, width: int, count: int, seed: int = 0) -> np.ndarray:
    """(H, W) int32: `count` overlapping rectangles painted one over another; later ones may hide earlier ones."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((height, width), dtype=np.int32)
    for number in range(1, count + 1):
        y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
        ids[y : y + int(rng.integers(1, height // 2 + 2)), x : x + int(rng.integers(1, width // 2 + 2))] = number * 7
    return ids


def make_pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def make_thumbnail(segment_id: int) -> bytes:
    """A JPEG whose colour depends on the id."""
    buffer = io.BytesIO()
    Image.new("RGB", (128, 96), (segment_id % 256, segment_id * 7 % 256, segment_id * 31 % 256)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    """The functions of this module, for the tests beside it."""
    return sys.modules[__name__]

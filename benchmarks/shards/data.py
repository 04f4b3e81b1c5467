"""Vectors shaped like those of CLIP, and databases made of them through the real writer.

A large common mean (cosine of random pairs about 0.4), Zipf-sized classes inside super-classes, sub-clusters, low-rank
and isotropic noise. "Hard" means that classes overlap: the nearest row of a query is of its class in about 6 of 10
cases and 16 neighbours come from several classes. Easy data would let approximate indexes look better than they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retclip.core.identity import FeatureSpace
from retclip.core.segments import StoredSegment, segment_identity
from retclip.shards import Database

DIM, CLASSES, SUPERCLASSES, SUBCLUSTERS, RANK = 768, 1_000, 60, 4, 64
_BATCH = 8_192


@dataclass(frozen=True)
class Source:
    """The distribution: seeded, so every batch can be drawn alone."""

    mean: npt.NDArray[np.float32]
    centres: npt.NDArray[np.float32]
    low_rank: npt.NDArray[np.float32]
    seed: int

    @classmethod
    def make(cls, seed: int = 0) -> Source:
        """Class and sub-cluster centres (CLASSES, SUBCLUSTERS, DIM)."""
        rng = np.random.default_rng(seed)

        def normal(*shape: int) -> npt.NDArray[np.float32]:
            return rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(DIM))

        groups = normal(SUPERCLASSES, DIM)[rng.integers(0, SUPERCLASSES, CLASSES)]
        centres = 0.38 * groups[:, None] + 0.28 * normal(CLASSES, 1, DIM) + 0.22 * normal(CLASSES, SUBCLUSTERS, DIM)
        return cls(0.9 * normal(DIM), centres, normal(RANK, DIM), seed)

    def draw(self, labels: npt.NDArray[np.int64], batch: int) -> npt.NDArray[np.float32]:
        """(n, DIM) unit vectors of some classes; `batch` numbers the random stream."""
        rng = np.random.default_rng((self.seed, batch))
        centres = self.centres[labels, rng.integers(0, SUBCLUSTERS, len(labels))]
        shared = rng.standard_normal((len(labels), RANK), np.float32) @ self.low_rank * np.float32(0.78 / np.sqrt(RANK))
        own = rng.standard_normal((len(labels), DIM), np.float32) * np.float32(0.5 / np.sqrt(DIM))
        vectors = self.mean + centres + shared + own
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def class_sizes(rows: int) -> npt.NDArray[np.int64]:
    """(CLASSES,) rows of each class, Zipf with exponent 0.6, in random order, at least one."""
    share = np.random.default_rng(1).permutation(np.arange(1, CLASSES + 1, dtype=np.float64) ** -0.6)
    sizes = np.maximum(1, np.floor(rows * share / share.sum())).astype(np.int64)
    sizes[0] += rows - sizes.sum()
    return sizes


def batches(source: Source, rows: int) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """(labels, vectors) of a corpus: classes in random order, as pictures bring them."""
    labels = np.random.default_rng(2).permutation(np.repeat(np.arange(CLASSES), class_sizes(rows)))
    for number, start in enumerate(range(0, rows, _BATCH)):
        part = labels[start : start + _BATCH]
        yield part, source.draw(part, number)


def queries(source: Source, labels: npt.NDArray[np.int64], turn: int = 0) -> npt.NDArray[np.float32]:
    """One query of each label, from a stream that no row was drawn from; other turns draw others."""
    return source.draw(labels, (1 << 40) + turn)


def space() -> FeatureSpace:
    """A feature space for vectors that no encoder made."""
    return FeatureSpace(
        "synthetic", "0" * 64, DIM, ("last",), 16, 224, 448, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "", "mean"
    )


def segment(number: int, label: int) -> StoredSegment:
    """A record of realistic length: 12 segments a picture."""
    counts = b"PPn0d0`0o0O1N2N2M3M2N2O0O100O1O1N3M3" + number.to_bytes(6, "little").hex().encode()
    image = number // 12
    sha = f"{image:064x}"
    return StoredSegment(
        segment_id=segment_identity("synthetic", sha, counts, (480, 640)),
        label=f"class {label:04d}",
        label_raw=f"class {label:04d}",
        label_source="human",
        label_confidence=1.0,
        source="synthetic",
        split="train",
        image_id=f"{image:08d}",
        image_uri=f"images/{image:08d}.jpg",
        image_sha256=sha,
        image_width=640,
        image_height=480,
        box=(10.0, 20.0, 110.0, 220.0),
        area=9_000,
        mask_counts=counts,
        box_source="annotation",
        mask_source="annotation",
        detector_score=1.0,
        mask_iou=1.0,
        prompt_chunk="",
        is_crowd=False,
        is_thing=True,
        license="CC0-1.0",
        attribution="",
    )


def build(path: Path, rows: int) -> Database:
    """A database of `rows` segments, or the one that is already there."""
    if path.exists():
        return Database.open(path)
    database = Database.create(path, space(), {"name": "synthetic"})
    number = 0
    with database.write("build", "benchmarks") as transaction:
        for labels, vectors in batches(Source.make(), rows):
            transaction.add([segment(number + i, int(label)) for i, label in enumerate(labels)], vectors)
            number += len(labels)
        return transaction.commit()

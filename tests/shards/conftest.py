"""Small databases made from fixed seeds."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest

from retclip.core.identity import FeatureSpace
from retclip.core.segments import StoredSegment, segment_identity
from retclip.shards import Database

DIM = 8


def make_space(dim: int = DIM) -> FeatureSpace:
    return FeatureSpace(
        "test/encoder", "0" * 64, dim, ("last",), 8, 256, 512, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "", "mean"
    )


def make_segment(number: int, label: str, source: str = "alpha") -> StoredSegment:
    counts = f"mask{number}".encode()
    sha = f"{number // 3:064x}"
    return StoredSegment(
        segment_id=segment_identity(source, sha, counts, (10, 20)),
        label=label,
        label_raw=f"{label}, raw",
        label_source="human",
        label_confidence=0.5,
        source=source,
        split="train",
        image_id=f"image-{number // 3}",
        image_uri=f"photos/{number // 3}.jpg",
        image_sha256=sha,
        image_width=20,
        image_height=10,
        box=(0.1, 1.25, 5.5, 6.0),
        area=7,
        mask_counts=counts,
        box_source="annotation",
        mask_source="annotation",
        detector_score=0.25,
        mask_iou=0.75,
        prompt_chunk="",
        is_crowd=False,
        is_thing=number % 2 == 0,
        license="CC-BY-4.0",
        attribution="somebody",
    )


def make_rows(count: int, classes: int = 5, seed: int = 0) -> tuple[list[StoredSegment], npt.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    segments = [make_segment(n, f"class {n % classes}", "alpha" if n % 4 else "beta") for n in range(count)]
    return segments, rng.normal(size=(count, DIM)).astype(np.float32)


def build(
    path: Path, segments: list[StoredSegment], vectors: npt.NDArray[np.floating], shard_rows: int = 1 << 18
) -> Database:
    database = Database.create(path, make_space(vectors.shape[1]), {"name": "tiny"})
    with database.write("build", "tests", shard_rows) as transaction:
        transaction.add(segments, vectors)
        return transaction.commit()


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The makers above: importlib mode gives test modules no package to import them from."""
    return SimpleNamespace(space=make_space, segment=make_segment, rows=make_rows, build=build)


@pytest.fixture
def rows() -> tuple[list[StoredSegment], npt.NDArray[np.float32]]:
    return make_rows(60)


@pytest.fixture
def database(tmp_path: Path, rows: tuple[list[StoredSegment], npt.NDArray[np.float32]]) -> Database:
    """60 rows of 5 classes in shards of 25 rows."""
    return build(tmp_path / "tiny.retdb", *rows, shard_rows=25)

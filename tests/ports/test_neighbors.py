"""Whatever answers as a `NeighborIndex` gives the answers of a plain loop over the stored vectors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from retclip.core.errors import DatabaseError
from retclip.core.identity import FeatureSpace
from retclip.core.segments import Neighbors, StoredSegment, segment_identity
from retclip.ports.neighbors import NeighborIndex
from retclip.shards import Database
from retclip.shards.layers import LayeredIndex
from retclip.shards.transforms import KINDS
from tests.absence import require_library

DIM = 12
ROWS = 90
KINDS_OF_INDEX = ["database", "layers", "lancedb", "qdrant"]
LIBRARIES = {"lancedb": "lancedb", "qdrant": "qdrant_client"}


def rows() -> tuple[list[StoredSegment], npt.NDArray[np.float16]]:
    """Segments of 6 uneven classes; every third vector is doubled, so that ties decide."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(ROWS, DIM))
    vectors[2::3] = vectors[1::3]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    segments = []
    for number in range(ROWS):
        counts, sha = f"0{number}".encode(), f"{number:064x}"
        segments.append(
            StoredSegment(
                segment_identity("made", sha, counts, (4, 5)), f"class {int(math.sqrt(number)) % 6}", f"raw {number}",
                "machine", 0.5, "made", "train", f"image {number}", f"photos/{number}.jpg", sha, 5, 4,
                (0.5, 1.0, 4.25, 4.0), 7, counts, "box", "mask", math.nan if number % 2 else 0.25, 0.75, "", False,
                number % 3 > 0, "CC0", "nöbody",
            )
        )  # fmt: skip
    return segments, vectors


def make(path: Path, chosen: range, transform: str = "none") -> Database:
    """A database of some rows in small shards, of which one class and a few rows were deleted again."""
    space = FeatureSpace("made", "0" * 64, DIM, ("a",), 8, 64, 64, (0.5,) * 3, (0.5,) * 3, "", "mean")
    segments, vectors = rows()
    database = Database.create(path, space, {"name": "made"}, transform)
    with database.write("build", "tests", shard_rows=23) as transaction:
        transaction.add([segments[n] for n in chosen], vectors[list(chosen)].astype(np.float32))
        transaction.declare("class 1", ["one"])
        transaction.commit()
    with database.write("delete", "tests") as transaction:
        transaction.delete(labels=["class 2"], segment_ids=[segments[n].segment_id for n in chosen[::7]])
        return transaction.commit()


def opened(kind: str, folder: Path, transform: str = "none", **options: Any) -> NeighborIndex:
    """An index of the same live rows in every form."""
    if kind == "layers":
        # Cut where `make` deletes the same rows on both sides.
        parts = [make(folder / "a.retdb", range(49), transform), make(folder / "b.retdb", range(49, ROWS), transform)]
        return LayeredIndex(parts, "merged")
    database = make(folder / "made.retdb", range(ROWS), transform)
    if kind == "database":
        return database
    from retclip.adapters.vector_engines import export_to_engine, open_engine

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert export_to_engine(database, kind, str(folder / kind), transform) == len(database)
    return open_engine(f"{kind}:{folder / kind}", **options)


def skip_without_library(kind: str) -> None:
    if kind in LIBRARIES:
        require_library(LIBRARIES[kind], kind)


@pytest.fixture(scope="module", params=KINDS_OF_INDEX)
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NeighborIndex]:
    skip_without_library(request.param)
    index = opened(request.param, tmp_path_factory.mktemp(request.param))
    yield index
    if hasattr(index, "close"):
        index.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[StoredSegment, npt.NDArray[np.float64]]]:
    """Live rows with their unit vectors: what the oracle searches."""
    database = make(tmp_path_factory.mktemp("oracle") / "made.retdb", range(ROWS))
    found = [(s, database.vectors([(shard, row)])[0].astype(np.float64)) for shard, row, s in database.iter_segments()]
    return [(segment, vector / np.linalg.norm(vector)) for segment, vector in found]


def oracle(
    live: list[tuple[StoredSegment, npt.NDArray[np.float64]]],
    query: npt.NDArray[np.float32],
    k: int,
    labels: set[str],
    per_class: int | None,
) -> list[tuple[float, StoredSegment]]:
    """The nearest by a loop: sorted by distance, then segment id, at most `per_class` of a class."""
    unit = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    ranked = sorted(
        ((round(1 - float(np.add.reduce(vector * unit)), 9), segment.segment_id, segment) for segment, vector in live
         if segment.label in labels),
        key=lambda item: item[:2],
    )  # fmt: skip
    seen: dict[str, int] = {}
    chosen = []
    for distance, _, segment in ranked:
        seen[segment.label] = seen.get(segment.label, 0) + 1
        if per_class is None or seen[segment.label] <= per_class:
            chosen.append((distance, segment))
    return chosen[:k]


QUERIES = np.concatenate(
    [np.random.default_rng(5).normal(size=(6, DIM)), rows()[1][[1, 4, 40]].astype(np.float64) * 3]
).astype(np.float32)


@pytest.mark.parametrize("k", [1, 5, 200])
@pytest.mark.parametrize("per_class", [None, 1, 3])
@pytest.mark.parametrize("labels", [None, {"class 1"}, {"class 0", "class 3", "class 5"}])
def test_answers_are_those_of_a_plain_loop(index, live, k, per_class, labels):
    ids = None if labels is None else [item.id for item in index.classes if item.name in labels]
    found = index.search(QUERIES, k, ids, per_class)
    names = {item.id: item.name for item in index.classes}
    for query, asked in enumerate(QUERIES):
        expected = oracle(live, asked, k, labels or set(names.values()), per_class)
        count = len(expected)
        assert found.segment_id[query, :count].tolist() == [segment.segment_id for _, segment in expected]
        assert [names[c] for c in found.class_id[query, :count].tolist()] == [segment.label for _, segment in expected]
        np.testing.assert_allclose(found.distance[query, :count], [d for d, _ in expected], atol=1e-6)
        assert_missing(found, query, count)


def assert_missing(found: Neighbors, query: int, count: int) -> None:
    assert np.isposinf(found.distance[query, count:]).all()
    for column in (found.class_id, found.shard, found.row):
        assert (column[query, count:] == -1).all()
    assert not found.segment_id[query, count:].any()


def test_records_stand_at_the_places_of_the_answer(index, live):
    found = index.search(QUERIES, 7)
    stored = {segment.segment_id: segment for segment, _ in live}
    places = list(zip(found.shard.ravel().tolist(), found.row.ravel().tolist(), strict=True))
    for record, segment_id in zip(index.segments(places), found.segment_id.ravel().tolist(), strict=True):
        expected = stored[segment_id]
        assert repr(record) == repr(expected)  # by text, for NaN is not equal to itself
    assert index.segments([]) == []
    assert {index.origin(shard) for shard, _ in places} <= {f"{d['name']}@{d['version']}" for d in index.databases}


def test_classes_and_facts_are_those_of_the_database(index, live):
    counts: dict[str, int] = {}
    for segment, _ in live:
        counts[segment.label] = counts.get(segment.label, 0) + 1
    assert {item.name: item.count for item in index.classes} == counts
    assert "class 2" not in counts
    assert "one" in {item.name: item.aliases for item in index.classes}["class 1"]
    assert index.space.dim == DIM
    assert all(entry["feature_space"] == index.space.fingerprint for entry in index.databases)


def test_wrong_questions_are_refused(index):
    with pytest.raises(DatabaseError, match="E309"):
        index.search(QUERIES, 1, [12345])
    for queries in (QUERIES[:, :3], QUERIES * np.nan, QUERIES * 0):
        with pytest.raises(ValueError, match="queries"):
            index.search(queries, 1)
    with pytest.raises(ValueError, match="k"):
        index.search(QUERIES, 0)
    with pytest.raises(ValueError, match="per_class_k"):
        index.search(QUERIES, 1, None, 0)
    nothing = index.search(QUERIES, 2, [])
    assert_missing(nothing, slice(None), 0)
    assert index.search(QUERIES[:0], 2).distance.shape == (0, 2)


@pytest.mark.parametrize("kind", ["lancedb", "qdrant"])
@pytest.mark.parametrize("transform", KINDS)
def test_a_transform_travels_with_the_vectors(kind, transform, tmp_path):
    skip_without_library(kind)
    index = opened(kind, tmp_path, transform)
    database = Database.open(tmp_path / "made.retdb")
    assert (database.transform, index.transform) == (transform, transform)
    expected = database.search(QUERIES, 6, per_class_k=2)
    for asked in (None, transform):
        found = index.search(QUERIES, 6, per_class_k=2, transform=asked)
        np.testing.assert_array_equal(found.segment_id, expected.segment_id)
        np.testing.assert_allclose(found.distance, expected.distance, atol=1e-6)
    other = next(item for item in KINDS if item != transform)
    with pytest.raises(DatabaseError, match=rf"E333(.|\n)*--transform {other}"):
        index.search(QUERIES, 1, transform=other)
    index.close()

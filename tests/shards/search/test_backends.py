"""Every exact backend gives the bits of a brute-force search in float64."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.core.segments import Neighbors
from retclip.shards.search import Request, Searcher
from retclip.shards.search.faiss_scan import FaissScan
from retclip.shards.search.kernels import CPU_KERNELS, float16_kernel
from retclip.shards.search.keys import KeyBudget
from retclip.shards.search.scan import Scan


def brute_force(searcher, database, queries, request):
    """All live rows measured one by one, ordered by (distance, segment id)."""
    transform = searcher.transform(request.transform)
    asked = queries.astype(np.float64)
    asked = transform.keys(asked / np.sqrt(np.add.reduce(asked * asked, axis=1))[:, None])
    rows = [
        (c, s, r, int(database.snapshot.shards[s].reader.row_ids[r]))
        for c in request.classes
        for s, found in database.snapshot.class_rows(c)
        for r in found.tolist()
    ]
    vectors = [database.snapshot.shards[s].reader.vectors[r] for _, s, r, _ in rows]
    keys = transform.keys(np.array(vectors, np.float16).reshape(len(rows), database.snapshot.dim))
    shape = (len(asked), request.k)
    answer = Neighbors(
        np.full(shape, np.inf, np.float32), *(np.full(shape, -1, t) for t in (np.int32, np.int32, np.int64)),
        np.zeros(shape, np.uint64),
    )  # fmt: skip
    for query, key in enumerate(asked):
        likeness = np.add.reduce(np.repeat(key[None], len(keys), axis=0) * keys, axis=1)
        distance = np.clip(1.0 - likeness, 0.0, 2.0).astype(np.float32)
        counts, place = {}, 0
        for i in sorted(range(len(rows)), key=lambda i: (distance[i], rows[i][3])):
            counts[rows[i][0]] = counts.get(rows[i][0], 0) + 1
            if place < request.k and (request.per_class_k is None or counts[rows[i][0]] <= request.per_class_k):
                cell = (query, place)
                answer.distance[cell] = distance[i]
                answer.class_id[cell], answer.shard[cell], answer.row[cell], answer.segment_id[cell] = rows[i]
                place += 1
    return answer


def cpu_knn(queries, keys, k):
    return faiss.knn(queries, keys, k, metric=faiss.METRIC_INNER_PRODUCT)


EXACT = {
    kernel.name: lambda kernel=kernel: Scan(kernel, KeyBudget(1 << 20))
    for kernel in (*CPU_KERNELS, float16_kernel("cpu"))
}
EXACT["faiss"] = lambda: FaissScan(cpu_knn, KeyBudget(1 << 20))


def same_bits(first, second):
    for name in ("distance", "class_id", "shard", "row", "segment_id"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name


@pytest.fixture(scope="module")
def databases(make, tmp_path_factory):
    """Several shards with dead rows and a merged class: random vectors, and coarse ones full of exact ties."""
    folder, built = tmp_path_factory.mktemp("backends"), []
    rng = np.random.default_rng(11)
    segments, _ = make.rows(700, classes=9)
    for name, vectors in (
        ("random", rng.normal(size=(700, 16)) + 0.7),
        ("ties", np.hstack([np.ones((700, 1)), rng.integers(-1, 2, (700, 15)) * (rng.random((700, 15)) < 0.2)])),
    ):
        database = make.build(folder / f"{name}.retdb", segments, vectors.astype(np.float32), shard_rows=190)
        with database.write("delete", "tests") as transaction:
            transaction.delete(segment_ids={s.segment_id for s in segments[::7]})
            built.append(transaction.commit())
    return built


@pytest.mark.parametrize("backend", EXACT)
@settings(max_examples=12, deadline=None)
@given(
    which=st.integers(0, 1),
    k=st.integers(1, 60),
    per_class_k=st.none() | st.integers(1, 9),
    classes=st.sets(st.integers(0, 8), max_size=9),
    transform=st.sampled_from(["none", "centre", "standardise", "whiten"]),
    seed=st.integers(0, 99),
)
def test_exact_backends_give_the_bits_of_brute_force(
    databases, backend, which, k, per_class_k, classes, transform, seed
):
    database = databases[which]
    request = Request(k, tuple(sorted(classes)), per_class_k, transform)
    queries = np.random.default_rng(seed).normal(size=(3, 16)).astype(np.float32)
    queries[0] = database.vectors([(0, 5)])[0]
    searcher = Searcher(database.snapshot)
    searcher._backends["cpu"] = EXACT[backend]()
    same_bits(searcher.search(queries, request, "cpu"), brute_force(searcher, database, queries, request))


def test_faiss_in_doubt_scores_in_full(make, tmp_path):
    """More equal rows than faiss was asked for: the tie must be broken by segment id, not by what faiss returned."""
    segments, _ = make.rows(300)
    database = make.build(tmp_path / "d.retdb", segments, np.ones((300, 8), np.float32))
    searcher = Searcher(database.snapshot)
    searcher._backends["cpu"] = FaissScan(cpu_knn, KeyBudget(1 << 20))
    found = searcher.search(np.ones((2, 8), np.float32), Request(5, tuple(range(5)), None, "none"), "cpu")
    assert found.segment_id[0].tolist() == sorted(s.segment_id for s in segments)[:5]

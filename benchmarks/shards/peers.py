"""Other ways to search under a vocabulary, each set up as well as we know how."""

from __future__ import annotations

import io
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from corpus import Corpus, Question, Rows
from faiss.contrib.big_batch_search import big_batch_search

HNSW_ROWS = 200_000  # above it building takes longer than a benchmark should


class Peer(ABC):
    """One contestant, built once. `settings` names what can be tuned."""

    name: str
    settings: tuple[int, ...] = (0,)

    @abstractmethod
    def prepare(self, question: Question, setting: int) -> Callable[[int], Rows]:
        """A search of the question: k -> (M, k) places. What is done here once per vocabulary is not timed."""


class FlatBitmap(Peer):
    """faiss IndexFlatIP with IDSelectorBitmap; rows as pictures bring them, or sorted by class as ours are."""

    def __init__(self, corpus: Corpus, *, scattered: bool) -> None:
        self.name = f"faiss FlatIP + IDSelectorBitmap, {'scattered' if scattered else 'class-sorted'} rows"
        count = len(corpus.label)
        self._order = np.random.default_rng(3).permutation(count) if scattered else np.arange(count)
        self._label = corpus.label[self._order]
        self._index = faiss.IndexFlatIP(corpus.vectors.shape[1])
        for start in range(0, count, 65_536):
            self._index.add(corpus.vectors[self._order[start : start + 65_536]])

    def prepare(self, question: Question, setting: int) -> Callable[[int], Rows]:
        """See `Peer`."""
        if question.share == 1:
            return lambda k: self._order[self._index.search(question.queries, k)[1]]
        bits = np.packbits(np.isin(self._label, question.classes), bitorder="little")
        parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        return lambda k: _mapped(self._index.search(question.queries, k, params=parameters)[1], self._order)


class KnnOfRanges(Peer):
    """faiss.knn on the asked rows, gathered beforehand: our layout with faiss's product."""

    name = "faiss.knn on gathered class ranges"

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def prepare(self, question: Question, setting: int) -> Callable[[int], Rows]:
        """See `Peer`."""
        rows = np.concatenate([np.arange(r.start, r.stop) for r in self._corpus.ranges(question.classes)])
        gathered = self._corpus.vectors if len(rows) == len(self._corpus.label) else self._corpus.vectors[rows]
        return lambda k: rows[faiss.knn(question.queries, gathered, k, metric=faiss.METRIC_INNER_PRODUCT)[1]]


class ClassLists(Peer):
    """faiss IVFFlat, one list a class, all asked lists searched: exact. 0: big_batch_search, 1: search_preassigned."""

    name = "faiss IVFFlat, one list a class"
    settings = (0, 1)

    def __init__(self, corpus: Corpus) -> None:
        width, lists = corpus.vectors.shape[1], int(corpus.label.max()) + 1
        quantizer = faiss.IndexFlatIP(width)
        quantizer.add(np.eye(lists, width, dtype=np.float32))  # lists are given; centres are never compared
        self._index = faiss.IndexIVFFlat(quantizer, width, lists, faiss.METRIC_INNER_PRODUCT)
        self._index.is_trained = True
        self._index.parallel_mode = 3
        for start in range(0, len(corpus.label), 65_536):
            part = np.ascontiguousarray(corpus.vectors[start : start + 65_536])
            ids = np.arange(start, start + len(part))
            label = np.ascontiguousarray(corpus.label[start : start + len(part)])
            self._index.add_core(len(part), faiss.swig_ptr(part), faiss.swig_ptr(ids), faiss.swig_ptr(label))

    def prepare(self, question: Question, setting: int) -> Callable[[int], Rows]:
        """See `Peer`."""
        lists = np.tile(question.classes, (len(question.queries), 1))
        self._index.nprobe = lists.shape[1]
        if setting == 0:

            def search(k: int) -> Rows:
                with redirect_stdout(_Silence()):  # it reports every list, at any verbosity
                    return big_batch_search(self._index, question.queries, k, q_assign=lists.astype(np.int32))[1]

            return search
        return lambda k: self._index.search_preassigned(question.queries, k, lists, None)[1]


class InvertedBitmap(Peer):
    """faiss IVFFlat by k-means with IDSelectorBitmap; the setting is nprobe."""

    settings = (32, 128, 512)

    def __init__(self, corpus: Corpus) -> None:
        count, width = corpus.vectors.shape
        lists = 4_096 if count > 500_000 else 1_024
        self.name = f"faiss IVF{lists},Flat + IDSelectorBitmap"
        self._label = corpus.label
        self._index = faiss.index_factory(width, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        self._index.parallel_mode = 0
        self._index.train(corpus.vectors[np.random.default_rng(4).permutation(count)[: 64 * lists]])
        self._index.add(corpus.vectors)

    def prepare(self, question: Question, setting: int) -> Callable[[int], Rows]:
        """See `Peer`."""
        selector = None
        if question.share < 1:
            bits = np.packbits(np.isin(self._label, question.classes), bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)
        parameters = faiss.IVFSearchParameters(nprobe=setting, sel=selector)
        return lambda k: self._index.search(question.queries, k, params=parameters)[1]


class HnswFilter(Peer):
    """hnswlib M 32; filtered by a Python function, which it calls for every candidate; the setting is ef."""

    name = "hnswlib M32 + filter"
    settings = (128, 512)

    def __init__(self, corpus: Corpus) -> None:
        import hnswlib

        self._label = corpus.label
        self._index = hnswlib.Index("ip", corpus.vectors.shape[1])
        self._index.init_index(len(corpus.label), ef_construction=200, M=32)
        self._index.add_items(corpus.vectors)

    def prepare(self, question: Question, setting: int) -> Callable[[int], Rows]:
        """See `Peer`."""
        self._index.set_ef(setting)
        if question.share == 1:
            return lambda k: self._index.knn_query(question.queries, k)[0].astype(np.int64)
        asked = np.isin(self._label, question.classes).tolist()
        # With a Python filter threads only wait for one another.
        return lambda k: self._index.knn_query(question.queries, k, num_threads=1, filter=asked.__getitem__)[0].astype(
            np.int64
        )


class UsearchGathered(Peer):
    """usearch exact search of the asked rows, gathered beforehand: it takes no filter from Python."""

    name = "usearch exact on gathered rows"

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def prepare(self, question: Question, setting: int) -> Callable[[int], Rows]:
        """See `Peer`."""
        import usearch.index

        rows = np.concatenate([np.arange(r.start, r.stop) for r in self._corpus.ranges(question.classes)])
        gathered = self._corpus.vectors if len(rows) == len(self._corpus.label) else self._corpus.vectors[rows]

        def search(k: int) -> Rows:
            found = usearch.index.search(gathered, question.queries, k, usearch.index.MetricKind.IP, exact=True)
            return rows[np.asarray(found.keys, np.int64)]

        return search


class Lance(Peer):
    """LanceDB without a vector index, bitmap index on the class, prefilter, all queries in one batch."""

    name = "LanceDB flat, bitmap-index prefilter, batch"

    def __init__(self, corpus: Corpus) -> None:
        import lancedb
        import pyarrow as pa

        self._folder = tempfile.TemporaryDirectory()
        width = corpus.vectors.shape[1]

        def parts() -> Iterator[Any]:
            for start in range(0, len(corpus.label), 65_536):
                vectors = corpus.vectors[start : start + 65_536]
                column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), width)
                label = pa.array(corpus.label[start : start + len(vectors)].astype(np.int32))
                place = pa.array(np.arange(start, start + len(vectors)))
                yield pa.record_batch([column, label, place], names=["vector", "label", "place"])

        first = next(parts())
        reader = pa.RecordBatchReader.from_batches(first.schema, parts())
        self._table = lancedb.connect(Path(self._folder.name)).create_table("rows", reader)
        self._table.create_scalar_index("label", index_type="BITMAP")

    def prepare(self, question: Question, setting: int) -> Callable[[int], Rows]:
        """See `Peer`."""
        asked = f"label IN ({', '.join(map(str, question.classes.tolist()))})"

        def search(k: int) -> Rows:
            query = self._table.search(list(question.queries)).distance_type("dot").limit(k).select(["place"])
            found = (query if question.share == 1 else query.where(asked, prefilter=True)).to_arrow()
            rows = np.full((len(question.queries), k), -1, np.int64)
            index, place = found["query_index"].to_numpy(), found["place"].to_numpy()
            order = np.argsort(index, kind="stable")
            index = index[order]
            rank = np.arange(len(index)) - np.searchsorted(index, index)
            rows[index, rank] = place[order]
            return rows

        return search


class _Silence(io.TextIOBase):
    """Takes text and forgets it."""

    def write(self, text: str) -> int:
        """Length of the text."""
        return len(text)


def _mapped(found: Rows, order: Rows) -> Rows:
    return np.where(found >= 0, order[found], -1)


def contestants(rows: int, wanted: str = "") -> list[Callable[[Corpus], Peer]]:
    """How to build each peer that can be built in reasonable time for so many rows.

    `wanted`: key words, by commas; "none"; "" = all.
    """
    every: dict[str, Callable[[Corpus], Peer]] = {
        "scattered": lambda corpus: FlatBitmap(corpus, scattered=True),
        "sorted": lambda corpus: FlatBitmap(corpus, scattered=False),
        "ranges": KnnOfRanges,
        "lists": ClassLists,
        "ivf": InvertedBitmap,
        "usearch": UsearchGathered,
        "lancedb": Lance,
        "hnswlib": HnswFilter,
    }
    if rows > HNSW_ROWS:
        del every["hnswlib"]
    if wanted == "none":
        return []
    return [every[name] for name in wanted.split(",")] if wanted else list(every.values())

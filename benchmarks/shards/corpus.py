"""What every contestant searches: the same rows in one order, the questions, and how answers are judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count as counting

import numpy as np
import numpy.typing as npt
from data import CLASSES, Source, queries

from retclip.core.segments import Neighbors
from retclip.shards import Database

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """Rows of a database, sorted by class.

    Attributes:
        vectors: (N, D) float32 unit; label: (N,) int64 class number 0 .. CLASSES-1, ascending.
        number: for each shard (rows,) int64, the place of each of its rows in the two arrays above.
        class_id: (CLASSES,) class id in the database of each class number.
    """

    vectors: npt.NDArray[np.float32]
    label: Rows
    number: list[Rows]
    class_id: Rows

    @classmethod
    def of(cls, database: Database) -> Corpus:
        """Reads everything into memory."""
        names = {c.id: int(c.name.split()[1]) for c in database.classes}
        readers = [part.reader for part in database.snapshot.shards]
        label = np.concatenate([[names[int(c)] for c in reader.row_classes()] for reader in readers])
        order = np.argsort(label, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        vectors = np.empty((len(label), database.space.dim), np.float32)
        number, begin = [], 0
        for reader in readers:
            number.append(place[begin : begin + reader.rows])
            vectors[number[-1]] = reader.vectors
            begin += reader.rows
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        by_number = {number: class_id for class_id, number in names.items()}
        return cls(vectors, label[order], number, np.array([by_number[n] for n in range(CLASSES)]))

    def rows_of(self, neighbors: Neighbors) -> Rows:
        """(M, k) places of what a database found, -1 for none."""
        places = np.full(neighbors.row.shape, -1, np.int64)
        for shard, number in enumerate(self.number):
            here = neighbors.shard == shard
            places[here] = number[neighbors.row[here]]
        return places

    def ranges(self, classes: Rows) -> list[slice]:
        """The rows of each class."""
        edges = np.searchsorted(self.label, np.stack([classes, classes + 1]))
        return [slice(int(begin), int(end)) for begin, end in edges.T]


@dataclass(frozen=True)
class Question:
    """100 queries under one vocabulary; the first half are of its classes, the others of classes outside it.

    Attributes:
        share: of the rows that is asked, about.
        classes: ascending class numbers.
        labels: (M,) class number of each query; queries: (M, D) float32.
        known: (M,) whether the class of a query is in the vocabulary.
    """

    share: float
    classes: Rows
    labels: Rows
    queries: npt.NDArray[np.float32]
    known: npt.NDArray[np.bool_]

    @classmethod
    def draw(cls, corpus: Corpus, share: float, count: int = 100, seed: int = 5) -> Question:
        """Random classes until they hold the share of the rows."""
        rng = np.random.default_rng((seed, round(share * 1000)))
        order = rng.permutation(CLASSES)
        held = np.cumsum(np.bincount(corpus.label, minlength=CLASSES)[order])
        classes = np.sort(order[: int(np.searchsorted(held, share * len(corpus.label))) + 1])
        others = np.setdiff1d(np.arange(CLASSES), classes)
        known = np.arange(count) < (count // 2 if len(others) else count)
        labels = np.where(known, rng.choice(classes, count), rng.choice(others if len(others) else classes, count))
        return cls(share, classes, labels, queries(Source.make(), labels), known)

    def others(self) -> Iterator[npt.NDArray[np.float32]]:
        """Ever new queries (M, D) of the same classes."""
        source = Source.make()
        for turn in counting(1):
            yield queries(source, self.labels, turn)


def recall(found: Rows, truth: Rows, score: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(M,) share of the true answer that was found; a row as near as the last true one, but for 1e-6, counts.

    Args:
        found: (M, k) places, -1 for none.
        truth: (M, k) places of the true answer.
        score: (M, 2k) cosines of `found` and then of `truth`.
    """
    k = truth.shape[1]
    last = np.where(truth >= 0, score[:, k:], np.inf).min(axis=1)
    return ((found >= 0) & (score[:, :k] >= last[:, None] - 1e-6)).sum(axis=1) / np.maximum((truth >= 0).sum(axis=1), 1)


def judge(corpus: Corpus, question: Question, found: Rows, truth: Rows) -> dict[str, float]:
    """Recall over all queries, over those inside and outside the vocabulary, and of the worst query."""
    both = np.concatenate([found, truth], axis=1)
    rows = corpus.vectors[np.maximum(both, 0)]
    each = recall(found, truth, np.einsum("mkd,md->mk", rows, question.queries))
    assert np.isin(corpus.label[found[found >= 0]], question.classes).all(), "a class was found that was not asked"
    known, outside = each[question.known], each[~question.known]
    return {
        "recall": float(each.mean()),
        "recall_in_vocabulary": float(known.mean()),
        "recall_out_of_vocabulary": float(outside.mean()) if len(outside) else float("nan"),
        "recall_worst": float(each.min()),
    }
